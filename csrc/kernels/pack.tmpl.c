// SPDX-License-Identifier: BSD-3-Clause
//
// pack.tmpl.c - moving data into the order in which the GEMM reads it: weights once per plan, pixels panel by panel, so
// that the im2col matrix as a whole never exists.  Every read is checked against the image; outside it is zero.

// ---------------------------------------------------------------------------------------------------------- weights

// Taps by which the channel lies ahead whose lines are asked for: 32 are gone through while memory answers.
enum { FC_PACK_AHEAD = 32, FC_LINE = 64 };

// One k: `rows` numbers `outer` apart, zeros behind them.
FC_INLINE void FC_NAME(pack_k)(T *out, const T *in, int64_t outer, int64_t rows, int64_t pitch) {
    int64_t i = 0;
    if (outer == 1) {
        for (; i + FC_VL <= rows; i += FC_VL) v_store(out + i, v_load(in + i));
        if (i < rows) v_store_part(out + i, v_load_part(in + i, rows - i), rows - i);
        i = rows;
    }
    for (; i < rows; i++) out[i] = in[i * outer];
    for (; i < pitch; i++) out[i] = 0;
}

// All taps of some channels which lie further apart than rows and taps do: the weights are gone through in their order in
// memory, and what lies between two channels is not waited for.
static void FC_NAME(pack_channels)(const fc_weight_order *o, const T *in, T *out, int64_t count, int64_t rows,
                                   int64_t pitch) {
    const fc_view *view = &o->view;
    const int64_t ahead = 1 + FC_PACK_AHEAD / (o->taps[0] * o->taps[1] * o->taps[2]);
    for (int64_t c = 0; c < count; c++, in += view->channel, out += pitch) {
        T *to = out;
        for (int64_t z = 0; z < o->taps[0]; z++)
            for (int64_t y = 0; y < o->taps[1]; y++)
                for (int64_t x = 0; x < o->taps[2]; x++, to += count * pitch) {
                    const T *from = in + z * view->axis[0] + y * view->axis[1] + x * view->axis[2];
                    if (c + ahead < count) {
                        const T *next = from + ahead * view->channel;
                        for (int64_t i = 0; i < rows; i += FC_LINE / (int64_t)sizeof(T))
                            __builtin_prefetch(next + i * view->outer, 0, 3);
                        __builtin_prefetch(next + (rows - 1) * view->outer, 0, 3);
                    }
                    FC_NAME(pack_k)(to, from, view->outer, rows, pitch);
                }
    }
}

FC_INLINE int64_t FC_NAME(distance)(int64_t stride) { return stride < 0 ? -stride : stride; }

