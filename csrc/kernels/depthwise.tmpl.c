// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise.tmpl.c - rows of a convolution with one input channel: dst[x] = sum over taps of w[tap] * src[x * s + tap].
//
// Taps are summed in one order everywhere, and every column by the same operations, so that a pixel's bits do not depend
// on where it stands.

// `rows` rows of `count` vectors of outputs from column x on; the last vector of a row holds `lanes` columns.  Several
// sums go on at a time, or each would wait for the one before.
FC_INLINE void FC_NAME(depthwise_vectors)(const fc_depthwise_rows *work, const T *src, const T *weights, vec bias,
                                          T *dst, const T *residual, int64_t lanes, const int rows, const int count) {
    const int64_t row = work->row, down = work->problem->dst.axis[1];
    vec sum[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) sum[r][v] = v_set1(0);
    for (int64_t t = 0; t < work->taps; t++) {
        const vec tap = v_set1(weights[t]);
        const T *in = src + work->tap_offset[t];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < count; v++) sum[r][v] = v_fma(tap, v_load(in + r * row + v * FC_VL), sum[r][v]);
    }
    const vec low = v_set1((T)work->problem->low), high = v_set1((T)work->problem->high);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            const int64_t at = r * down + v * FC_VL, n = v + 1 < count ? FC_VL : lanes;
            const vec res = residual ? v_load_part(residual + at, n) : v_set1(0);
            v_store_part(dst + at, FC_NAME(finish)(sum[r][v], bias, res, low, high), n);
        }
}

// Rows of one output channel from padded rows (algo/padded.c): no borders, no strides, only taps at offsets.
static void FC_NAME(depthwise_pixels)(const fc_depthwise_rows *work) {
    const fc_problem *p = work->problem;
    const int64_t columns = p->axis[2].out;
    const T *weights = (const T *)work->weights + work->channel * work->taps;
    const vec bias = v_set1(((const T *)work->bias)[work->channel]);
    for (int64_t r = 0; r < work->rows;) {
        const int64_t left_rows = work->rows - r, rows = left_rows >= 4 ? 4 : left_rows >= 2 ? 2 : 1;
        const T *src = (const T *)work->src + r * work->row;
        T *dst = (T *)work->dst + (work->h + r) * p->dst.axis[1];
        const T *residual = work->residual ? (const T *)work->residual + (work->h + r) * p->dst.axis[1] : NULL;
        for (int64_t x = 0; x < columns;) {
            const int64_t left = columns - x, wide = (rows == 1 ? 4 : 2) * FC_VL, count = left < wide ? left : wide;
            const T *res = residual ? residual + x : NULL;
            const int64_t vectors = (count + FC_VL - 1) / FC_VL, lanes = count - (vectors - 1) * FC_VL;
#define FC_DEPTHWISE(R, V)                                                                                             \
    if (rows == R && vectors == V) FC_NAME(depthwise_vectors)(work, src + x, weights, bias, dst + x, res, lanes, R, V);
            FC_DEPTHWISE(4, 1)
            FC_DEPTHWISE(4, 2)
            FC_DEPTHWISE(2, 1)
            FC_DEPTHWISE(2, 2)
            FC_DEPTHWISE(1, 1)
            FC_DEPTHWISE(1, 2)
            FC_DEPTHWISE(1, 3)
            FC_DEPTHWISE(1, 4)
#undef FC_DEPTHWISE
            x += count;
        }
        r += rows;
    }
}

// The taps k of an axis that read inside [0, in) from output position `at`: [low, high).
FC_INLINE void FC_NAME(taps_inside)(const fc_axis *a, int64_t at, int64_t *low, int64_t *high) {
    const int64_t first = at * a->stride - a->pad, e = a->dilation;
    *low = first < 0 ? (-first + e - 1) / e : 0;
    *high = first + (a->kernel - 1) * e < a->in ? a->kernel : first < a->in ? (a->in - 1 - first) / e + 1 : 0;
    if (*low > a->kernel) *low = a->kernel;
    if (*high < *low) *high = *low;
}

// ------------------------------------------------------------------------------- planes: rows read where they lie

// The inputs of a vector of outputs, one or two elements apart; masked, only those of lanes `low` and `high` (of the first
// and the second FC_VL elements) are touched, and the others are zero.
FC_INLINE vec FC_NAME(row_load)(const T *p, const int apart) { return apart == 1 ? v_load(p) : v_load2(p); }
FC_INLINE vec FC_NAME(row_masked)(const T *p, vmask low, vmask high, const int apart) {
    const vec first = v_load_where(low, p, v_set1(0));
    return apart == 1 ? first : v_even(first, v_load_where(high, p + FC_VL, v_set1(0)));
}

