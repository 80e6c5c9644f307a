// SPDX-License-Identifier: BSD-3-Clause
//
// pool_gather.tmpl.c - gradients of pooling by inputs, of channels side by side: every input is written once.
//
//   average   d_src[i] = the sum of d_dst[o] / count[o]                 over the windows o that hold i
//   maximum   d_src[i] = the sum of d_dst[o] where o's maximum is at i  over the same windows
//
// in the order of the outputs, as if they were spread one by one.  What windows share is prepared once for each row of
// outputs and kept for all rows of inputs under them: shares of averages; of maxima, how far behind its window's first
// input each lies.  An index that lies elsewhere is for pool_max_grad.

// A row of outputs over the inputs at hand.
typedef struct FC_NAME(pool_row_over) {
    const T *line, *share; // prepared, and what is added: the same for averages
    int64_t at;            // how far the inputs' row lies behind the window's first one, in elements of the plane
} FC_NAME(pool_row_over);

// line = d_dst / count
FC_INLINE void FC_NAME(pool_share_line)(const fc_pool_grad *g, const T *d_dst, T rows, T *line) {
    const fc_pool *p = g->pool;
    for (int64_t o = 0; o < p->axis[2].out; o++, d_dst += p->dst.axis[2], line += g->channels) {
        const vec count = v_set1(rows * (T)fc_pool_count(p, 2, o));
        int64_t c = 0;
        for (; c + FC_VL <= g->channels; c += FC_VL) v_store(line + c, v_div(v_load(d_dst + c), count));
        if (c == g->channels) continue;
        const int64_t part = g->channels - c;
        v_store_part(line + c, v_div(v_load_part(d_dst + c, part), count), part);
    }
}

// line = indices - the window's first one; whether all lie in their windows.
FC_INLINE int FC_NAME(pool_index_line)(const fc_pool_grad *g, const int64_t *indices, const fc_window *depth,
                                       const fc_window *height, T *line) {
    const fc_pool *p = g->pool;
    const int64_t width = p->axis[2].in, plane = p->axis[1].in * width;
    const vec zero = v_set1(0);
    vec strangers = zero, at[FC_POOL_SMALL]; // infinite where an index is none of its window's; a window's inputs
    int64_t taps = 0, known = -1;
    for (int64_t o = 0; o < p->axis[2].out; o++, indices += p->index.axis[2], line += g->channels) {
        const fc_window w = fc_pool_window(p, 2, o);
        const int64_t first = depth->start * plane + height->start * width + w.start;
        if (w.taps != known) {
            taps = 0;
            for (int64_t i = 0; i < depth->taps; i++)
                for (int64_t j = 0; j < height->taps; j++)
                    for (int64_t k = 0; k < w.taps; k++) at[taps++] = v_set1((T)(i * plane + j * width + k));
            known = w.taps;
        }
        for (int64_t c = 0; c < g->channels; c += FC_VL) {
            const int64_t left = g->channels - c;
            const vec index =
                left < FC_VL ? v_load_indices(indices + c, first, left) : v_load_indices(indices + c, first, FC_VL);
            vec stranger = v_set1((T)INFINITY);
            for (int64_t t = 0; t < taps; t++) stranger = v_select(v_same(index, at[t]), zero, stranger);
            strangers = v_max(strangers, stranger);
            if (left >= FC_VL) v_store(line + c, index);
            else v_store_part(line + c, index, left);
        }
    }
    return v_finite(strangers);
}

// The windows that hold a column, while columns are gone through in order.
typedef struct FC_NAME(pool_cursor) {
    fc_over over;
    int64_t enters, leaves; // the columns at which the next window begins, and the first of these has ended
} FC_NAME(pool_cursor);

FC_INLINE void FC_NAME(pool_move_to)(const fc_pool *p, int64_t x, FC_NAME(pool_cursor) * at) {
    const int64_t out = p->axis[2].out;
    while (x >= at->enters) {
        at->over.end++;
        at->enters = at->over.end < out ? fc_pool_window(p, 2, at->over.end).start : INT64_MAX;
    }
    while (x >= at->leaves) {
        const fc_window w = fc_pool_window(p, 2, ++at->over.first < out ? at->over.first : out - 1);
        at->leaves = at->over.first < out ? w.start + w.taps : INT64_MAX;
    }
}