void FC_NAME(pack_weights)(const fc_weight_order *o, const void *weights, void *packed, int64_t k0, int64_t k1,
                           int64_t tile) {
    const int64_t *taps = o->taps, per_channel = taps[0] * taps[1] * taps[2];
    const int64_t first = tile * o->tile, left = o->out_channels - first;
    const int64_t rows = left < o->tile ? left : o->tile, pitch = o->padded ? o->tile : rows;
    T *out = packed;
    if (o->in_order || o->places) {
        const T *in = (const T *)weights + first * o->view.outer + k0;
        if (o->places) FC_NAME(transposed)(out, pitch, o->places, in, o->view.outer, rows, k1 - k0);
        else FC_NAME(transposed)(out, pitch, NULL, in, o->view.outer, rows, k1 - k0); // a loop of its own
        return;
    }
    const int64_t outer = o->view.outer, channel = o->view.channel;
    const int rows_nearer = FC_NAME(distance)(outer) < FC_NAME(distance)(channel);
    if (rows_nearer && per_channel == 1) { // in any order
        FC_NAME(pack_channels)(o, (const T *)weights + first * outer + k0 * channel, out, k1 - k0, rows, pitch);
        return;
    }
    int64_t block = k0 / (o->block * per_channel), rest = k0 % (o->block * per_channel);
    for (int64_t k = k0; k < k1; block++, rest = 0) {
        const int64_t c0 = block * o->block, size = o->channels - c0 < o->block ? o->channels - c0 : o->block;
        const T *start = (const T *)weights + first * outer + c0 * channel;
        if (rows_nearer && rest == 0 && size * per_channel <= k1 - k) {
            FC_NAME(pack_channels)(o, start, out, size, rows, pitch);
            out += size * per_channel * pitch;
            k += size * per_channel;
            continue;
        }
        while (k < k1 && rest < size * per_channel) { // the channels of one tap
            const int64_t tap = rest / size, skip = rest % size, count = size - skip < k1 - k ? size - skip : k1 - k;
            const int64_t x = tap % taps[2], y = tap / taps[2] % taps[1], z = tap / taps[2] / taps[1];
            const T *in = start + skip * channel + z * o->view.axis[0] + y * o->view.axis[1] + x * o->view.axis[2];
            if (channel == 1) FC_NAME(transposed)(out, pitch, NULL, in, outer, rows, count);
            else if (rows_nearer)
                for (int64_t c = 0; c < count; c++)
                    FC_NAME(pack_k)(out + c * pitch, in + c * channel, outer, rows, pitch);
            else {
                for (int64_t i = 0; i < rows; i++)
                    for (int64_t c = 0; c < count; c++) out[c * pitch + i] = in[i * outer + c * channel];
                for (int64_t i = rows; i < pitch; i++)
                    for (int64_t c = 0; c < count; c++) out[c * pitch + i] = 0;
            }
            out += count * pitch;
            rest += count;
            k += count;
        }
    }
}

// ----------------------------------------------------------------------------------------------------------- pixels

// out[j] = in[j * step] for `count` elements.
FC_INLINE void FC_NAME(copy_run)(T *out, const T *in, int64_t step, int64_t count) {
    int64_t j = 0;
    if (step == 1) {
        for (; j + FC_VL <= count; j += FC_VL) v_store(out + j, v_load(in + j));
        if (j < count) v_store_part(out + j, v_load_part(in + j, count - j), count - j);
        return;
    }
    if (step == 2) {
        for (; j + FC_VL <= count; j += FC_VL) v_store(out + j, v_load2(in + 2 * j));
        if (j < count) v_store_part(out + j, v_load2_part(in + 2 * j, count - j), count - j);
        return;
    }
    for (; j < count; j++) out[j] = in[j * step];
}

FC_INLINE void FC_NAME(zero_run)(T *out, int64_t count) {
    int64_t j = 0;
    for (; j + FC_VL <= count; j += FC_VL) v_store(out + j, v_set1(0));
    if (j < count) v_store_part(out + j, v_set1(0), count - j);
}

// Those of `count` outputs along w that read inside [0, size), the first of them at x.
typedef struct FC_NAME(span) {
    int64_t low, high;
} FC_NAME(span);

FC_INLINE FC_NAME(span) FC_NAME(span_inside)(int64_t x, int64_t stride, int64_t size, int64_t count) {
    int64_t low = 0, high = count;
    if (x < 0) low = stride == 1 ? -x : (-x + stride - 1) / stride;
    if (x + (count - 1) * stride >= size) high = x >= size ? 0 : (size - x + stride - 1) / stride;
    if (low > count) low = count;
    if (high < low) high = low;
    return (FC_NAME(span)){low, high};
}

// A run of outputs along w reads in[x + j * stride]: copies those inside [0, size), zeroes the rest unless `bordered`.
FC_INLINE void FC_NAME(bordered_run)(T *out, const T *row, int64_t x, int64_t stride, int64_t size, int64_t step,
                                     int64_t count, int bordered) {
    const FC_NAME(span) in = FC_NAME(span_inside)(x, stride, size, count);
    if (in.low > 0 && !bordered) FC_NAME(zero_run)(out, in.low);
    FC_NAME(copy_run)(out + in.low, row + (x + in.low * stride) * step, step * stride, in.high - in.low);
    if (in.high < count && !bordered) FC_NAME(zero_run)(out + in.high, count - in.high);
}