// A row of the input enters the sums of the outputs that it belongs to.
FC_INLINE void FC_NAME(depthwise_row)(vec row, const vec *taps, vec *sum, const int t, const int rows, const int reach,
                                      const int over) {
#pragma GCC unroll 5
    for (int q = 0; q < reach; q++)
        if (t >= q && (t - q) % over == 0 && (t - q) / over < rows)
            sum[(t - q) / over] = v_fma(taps[q], row, sum[(t - q) / over]);
}

// Finishes `rows` vectors of sums for dst whose columns are not neighbours: a phase of a transposed convolution.
static __attribute__((noinline)) void FC_NAME(depthwise_apart)(const fc_depthwise_rows *work, const T *sums, vec bias,
                                                               int64_t to, int64_t lanes, int rows) {
    const fc_problem *p = work->problem;
    const int64_t step = p->dst.axis[2];
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
    for (int r = 0; r < rows; r++, to += p->dst.axis[1], sums += FC_VL) {
        const vec res = work->residual ? v_load_apart((const T *)work->residual + to, lanes, step) : v_set1(0);
        v_store_apart((T *)work->dst + to, FC_NAME(finish)(v_load(sums), bias, res, low, high), lanes, step);
    }
}

// `rows` rows of one vector of outputs from row y and column x on, `lanes` of which exist.  Outputs are `apart` columns of
// the input apart.  An input row is loaded once for `reach` kernel rows, which are neighbours then, and outputs as far
// apart in height as in width; with a reach of one nothing is asked of dilation and stride.
FC_INLINE void FC_NAME(depthwise_piece)(const fc_depthwise_rows *work, int64_t d0, int64_t d1, const T *weights,
                                        vec bias, int64_t y, int64_t x, int64_t lanes, const int rows, const int reach,
                                        const int apart) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int over = reach == 1 ? 1 : apart;            // input rows from output to output
    const int64_t further = reach == 1 ? h->stride : 1; // what an input row is here
    const int64_t down = further * p->src.axis[1];
    const int input_rows = (rows - 1) * over + reach;
    vec sum[7];
#pragma GCC unroll 7
    for (int r = 0; r < rows; r++) sum[r] = v_set1(0);
    for (int64_t i = d0; i < d1; i++)
        for (int64_t j = 0; j < h->kernel; j += reach) {
            const int64_t top = y * h->stride - h->pad + j * h->dilation;
            const T *plane = (const T *)work->src + (work->d * d->stride - d->pad + i * d->dilation) * p->src.axis[0];
            const T *tap = weights + (i * h->kernel + j) * w->kernel;
            const int rows_inside = top >= 0 && top + (input_rows - 1) * further < h->in;
            for (int64_t k = 0; k < w->kernel; k++) {
                const int64_t at = x * apart - w->pad + k * w->dilation;
                const T *in = plane + top * p->src.axis[1] + at;
                vec taps[5];
#pragma GCC unroll 5
                for (int q = 0; q < reach; q++) taps[q] = v_set1(tap[q * w->kernel + k]);
                if (rows_inside && at >= 0 && at + (FC_VL - 1) * apart < w->in) {
#pragma GCC unroll 17
                    for (int t = 0; t < input_rows; t++)
                        FC_NAME(depthwise_row)(FC_NAME(row_load)(in + t * down, apart), taps, sum, t, rows, reach,
                                               over);
                    continue;
                }
                const vmask low = v_lanes(-at, w->in - at), high = v_lanes(-at - FC_VL, w->in - at - FC_VL);
#pragma GCC unroll 17
                for (int t = 0; t < input_rows; t++) {
                    if (top + t * further < 0 || top + t * further >= h->in) continue;
                    const vec row = FC_NAME(row_masked)(in + t * down, low, high, apart);
                    FC_NAME(depthwise_row)(row, taps, sum, t, rows, reach, over);
                }
            }
        }
    const int64_t to = y * p->dst.axis[1] + x * p->dst.axis[2];
    if (p->dst.axis[2] != 1) {
        T lane[7 * FC_VL];
#pragma GCC unroll 7
        for (int r = 0; r < rows; r++) v_store(lane + r * FC_VL, sum[r]);
        FC_NAME(depthwise_apart)(work, lane, bias, to, lanes, rows);
        return;
    }
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
#pragma GCC unroll 7
    for (int r = 0; r < rows; r++) {
        const int64_t at = to + r * p->dst.axis[1];
        const vec res = work->residual ? v_load_part((const T *)work->residual + at, lanes) : v_set1(0);
        v_store_part((T *)work->dst + at, FC_NAME(finish)(sum[r], bias, res, low, high), lanes);
    }
}

