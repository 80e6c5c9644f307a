// SPDX-License-Identifier: BSD-3-Clause
//
// pool_grad.tmpl.c - gradients of pooling: outputs add their share to the inputs they came from.  A call owns all of d_src
// in its channels, so that the order of additions, and with it the result, is always the same.

// d_src = 0 for `channels` channels from c on, which lie side by side if they are several.
static void FC_NAME(pool_zero)(const fc_pool_grad *g, int64_t c, int64_t channels) {
    const fc_pool *p = g->pool;
    const fc_view *v = &p->src;
    const int64_t width = p->axis[2].in, high = p->axis[1].in, deep = p->axis[0].in;
    T *plane = (T *)g->d_src + g->image * v->outer + c * v->channel;
    const int row = channels == 1 && (width == 1 || v->axis[2] == 1);
    if (row && (high == 1 || v->axis[1] == width) && (deep == 1 || v->axis[0] == width * high)) {
        memset(plane, 0, (size_t)(width * high * deep) * sizeof(T));
        return;
    }
    for (int64_t d = 0; d < deep; d++)
        for (int64_t h = 0; h < high; h++) {
            T *line = plane + d * v->axis[0] + h * v->axis[1];
            if (row) memset(line, 0, (size_t)width * sizeof(T));
            else
                for (int64_t w = 0; w < width; w++) memset(line + w * v->axis[2], 0, (size_t)channels * sizeof(T));
        }
}

// ---------------------------------------------------------------------------------------------------- maxima, by indices

// Inputs of one or more planes whose channels lie side by side, in row-major order.
typedef struct FC_NAME(pool_target) {
    const fc_pool *pool;
    T *first;
    int64_t channels, width, height, elements; // of a plane
    int64_t line, zeroed;                      // elements that are set to zero together, and those that have been
    int even;                                  // whether rows follow each other as columns do
} FC_NAME(pool_target);

FC_INLINE int64_t FC_NAME(pool_input_at)(const FC_NAME(pool_target) * t, int64_t i) {
    const int64_t *step = t->pool->src.axis, plane = t->width * t->height;
    return t->even ? i * step[2] : i / plane * step[0] + i / t->width % t->height * step[1] + i % t->width * step[2];
}

// d_src = 0 for `n` more elements.
static void FC_NAME(pool_zero_more)(FC_NAME(pool_target) * t, int64_t n) {
    const int64_t end = t->zeroed + n < t->elements ? t->zeroed + n : t->elements, step = t->pool->src.axis[2];
    if (t->even && step == t->channels) {
        T *line = t->first + t->zeroed * step;
        const int64_t count = (end - t->zeroed) * step;
        if (count > FC_POOL_LINE) memset(line, 0, (size_t)count * sizeof(T));
        else { // where a call would cost as much again
            vec zero = v_set1(0);
            FC_KEEP(zero); // so that compilers do not make that call of it again
            int64_t i = 0;
            for (; i + FC_VL <= count; i += FC_VL) v_store(line + i, zero);
            if (i < count) v_store_part(line + i, zero, count - i);
        }
    } else
        for (int64_t i = t->zeroed; i < end; i++)
            memset(t->first + FC_NAME(pool_input_at)(t, i), 0, (size_t)t->channels * sizeof(T));
    t->zeroed = end;
}

// For an index that reaches further than those before: whether there is such an input, which then has been set to zero.
static __attribute__((noinline)) int FC_NAME(pool_reach)(FC_NAME(pool_target) * t, int64_t i, int *sound) {
    if (i < 0 || i >= t->elements) {
        *sound &= i == -1; // of a window that saw nothing
        return 0;
    }
    while (i >= t->zeroed) FC_NAME(pool_zero_more)(t, t->line);
    return 1;
}