FC_INLINE void FC_NAME(clipped_run)(T *out, const T *row, int64_t x, int64_t stride, int64_t size, int64_t step,
                                    int64_t count) {
    FC_NAME(bordered_run)(out, row, x, stride, size, step, count, 0);
}

// Where output pixel `pixel`, flat over (image, d, h, w), starts to read.
typedef struct FC_NAME(window) {
    int64_t image, at[FC_AXES], out_w;
} FC_NAME(window);

FC_INLINE FC_NAME(window) FC_NAME(window_of)(const fc_problem *p, int64_t pixel) {
    FC_NAME(window) w;
    int64_t out[FC_AXES];
    for (int i = FC_AXES - 1; i >= 0; i--) {
        out[i] = pixel % p->axis[i].out;
        pixel /= p->axis[i].out;
        w.at[i] = out[i] * p->axis[i].stride - p->axis[i].pad;
    }
    w.image = pixel;
    w.out_w = out[2];
    return w;
}

// A panel of up to `pitch` pixels: each row is a shifted copy of image rows.
static void FC_NAME(im2col_panel)(const fc_im2col *work) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int64_t step = p->src.axis[2];
    int64_t column = 0;
    while (column < work->count) {
        const FC_NAME(window) at = FC_NAME(window_of)(p, work->pixel + column);
        const int64_t left = work->count - column, length = w->out - at.out_w < left ? w->out - at.out_w : left;
        const T *image = (const T *)work->src + at.image * p->src.outer;
        int64_t kw = work->k0 % w->kernel, kh = work->k0 / w->kernel % h->kernel;
        int64_t kd = work->k0 / w->kernel / h->kernel % d->kernel, c = work->k0 / w->kernel / h->kernel / d->kernel;
        T *out = (T *)work->panel + column;
        for (int64_t k = work->k0; k < work->k1; k++, out += work->pitch) {
            const int64_t z = at.at[0] + kd * d->dilation, y = at.at[1] + kh * h->dilation;
            if (z < 0 || z >= d->in || y < 0 || y >= h->in) FC_NAME(zero_run)(out, length);
            else
                FC_NAME(clipped_run)(out, image + c * p->src.channel + z * p->src.axis[0] + y * p->src.axis[1],
                                     at.at[2] + kw * w->dilation, w->stride, w->in, step, length);
            if (++kw < w->kernel) continue;
            kw = 0;
            if (++kh < h->kernel) continue;
            kh = 0;
            if (++kd < d->kernel) continue;
            kd = 0;
            c++;
        }
        column += length;
    }
    if (column < work->pitch)
        for (int64_t k = 0; k < work->k1 - work->k0; k++)
            FC_NAME(zero_run)((T *)work->panel + k * work->pitch + column, work->pitch - column);
}

// Panels of pixels of one row under a 1x1 kernel: the columns of several panels, plane by plane, for lines that follow each
// other come faster, and those of planes further on are asked for.  A panel at a time waited for each line.
static void FC_NAME(im2col_planes)(const fc_im2col *work, const T *in) {
    enum { together = 8, ahead = 8 };
    const int64_t pitch = work->pitch, group = together * pitch, channel = work->problem->src.channel;
    const int64_t line = 64 / (int64_t)sizeof(T);
    for (int64_t first = 0; first < work->count; first += group) {
        const int64_t end = first + group < work->count ? first + group : work->count;
        for (int64_t k = work->k0; k < work->k1; k++) {
            const T *row = in + k * channel;
            T *out = (T *)work->panel + first / pitch * work->panel_step + (k - work->k0) * pitch;
            if (k + ahead < work->k1)
                for (int64_t j = first; j < end; j += line) __builtin_prefetch(row + ahead * channel + j, 0, 3);
            for (int64_t j = first; j < end; j += pitch, out += work->panel_step) {
                if (end - j < FC_NR) {
                    FC_NAME(copy_run)(out, row + j, 1, end - j);
                    FC_NAME(zero_run)(out + (end - j), pitch - (end - j));
                    continue;
                }
#pragma GCC unroll 4
                for (int v = 0; v < FC_NV; v++) v_store(out + v * FC_VL, v_load(row + j + v * FC_VL));
            }
        }
    }
}