// Rows of one output channel, from the plane of its input.  Seven at a time hide the latency of the sums; heights are
// multiples of seven more often than of any other number of that size.
FC_INLINE void FC_NAME(depthwise_planes_body)(const fc_depthwise_rows *work, const int reach, const int apart) {
    const fc_problem *p = work->problem;
    const T *weights = (const T *)work->weights + work->channel * work->taps;
    const vec bias = v_set1(((const T *)work->bias)[work->channel]);
    int64_t d0, d1;
    FC_NAME(taps_inside)(&p->axis[0], work->d, &d0, &d1);
    for (int64_t y = work->h; y < work->h + work->rows;) {
        const int64_t more = work->h + work->rows - y, rows = more >= 7 ? 7 : more >= 2 ? 2 : 1;
        for (int64_t x = 0; x < p->axis[2].out; x += FC_VL) {
            const int64_t left = p->axis[2].out - x, lanes = left < FC_VL ? left : FC_VL;
            if (rows == 7) FC_NAME(depthwise_piece)(work, d0, d1, weights, bias, y, x, lanes, 7, reach, apart);
            else if (rows == 2) FC_NAME(depthwise_piece)(work, d0, d1, weights, bias, y, x, lanes, 2, reach, apart);
            else FC_NAME(depthwise_piece)(work, d0, d1, weights, bias, y, x, lanes, 1, reach, apart);
        }
        y += rows;
    }
}

static void FC_NAME(depthwise_planes)(const fc_depthwise_rows *work) {
    const fc_axis *h = &work->problem->axis[1], *w = &work->problem->axis[2];
    const int near = h->dilation == 1 && h->stride == w->stride;
    const int reach = near && h->kernel % 3 == 0 ? 3 : near && h->kernel % 5 == 0 ? 5 : 1;
#define FC_DEPTHWISE(R, A)                                                                                             \
    if (reach == R && w->stride == A) FC_NAME(depthwise_planes_body)(work, R, A);
    FC_DEPTHWISE(1, 1)
    FC_DEPTHWISE(1, 2)
    FC_DEPTHWISE(3, 1)
    FC_DEPTHWISE(3, 2)
    FC_DEPTHWISE(5, 1)
    FC_DEPTHWISE(5, 2)
#undef FC_DEPTHWISE
}

// ------------------------------------------------------------------------------------------------------- channels

typedef struct FC_NAME(tap_range) {
    int64_t low[FC_AXES], high[FC_AXES];
} FC_NAME(tap_range);

// A group of several channels adds up `size` products per tap: input q of each group is spread over the group's outputs.
//
// `pixels` neighbouring output pixels by `count` vectors of channels from c on, all of which see the taps of `r`; only a
// single vector may be partial (`lanes`).  Where the taps and the stride of a row are known (`taps` > 0) and all of them
// inside, its columns are loaded once for all of the pixels.
FC_INLINE void FC_NAME(depthwise_block)(const fc_depthwise_rows *work, const FC_NAME(tap_range) * r, const T *src,
                                        T *dst, const T *residual, int64_t c, int64_t lanes, const int pixels,
                                        const int count, const int one, const int taps, const int apart) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int size = one ? 1 : (int)p->in_channels;
    const int64_t channels = p->groups * size; // of a row of weights
    const T *weights = (const T *)work->weights + c;
    const int64_t across = w->stride * p->src.axis[2], step = w->dilation * p->src.axis[2], next = p->dst.axis[2];
    const int whole = lanes == FC_VL;
    vec sum[8];
#pragma GCC unroll 8
    for (int i = 0; i < pixels * count; i++) sum[i] = v_set1(0);
    for (int64_t i = r->low[0]; i < r->high[0]; i++)
        for (int64_t j = r->low[1]; j < r->high[1]; j++) {
            const T *at =
                src + i * d->dilation * p->src.axis[0] + j * h->dilation * p->src.axis[1] + r->low[2] * step + c;
            const T *tap = weights + ((i * h->kernel + j) * w->kernel + r->low[2]) * size * channels;
            if (taps) {
#pragma GCC unroll 4
                for (int v = 0; v < count; v++) {
                    vec in[11];
#pragma GCC unroll 11
                    for (int x = 0; x < (pixels - 1) * apart + taps; x++) {
                        const T *from = at + x * step + v * FC_VL;
                        in[x] = whole ? v_load(from) : v_load_part(from, lanes);
                    }
#pragma GCC unroll 5
                    for (int k = 0; k < taps; k++) {
                        const T *of = tap + k * channels + v * FC_VL;
                        const vec weight = whole ? v_load(of) : v_load_part(of, lanes);
#pragma GCC unroll 4
                        for (int x = 0; x < pixels; x++)
                            sum[x * count + v] = v_fma(weight, in[x * apart + k], sum[x * count + v]);
                    }
                }
                continue;
            }
            for (int64_t k = r->low[2]; k < r->high[2]; k++, at += step, tap += size * channels)
#pragma GCC unroll 4
                for (int v = 0; v < count; v++) {
                    vec in[4];
#pragma GCC unroll 4
                    for (int x = 0; x < pixels; x++) {
                        const T *from = at + x * across + v * FC_VL;
                        in[x] = whole ? v_load(from) : v_load_part(from, lanes);
                    }
                    for (int q = 0; q < size; q++) {
                        const T *of = tap + q * channels + v * FC_VL;
                        const vec weight = whole ? v_load(of) : v_load_part(of, lanes);
#pragma GCC unroll 4
                        for (int x = 0; x < pixels; x++)
                            sum[x * count + v] =
                                v_fma(weight, one ? in[x] : v_spread(in[x], size, q), sum[x * count + v]);
                    }
                }
        }
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        const vec bias = v_load_part((const T *)work->bias + c + v * FC_VL, lanes);
#pragma GCC unroll 8
        for (int x = 0; x < pixels; x++) {
            const int64_t to = x * next + c + v * FC_VL;
            const vec res = residual ? v_load_part(residual + to, lanes) : v_set1(0);
            const vec value = FC_NAME(finish)(sum[x * count + v], bias, res, low, high);
            if (whole) v_store(dst + to, value);
            else v_store_part(dst + to, value, lanes);
        }
    }
}