// `n` outputs of every channel.  Their distances and their inputs' are constants where that pays.
FC_INLINE int FC_NAME(pool_scatter)(FC_NAME(pool_target) * t, const int even, const int64_t step,
                                    const int64_t channels, int64_t n, const int64_t *indices, const int64_t index_step,
                                    const T *d_dst, const int64_t dst_step) {
    T *const first = t->first;
    int64_t zeroed = t->zeroed;
    int sound = 1;
    for (int64_t x = 0; x < n; x++, indices += index_step, d_dst += dst_step)
        for (int64_t c = 0; c < channels; c++) {
            const int64_t i = indices[c];
            if (__builtin_expect((uint64_t)i >= (uint64_t)zeroed, 0)) {
                if (!FC_NAME(pool_reach)(t, i, &sound)) continue;
                zeroed = t->zeroed;
            }
            first[(even ? i * step : FC_NAME(pool_input_at)(t, i)) + c] += d_dst[c];
        }
    return sound;
}

// Inputs are set to zero just before the first of them is reached, while they are in a cache.
int FC_NAME(pool_max_grad)(const fc_pool_grad *g) {
    const fc_pool *p = g->pool;
    const fc_view *v = &p->src, *from = &p->dst, *at = &p->index;
    const int64_t height = p->axis[1].in, width = p->axis[2].in, high = p->axis[1].out, out = p->axis[2].out;
    const int64_t together = v->channel == 1 && from->channel == 1 && at->channel == 1 ? g->channels : 1;
    // Planes of outputs in one piece are one row.
    const int flat = (high == 1 || (from->axis[1] == out * from->axis[2] && at->axis[1] == out * at->axis[2])) &&
                     (p->axis[0].out == 1 ||
                      (from->axis[0] == high * out * from->axis[2] && at->axis[0] == high * out * at->axis[2]));
    const int64_t n = flat ? p->axis[0].out * high * out : out;
    const int tight = together == 1 && v->axis[2] == 1 && (n == 1 || (from->axis[2] == 1 && at->axis[2] == 1));
    FC_NAME(pool_target)
    t = {.pool = p,
         .channels = together,
         .width = width,
         .height = height,
         .elements = p->axis[0].in * height * width,
         .line = width * (1 + FC_POOL_LINE / 2 / (width * together)),
         .even = (height == 1 || v->axis[1] == width * v->axis[2]) &&
                 (p->axis[0].in == 1 || v->axis[0] == height * width * v->axis[2])};
    int sound = 1;
    for (int64_t c = g->channel; c < g->channel + g->channels; c += together) {
        t.first = (T *)g->d_src + g->image * v->outer + c * v->channel;
        t.zeroed = 0;
        FC_NAME(pool_zero_more)(&t, t.line);
        const int64_t *indices = g->indices + g->image * at->outer + c * at->channel;
        const T *d_dst = (const T *)g->d_dst + g->image * from->outer + c * from->channel;
        for (int64_t d = 0; d < (flat ? 1 : p->axis[0].out); d++)
            for (int64_t h = 0; h < (flat ? 1 : high); h++) {
                const int64_t *i = indices + d * at->axis[0] + h * at->axis[1], i_step = at->axis[2];
                const T *share = d_dst + d * from->axis[0] + h * from->axis[1];
                const int64_t step = from->axis[2];
                if (tight && t.even) sound &= FC_NAME(pool_scatter)(&t, 1, 1, 1, n, i, 1, share, 1);
                else if (t.even) sound &= FC_NAME(pool_scatter)(&t, 1, v->axis[2], together, n, i, i_step, share, step);
                else sound &= FC_NAME(pool_scatter)(&t, 0, 0, together, n, i, i_step, share, step);
            }
        if (t.zeroed < t.elements) FC_NAME(pool_zero_more)(&t, t.elements);
    }
    return sound;
}

// -------------------------------------------------------------------------------------------------------------- averages

// One window a plane, in one piece.
void FC_NAME(pool_avg_grad_planes)(const fc_pool_grad *g) {
    const fc_pool *p = g->pool;
    const int64_t n = p->axis[2].in;
    const T count = FC_NAME(pool_row_count)(p, 0) * (T)fc_pool_count(p, 2, 0);
    for (int64_t c = g->channel; c < g->channel + g->channels; c++) {
        T *plane = (T *)g->d_src + g->image * p->src.outer + c * p->src.channel;
        const vec share = v_set1(((const T *)g->d_dst)[g->image * p->dst.outer + c * p->dst.channel] / count);
        int64_t i = 0;
        for (; i + FC_VL <= n; i += FC_VL) v_store(plane + i, share);
        if (i < n) v_store_part(plane + i, share, n - i);
    }
}