// Where the pixels of a call under a 1x1 kernel begin, and how many of them lie in one row of the image.
FC_INLINE int64_t FC_NAME(planes_run)(const fc_im2col *work, const T **in) {
    const fc_problem *p = work->problem;
    const FC_NAME(window) at = FC_NAME(window_of)(p, work->pixel);
    const fc_axis *axis = p->axis;
    int plain = work->pitch == FC_NR && axis[2].stride == 1 && p->src.axis[2] == 1;
    for (int i = 0; i < FC_AXES; i++) plain &= axis[i].kernel == 1 && at.at[i] >= 0 && at.at[i] < axis[i].in;
    *in = (const T *)work->src + at.image * p->src.outer;
    if (!plain) return 0;
    for (int i = 0; i < FC_AXES; i++) *in += at.at[i] * p->src.axis[i];
    const int64_t read = axis[2].in - at.at[2], written = axis[2].out - at.out_w;
    return read < written ? read : written;
}

// Panels [k1 - k0][pitch], k = (c, kd, kh, kw).
void FC_NAME(im2col_pixels)(const fc_im2col *work) {
    fc_im2col part = *work;
    for (int64_t left = work->count; left > 0; left -= part.count) {
        const T *in;
        const int64_t run = FC_NAME(planes_run)(&part, &in);
        part.count = left < work->pitch ? left : work->pitch;
        if (run < part.count) FC_NAME(im2col_panel)(&part);
        else {
            part.count = left <= run ? left : run / work->pitch * work->pitch;
            FC_NAME(im2col_planes)(&part, in);
        }
        part.pixel += part.count;
        part.panel = (T *)part.panel + part.count / work->pitch * work->panel_step;
    }
}

// Panel [pixel][k1 - k0], k = (kd, kh, kw, c): each row is a string of channel runs.  Where neighbouring taps are
// neighbours in memory, a whole row of taps is one run; that is what makes images of three channels fast.
void FC_NAME(im2col_channels)(const fc_im2col *work) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int64_t channels = p->in_channels, step = p->src.channel;
    const int joined = w->dilation == 1 && step == 1 && p->src.axis[2] == channels;
    const int64_t run = joined ? channels * w->kernel : channels, per_row = joined ? 1 : w->kernel;
    T *row = work->panel;
    for (int64_t i = 0; i < work->count; i++, row += work->pitch) {
        const FC_NAME(window) at = FC_NAME(window_of)(p, work->pixel + i);
        const T *image = (const T *)work->src + at.image * p->src.outer;
        int64_t tap = work->k0 / run, skip = work->k0 % run;
        T *out = row;
        for (int64_t k = work->k0; k < work->k1; tap++, skip = 0) {
            const int64_t left = work->k1 - k, length = run - skip < left ? run - skip : left;
            const int64_t kw = tap % per_row, kh = tap / per_row % h->kernel, kd = tap / per_row / h->kernel;
            const int64_t z = at.at[0] + kd * d->dilation, y = at.at[1] + kh * h->dilation;
            const int64_t x = at.at[2] + kw * w->dilation;
            const T *in = image + z * p->src.axis[0] + y * p->src.axis[1];
            if (z < 0 || z >= d->in || y < 0 || y >= h->in) FC_NAME(zero_run)(out, length);
            else if (joined) FC_NAME(clipped_run)(out, in, x * channels + skip, 1, w->in * channels, 1, length);
            else if (x < 0 || x >= w->in) FC_NAME(zero_run)(out, length);
            else FC_NAME(copy_run)(out, in + x * p->src.axis[2] + skip * step, step, length);
            out += length;
            k += length;
        }
    }
}

