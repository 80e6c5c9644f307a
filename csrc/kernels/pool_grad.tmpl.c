// SPDX-License-Identifier: BSD-3-Clause
//
// pool_grad.tmpl.c - gradients of pooling: outputs add their share to the inputs they came from.  A call owns all of d_src
// in its channels, so that the order of additions, and with it the result, is always the same.

// d_src = 0.  The contiguous axis is the inner one.
static void FC_NAME(pool_zero)(const fc_pool_grad *g) {
    const fc_pool *p = g->pool;
    const fc_view *v = &p->src;
    const int64_t together = v->channel == 1 ? g->channels : 1;
    for (int64_t c = 0; c < g->channels; c += together)
        for (int64_t d = 0; d < p->axis[0].in; d++)
            for (int64_t h = 0; h < p->axis[1].in; h++) {
                T *line = (T *)g->d_src + g->image * v->outer + (g->channel + c) * v->channel + d * v->axis[0] +
                          h * v->axis[1];
                if (together == 1 && v->axis[2] == 1) memset(line, 0, (size_t)p->axis[2].in * sizeof(T));
                else
                    for (int64_t w = 0; w < p->axis[2].in; w++)
                        memset(line + w * v->axis[2], 0, (size_t)together * sizeof(T));
            }
}

int FC_NAME(pool_max_grad)(const fc_pool_grad *g) {
    const fc_pool *p = g->pool;
    const fc_view *v = &p->src;
    const int64_t height = p->axis[1].in, width = p->axis[2].in, plane = p->axis[0].in * height * width;
    const int even = (height == 1 || v->axis[1] == width * v->axis[2]) &&
                     (p->axis[0].in == 1 || v->axis[0] == height * width * v->axis[2]);
    const int64_t together = v->channel == 1 ? g->channels : 1;
    int sound = 1;
    FC_NAME(pool_zero)(g);
    for (int64_t outer = g->channel; outer < g->channel + g->channels; outer += together)
        for (int64_t row = 0; row < p->axis[0].out * p->axis[1].out; row++) {
            T *d_src = (T *)g->d_src + g->image * v->outer;
            const T *d_dst = (const T *)g->d_dst + FC_NAME(pool_at)(&p->dst, g->image, 0, p, row);
            const int64_t *indices = g->indices + FC_NAME(pool_at)(&p->index, g->image, 0, p, row);
            for (int64_t x = 0; x < p->axis[2].out; x++)
                for (int64_t c = outer; c < outer + together; c++) {
                    const int64_t i = indices[x * p->index.axis[2] + c * p->index.channel];
                    if (i < 0 || i >= plane) {
                        sound &= i == -1; // of a window that saw nothing
                        continue;
                    }
                    const int64_t at = even ? i * v->axis[2]
                                            : i / (height * width) * v->axis[0] + i / width % height * v->axis[1] +
                                                  i % width * v->axis[2];
                    d_src[at + c * v->channel] += d_dst[x * p->dst.axis[2] + c * p->dst.channel];
                }
        }
    return sound;
}

// Down and across in reverse: the shares of a row of outputs are spread along a line, and the line is added to all rows
// under the windows.
void FC_NAME(pool_avg_grad_rows)(const fc_pool_grad *g) {
    const fc_pool *p = g->pool;
    const int64_t step = p->adaptive ? 1 : p->axis[2].dilation, across = p->src.axis[2];
    const int64_t end = g->column + g->columns;
    if (g->row == 0 && g->column == 0) FC_NAME(pool_zero)(g);
    FC_NAME(pool_block) b;
    for (int64_t column = g->column; column < end; column += b.columns) {
        FC_NAME(pool_block_at)(p, column, end, 0, &b);
        const fc_window one = fc_pool_window(p, 2, column);
        const int alone = b.span > FC_POOL_LINE;
        for (int64_t c = g->channel; c < g->channel + g->channels; c++) {
            T *plane = (T *)g->d_src + g->image * p->src.outer + c * p->src.channel;
            for (int64_t row = g->row; row < g->row + g->rows; row++) {
                const FC_NAME(pool_rows_under) under = FC_NAME(pool_under)(p, plane, row);
                const T rows = FC_NAME(pool_row_count)(p, row);
                const T *d_dst = (const T *)g->d_dst + FC_NAME(pool_at)(&p->dst, g->image, c, p, row);
                d_dst += column * p->dst.axis[2];
                if (!alone) {
                    for (int64_t i = 0; i < b.hi - b.x0; i++) b.line[i] = 0;
                    for (int64_t x = 0; x < b.columns; x++) {
                        const T share = d_dst[x * p->dst.axis[2]] / (rows * b.count[x]);
                        T *line = b.line + b.window[x].start;
                        for (int64_t k = 0; k < b.window[x].taps; k++) line[k * step] += share;
                    }
                }
                for (int64_t d = 0; d < under.depths; d++)
                    for (int64_t h = 0; h < under.heights; h++) {
                        T *line = plane + (under.first - plane) + d * under.depth_step + h * under.height_step;
                        int64_t x = b.lo;
                        if (alone) {
                            const T share = *d_dst / (rows * b.count[0]);
                            for (int64_t k = 0; k < one.taps; k++) line[(one.start + k * step) * across] += share;
                            continue;
                        }
                        if (across == 1)
                            for (; x + FC_VL <= b.hi; x += FC_VL)
                                v_store(line + x, v_add(v_load(line + x), v_load(b.line + x - b.x0)));
                        for (; x < b.hi; x++) line[x * across] += b.line[x - b.x0];
                    }
            }
        }
    }
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
    if (g->row == 0 && g->column == 0) FC_NAME(pool_zero)(g);
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