// A row of outputs: its divisor, its place, and the inputs under it, in the first channel.
typedef struct FC_NAME(pool_row_out) {
    FC_NAME(pool_rows_under) under;
    T count;
    const T *d_dst;
} FC_NAME(pool_row_out);

// The shares of a row of outputs, spread along the block's line.
FC_INLINE void FC_NAME(pool_spread_line)(const fc_pool *p, const int tiled, const T *d_dst, T rows,
                                         FC_NAME(pool_block) * b) {
    const fc_axis *a = &p->axis[2];
    const int64_t step = p->adaptive ? 1 : a->dilation, n = b->columns, apart = p->dst.axis[2];
    T share[FC_POOL_LINE + FC_VL];
    for (int64_t x = 0; x < n; x += FC_VL) {
        const int64_t left = n - x;
        const vec d = apart == 1 || n == 1 ? left < FC_VL ? v_load_part(d_dst + x, left) : v_load(d_dst + x)
                                           : v_load_apart(d_dst + x * apart, left < FC_VL ? left : FC_VL, apart);
        v_store(share + x, v_div(d, v_mul(v_set1(rows), v_load(b->count + x))));
    }
    if (tiled && a->kernel == 2 && b->span == 2 * n && b->lo == b->x0 && b->hi - b->lo == b->span) {
        for (int64_t x = 0; x < n; x += FC_VL) { // what lies behind the last one is never used
            v_store(b->line + 2 * x, v_zip_low(v_load(share + x), v_load(share + x)));
            v_store(b->line + 2 * x + FC_VL, v_zip_high(v_load(share + x), v_load(share + x)));
        }
        return;
    }
    for (int64_t i = 0; i < b->hi - b->x0; i++) b->line[i] = 0;
    for (int64_t x = 0; x < n; x++) {
        T *line = b->line + b->window[x].start;
        for (int64_t k = 0; k < b->window[x].taps; k++) line[k * step] += share[x];
    }
}

// One row of outputs: the line is added to all rows under the windows, or written where no others share them.
FC_INLINE void FC_NAME(pool_spread_row)(const fc_pool *p, const int tiled, const FC_NAME(pool_row_out) * row,
                                        int64_t channel, int64_t column, FC_NAME(pool_block) * b) {
    const FC_NAME(pool_rows_under) *u = &row->under;
    const int64_t step = p->adaptive ? 1 : p->axis[2].dilation, across = p->src.axis[2];
    const int alone = b->span > FC_POOL_LINE;
    const T *d_dst = row->d_dst + channel * p->dst.channel + column * p->dst.axis[2];
    T *first = (T *)u->first + channel * p->src.channel;
    const fc_window one = fc_pool_window(p, 2, alone ? column : 0);
    const T share = *d_dst / (row->count * b->count[0]);
    if (!alone) FC_NAME(pool_spread_line)(p, tiled, d_dst, row->count, b);
    for (int64_t d = 0; d < u->depths; d++)
        for (int64_t h = 0; h < u->heights; h++) {
            T *line = first + d * u->depth_step + h * u->height_step;
            if (alone) {
                for (int64_t k = 0; k < one.taps; k++) {
                    T *at = line + (one.start + k * step) * across;
                    *at = tiled ? share : *at + share;
                }
                continue;
            }
            const T *from = b->line - b->x0;
            int64_t x = b->lo;
            if (across == 1) {
                for (; x + FC_VL <= b->hi; x += FC_VL)
                    v_store(line + x, tiled ? v_load(from + x) : v_add(v_load(line + x), v_load(from + x)));
                const int64_t left = b->hi - x;
                if (left) {
                    const vec rest = tiled ? v_load(from + x) : v_add(v_load_part(line + x, left), v_load(from + x));
                    v_store_part(line + x, rest, left);
                }
                continue;
            }
            for (; x < b->hi; x++) line[x * across] = tiled ? from[x] : line[x * across] + from[x];
        }
}