FC_INLINE void FC_NAME(depthwise_channels_body)(const fc_depthwise_rows *work, const int one, const int taps,
                                                const int apart) {
    const fc_problem *p = work->problem;
    const int64_t channels = p->groups * (one ? 1 : p->in_channels);
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    // Columns [first, last) see all taps.
    const int64_t reach = w->pad + w->in - 1 - (w->kernel - 1) * w->dilation;
    int64_t first = w->pad > 0 ? (w->pad + w->stride - 1) / w->stride : 0;
    if (first > w->out) first = w->out;
    int64_t last = reach < 0 ? 0 : reach / w->stride + 1;
    if (last > w->out) last = w->out;
    if (last < first) last = first;
    FC_NAME(tap_range) r;
    FC_NAME(taps_inside)(d, work->d, &r.low[0], &r.high[0]);
    for (int64_t y = work->h; y < work->h + work->rows; y++) {
        FC_NAME(taps_inside)(h, y, &r.low[1], &r.high[1]);
        for (int64_t x = 0; x < w->out;) {
            const int64_t pixels = x < first || last - x < 4 ? 1 : 4;
            FC_NAME(taps_inside)(w, x, &r.low[2], &r.high[2]);
            const T *src = (const T *)work->src + (work->d * d->stride - d->pad) * p->src.axis[0] +
                           (y * h->stride - h->pad) * p->src.axis[1] + (x * w->stride - w->pad) * p->src.axis[2];
            const int64_t at = y * p->dst.axis[1] + x * p->dst.axis[2];
            T *dst = (T *)work->dst + at;
            const T *residual = work->residual ? (const T *)work->residual + at : NULL;
            int64_t c = 0;
            // No more than four pixels: where channels are a power of two, pixels share few sets of L1.
            if (pixels == 1)
                for (; c + 4 * FC_VL <= channels; c += 4 * FC_VL)
                    FC_NAME(depthwise_block)(work, &r, src, dst, residual, c, FC_VL, 1, 4, one, 0, 0);
            else
                for (; c + 2 * FC_VL <= channels; c += 2 * FC_VL)
                    FC_NAME(depthwise_block)(work, &r, src, dst, residual, c, FC_VL, 4, 2, one, taps, apart);
            for (; c < channels; c += FC_VL) {
                const int64_t left = channels - c, lanes = left < FC_VL ? left : FC_VL;
                if (pixels == 1) FC_NAME(depthwise_block)(work, &r, src, dst, residual, c, lanes, 1, 1, one, 0, 0);
                else FC_NAME(depthwise_block)(work, &r, src, dst, residual, c, lanes, 4, 1, one, taps, apart);
            }
            x += pixels;
        }
    }
}

static void FC_NAME(depthwise_channels)(const fc_depthwise_rows *work) {
    const fc_axis *w = &work->problem->axis[2];
    if (work->problem->in_channels > 1) FC_NAME(depthwise_channels_body)(work, 0, 0, 0);
#define FC_DEPTHWISE(taps, apart)                                                                                      \
    else if (w->kernel == taps && w->stride == apart && w->dilation == 1)                                              \
        FC_NAME(depthwise_channels_body)(work, 1, taps, apart);
    FC_DEPTHWISE(2, 1)
    FC_DEPTHWISE(3, 1)
    FC_DEPTHWISE(3, 2)
    FC_DEPTHWISE(5, 1)
    FC_DEPTHWISE(5, 2)
#undef FC_DEPTHWISE
    else FC_NAME(depthwise_channels_body)(work, 1, 0, 0); }