// Panel [pixel][k1 - k0], k = (c, kd, kh, kw): each row is a string of tap runs.  Serves images whose channels are not
// neighbours but whose outputs are, and the weight gradient, whose "taps" are the output's gradient.
void FC_NAME(im2col_strings)(const fc_im2col *work) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    T *row = work->panel;
    for (int64_t i = 0; i < work->count; i++, row += work->pitch) {
        const FC_NAME(window) at = FC_NAME(window_of)(p, work->pixel + i);
        const T *image = (const T *)work->src + at.image * p->src.outer;
        int64_t string = work->k0 / w->kernel, skip = work->k0 % w->kernel;
        T *out = row;
        for (int64_t k = work->k0; k < work->k1; string++, skip = 0) {
            const int64_t left = work->k1 - k, length = w->kernel - skip < left ? w->kernel - skip : left;
            const int64_t kh = string % h->kernel, kd = string / h->kernel % d->kernel;
            const int64_t c = string / h->kernel / d->kernel;
            const int64_t z = at.at[0] + kd * d->dilation, y = at.at[1] + kh * h->dilation;
            const T *in = image + c * p->src.channel + z * p->src.axis[0] + y * p->src.axis[1];
            if (z < 0 || z >= d->in || y < 0 || y >= h->in) FC_NAME(zero_run)(out, length);
            else
                FC_NAME(clipped_run)(out, in, at.at[2] + skip * w->dilation, w->dilation, w->in, p->src.axis[2],
                                     length);
            out += length;
            k += length;
        }
    }
}

// ----------------------------------------------------------------------------------------------------- padded rows

// Whether any tap reads phase `phase` of an axis.
FC_INLINE int FC_NAME(phase_used)(const fc_axis *a, int64_t phase) {
    for (int64_t k = 0; k < a->kernel; k++)
        if (k * a->dilation % a->stride == phase) return 1;
    return 0;
}

// The same run of `channels` planes, which lie `plane` apart, of pixels whose channels are neighbours.
static void FC_NAME(bordered_runs)(T *out, int64_t plane, const T *row, int64_t x, const fc_axis *w, int64_t step,
                                   int64_t count, int bordered, int64_t channels) {
    const FC_NAME(span) in = FC_NAME(span_inside)(x, w->stride, w->in, count);
    int64_t places[FC_VL];
    for (int64_t c = 0; c < channels; c++) {
        places[c] = c * plane;
        if (bordered) continue;
        FC_NAME(zero_run)(out + places[c], in.low);
        FC_NAME(zero_run)(out + places[c] + in.high, count - in.high);
    }
    const T *from = row + (x + in.low * w->stride) * step;
    FC_NAME(transposed)(out + in.low, in.high - in.low, places, from, w->stride * step, in.high - in.low, channels);
}

// planes [channel][kd][phase h][phase w][rows][width]: element (r, j) of a phase plane is the input at row
// (h + r) * stride - pad + phase, column j * stride - pad + phase.
void FC_NAME(pad_copy_pixels)(const fc_pad_copy *work) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int64_t area = work->rows * work->width, plane = d->kernel * h->stride * w->stride * area;
    // Where channels are neighbours, and pixels are not, a vector of channels is read at once.
    const int64_t most = p->src.channel == 1 && p->src.axis[2] != 1 ? FC_VL : 1;
    for (int64_t c = 0; c < work->channels; c += most) {
        const int64_t channels = work->channels - c < most ? work->channels - c : most;
        T *out = (T *)work->planes + c * plane;
        for (int64_t kd = 0; kd < d->kernel; kd++) {
            const int64_t z = work->d * d->stride - d->pad + kd * d->dilation;
            const T *in = (const T *)work->src + (work->c0 + c) * p->src.channel + z * p->src.axis[0];
            for (int64_t ph = 0; ph < h->stride; ph++)
                for (int64_t pw = 0; pw < w->stride; pw++) {
                    if (!FC_NAME(phase_used)(h, ph) || !FC_NAME(phase_used)(w, pw)) {
                        out += area;
                        continue;
                    }
                    for (int64_t r = 0; r < work->rows; r++, out += work->width) {
                        const int64_t y = (work->h + r) * h->stride - h->pad + ph;
                        const T *row = in + y * p->src.axis[1];
                        if (z < 0 || z >= d->in || y < 0 || y >= h->in)
                            for (int64_t i = 0; i < channels && !work->bordered; i++)
                                FC_NAME(zero_run)(out + i * plane, work->width);
                        else if (channels > 1)
                            FC_NAME(bordered_runs)(out, plane, row, pw - w->pad, w, p->src.axis[2], work->width,
                                                   work->bordered, channels);
                        else
                            FC_NAME(bordered_run)(out, row, pw - w->pad, w->stride, w->in, p->src.axis[2], work->width,
                                                  work->bordered);
                    }
                }
        }
    }
}