FC_INLINE void FC_NAME(pool_spread_rows)(const fc_pool_grad *g, const int tiled) {
    const fc_pool *p = g->pool;
    const int64_t end = g->column + g->columns, end_row = g->row + g->rows;
    T *d_src = (T *)g->d_src + g->image * p->src.outer;
    FC_NAME(pool_block) b;
    FC_NAME(pool_row_out) rows[FC_POOL_BAND];
    for (int64_t column = g->column; column < end; column += b.columns) {
        FC_NAME(pool_block_at)(p, column, end, 0, &b);
        for (int64_t row = g->row, n; row < end_row; row += n) {
            n = end_row - row < FC_POOL_BAND ? end_row - row : FC_POOL_BAND;
            for (int64_t i = 0; i < n; i++)
                rows[i] =
                    (FC_NAME(pool_row_out)){FC_NAME(pool_under)(p, d_src, row + i), FC_NAME(pool_row_count)(p, row + i),
                                            (const T *)g->d_dst + FC_NAME(pool_at)(&p->dst, g->image, 0, p, row + i)};
            for (int64_t c = g->channel; c < g->channel + g->channels; c++) {
                if (!tiled && row == 0 && column == 0) FC_NAME(pool_zero)(g, c, 1);
                for (int64_t i = 0; i < n; i++) FC_NAME(pool_spread_row)(p, tiled, &rows[i], c, column, &b);
            }
        }
    }
}

// Down and across in reverse: the shares of a row of outputs are spread along a line, which goes to all rows under the
// windows.
void FC_NAME(pool_avg_grad_rows)(const fc_pool_grad *g) {
    if (fc_pool_tiles(g->pool)) FC_NAME(pool_spread_rows)(g, 1);
    else FC_NAME(pool_spread_rows)(g, 0);
}

// Adds the share of one output pixel to all inputs under its window, for one vector of channels or `part` of it.
FC_INLINE void FC_NAME(pool_spread)(const int64_t part, const fc_view *v, const fc_window w[FC_AXES], vec share,
                                    T *d_src) {
    for (int64_t d = w[0].start, i = 0; i < w[0].taps; i++, d += w[0].step)
        for (int64_t h = w[1].start, j = 0; j < w[1].taps; j++, h += w[1].step)
            for (int64_t x = w[2].start, k = 0; k < w[2].taps; k++, x += w[2].step) {
                T *pixel = d_src + d * v->axis[0] + h * v->axis[1] + x * v->axis[2];
                if (part) v_store_part(pixel, v_add(v_load_part(pixel, part), share), part);
                else v_store(pixel, v_add(v_load(pixel), share));
            }
}

void FC_NAME(pool_avg_grad_channels)(const fc_pool_grad *g) {
    const fc_pool *p = g->pool;
    T *d_src = (T *)g->d_src + g->image * p->src.outer + g->channel;
    if (g->row == 0 && g->column == 0) FC_NAME(pool_zero)(g, g->channel, g->channels);
    for (int64_t row = g->row; row < g->row + g->rows; row++) {
        fc_window w[FC_AXES] = {fc_pool_window(p, 0, row / p->axis[1].out), fc_pool_window(p, 1, row % p->axis[1].out)};
        const T rows = FC_NAME(pool_row_count)(p, row);
        const T *d_dst = (const T *)g->d_dst + FC_NAME(pool_at)(&p->dst, g->image, g->channel, p, row);
        d_dst += g->column * p->dst.axis[2];
        for (int64_t x = g->column; x < g->column + g->columns; x++, d_dst += p->dst.axis[2]) {
            w[2] = fc_pool_window(p, 2, x);
            const vec count = v_set1(rows * (T)fc_pool_count(p, 2, x));
            int64_t c = 0;
            for (; c + FC_VL <= g->channels; c += FC_VL)
                FC_NAME(pool_spread)(0, &p->src, w, v_div(v_load(d_dst + c), count), d_src + c);
            if (c == g->channels) continue;
            const int64_t part = g->channels - c;
            FC_NAME(pool_spread)(part, &p->src, w, v_div(v_load_part(d_dst + c, part), count), d_src + c);
        }
    }
}