// The gradient of one input pixel, at column x, for `vectors` vectors of channels or `part` of one.
FC_INLINE void FC_NAME(pool_sum_over)(const int maximum, const int vectors, const int64_t part, const fc_pool_grad *g,
                                      const FC_NAME(pool_row_over) * rows, int64_t count, fc_over over, int64_t x,
                                      int64_t c, T *d_src) {
    const fc_axis *a = &g->pool->axis[2];
    const int64_t step = maximum ? g->pool->dst.axis[2] : g->channels;
    const vec zero = v_set1(0);
    vec sum[4];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[v] = zero;
    for (int64_t r = 0; r < count; r++)
        for (int64_t o = over.first; o < over.end; o++) {
            const T *share = rows[r].share + o * step + c, *line = rows[r].line + o * g->channels + c;
            const int64_t start = o * a->stride - a->pad; // of a maximum's window, which is not adaptive
            const vec at = v_set1((T)(rows[r].at + x - (start > 0 ? start : 0)));
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                vec term = part ? v_load_part(share, part) : v_load(share + v * FC_VL);
                if (maximum) {
                    const vec index = part ? v_load_part(line, part) : v_load(line + v * FC_VL);
                    term = v_select(v_same(index, at), term, zero);
                }
                sum[v] = v_add(sum[v], term);
            }
        }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        if (part) v_store_part(d_src, sum[v], part);
        else v_store(d_src + v * FC_VL, sum[v]);
    }
}

FC_INLINE int FC_NAME(pool_gather_of)(const int maximum, const fc_pool_grad *g) {
    const fc_pool *p = g->pool;
    const int64_t in = p->axis[1].in, width = p->axis[2].in, plane = in * width, out = p->axis[1].out;
    const int64_t deep = fc_pool_overlap(p, 0), high = fc_pool_overlap(p, 1);
    int64_t held[FC_POOL_OVER];
    for (int i = 0; i < FC_POOL_OVER; i++) held[i] = -1;
    for (int64_t row = g->row; row < g->row + g->rows; row++) {
        const int64_t d = row / in, h = row % in;
        const fc_over depths = fc_pool_over(p, 0, d), heights = fc_pool_over(p, 1, h);
        FC_NAME(pool_row_over) rows[FC_POOL_OVER];
        int64_t count = 0;
        for (int64_t i = depths.first; i < depths.end; i++)
            for (int64_t j = heights.first; j < heights.end; j++) {
                const int64_t slot = i % deep * high + j % high, from = i * out + j;
                const fc_window depth = fc_pool_window(p, 0, i), height = fc_pool_window(p, 1, j);
                T *line = (T *)g->scratch + slot * p->axis[2].out * g->channels;
                const T *d_dst = (const T *)g->d_dst + FC_NAME(pool_at)(&p->dst, g->image, g->channel, p, from);
                if (held[slot] != from) {
                    const int64_t *indices = g->indices;
                    if (maximum) indices += FC_NAME(pool_at)(&p->index, g->image, g->channel, p, from);
                    if (!maximum) FC_NAME(pool_share_line)(g, d_dst, FC_NAME(pool_row_count)(p, from), line);
                    else if (!FC_NAME(pool_index_line)(g, indices, &depth, &height, line)) return 0;
                    held[slot] = from;
                }
                rows[count++] = (FC_NAME(pool_row_over)){line, maximum ? d_dst : line,
                                                         (d - depth.start) * plane + (h - height.start) * width};
            }
        T *d_src = (T *)g->d_src + g->image * p->src.outer + g->channel + d * p->src.axis[0] + h * p->src.axis[1];
        const fc_window start = fc_pool_window(p, 2, 0);
        FC_NAME(pool_cursor) at = {{0, 0}, start.start, start.start + start.taps};
        for (int64_t x = 0; x < width; x++, d_src += p->src.axis[2]) {
            FC_NAME(pool_move_to)(p, x, &at);
            const fc_over over = at.over;
            int64_t c = 0;
            for (; c + 4 * FC_VL <= g->channels; c += 4 * FC_VL)
                FC_NAME(pool_sum_over)(maximum, 4, 0, g, rows, count, over, x, c, d_src + c);
            for (; c + FC_VL <= g->channels; c += FC_VL)
                FC_NAME(pool_sum_over)(maximum, 1, 0, g, rows, count, over, x, c, d_src + c);
            if (c < g->channels)
                FC_NAME(pool_sum_over)(maximum, 1, g->channels - c, g, rows, count, over, x, c, d_src + c);
        }
    }
    return 1;
}

int FC_NAME(pool_gather)(const fc_pool_grad *g) {
    return g->pool->kind == FC_POOL_MAX ? FC_NAME(pool_gather_of)(1, g) : FC_NAME(pool_gather_of)(0, g);
}