FC_INLINE void FC_NAME(turn_few)(T *out, const T *in, int64_t apart, int64_t pixels, const int channels) {
    for (int64_t x = 0; x < pixels; x++)
#pragma GCC unroll 4
        for (int c = 0; c < channels; c++) out[x * channels + c] = in[c * apart + x];
}

// Pixels x channels from rows of pixels: out[x][c] = in[c][x], the channels `apart` in memory.
static void FC_NAME(turn_run)(T *out, const T *in, int64_t apart, int64_t pixels, int64_t channels) {
    switch (channels) { // a transpose of vectors would be for nothing but zeros, most of it
    case 1:
        FC_NAME(turn_few)(out, in, apart, pixels, 1);
        return;
    case 2:
        FC_NAME(turn_few)(out, in, apart, pixels, 2);
        return;
    case 3:
        FC_NAME(turn_few)(out, in, apart, pixels, 3);
        return;
    case 4:
        FC_NAME(turn_few)(out, in, apart, pixels, 4);
        return;
    }
    for (int64_t x = 0; x < pixels; x += FC_VL)
        for (int64_t c = 0; c < channels; c += FC_VL) {
            const int64_t n = FC_NAME(lanes_of)(pixels - x);
            const int64_t few = FC_NAME(lanes_of)(channels - c);
            vec v[FC_VL] = {v_set1(0)}; // for compilers that see no loop of one lane
#pragma GCC unroll 16
            for (int i = 0; i < FC_VL; i++) v[i] = i < few ? v_load_part(in + (c + i) * apart + x, n) : v_set1(0);
            v_transpose(v);
#pragma GCC unroll 16
            for (int i = 0; i < FC_VL; i++)
                if (i < n) v_store_part(out + (x + i) * channels + c, v[i], few);
        }
}

// planes [kd][rows][width][channel]: element (r, j) is the input pixel at row h * stride - pad + r, column j - pad.
void FC_NAME(pad_copy_channels)(const fc_pad_copy *work) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int64_t channels = work->channels, step = p->src.axis[2], row = work->width * channels;
    const int joined = p->src.channel == 1 && step == channels;
    T *out = work->planes;
    for (int64_t kd = 0; kd < d->kernel; kd++) {
        const int64_t z = work->d * d->stride - d->pad + kd * d->dilation;
        const T *plane = (const T *)work->src + z * p->src.axis[0];
        for (int64_t r = 0; r < work->rows; r++, out += row) {
            const int64_t y = work->h * h->stride - h->pad + r;
            const T *in = plane + y * p->src.axis[1];
            if (z < 0 || z >= d->in || y < 0 || y >= h->in) FC_NAME(zero_run)(out, row);
            else if (joined) FC_NAME(clipped_run)(out, in, -w->pad * channels, 1, w->in * channels, 1, row);
            else if (step == 1) {
                int64_t low = w->pad > 0 ? w->pad : 0,
                        high = w->pad + w->in < work->width ? w->pad + w->in : work->width;
                if (low > work->width) low = work->width;
                if (high < low) high = low;
                FC_NAME(zero_run)(out, low * channels);
                FC_NAME(turn_run)(out + low * channels, in + low - w->pad, p->src.channel, high - low, channels);
                FC_NAME(zero_run)(out + high * channels, (work->width - high) * channels);
            } else
                for (int64_t j = 0; j < work->width; j++) {
                    const int64_t x = j - w->pad;
                    if (x < 0 || x >= w->in) FC_NAME(zero_run)(out + j * channels, channels);
                    else FC_NAME(copy_run)(out + j * channels, in + x * step, p->src.channel, channels);
                }
        }
    }
}
