// SPDX-License-Identifier: BSD-3-Clause
//
// pool_bands.tmpl.c - pooling by bands of rows: every row across, then windows down.
//
//   across    best[row][x] = the fold of the inputs of one row under the columns of window x
//   down      dst[y][x]    = the fold of best[row][x] over the rows under window y
//
// Rows that windows share are folded across once: kh + kw operations for each output instead of kh * kw.  Across goes
// first because it keeps the order of a window's elements: the first among equals, the last NaN, sums row by row.
// (Down first needs half the loads, but would have to compare positions among equals.)  The lanes of a vector are
// channels, or output columns; a strip is a vector of them, or four.  Positions are eight bytes beside a value's four,
// and writing them is the bound.  (Stores that pass the caches by gained a tenth at best, and took eight times as long
// where rows end within a cache line; sums of inputs in place of comparisons with NaN gained nothing.)

enum { FC_NAME(pool_max), FC_NAME(pool_max_indexed), FC_NAME(pool_avg) }; // mode

// form: what the lanes are, and how a vector of inputs is loaded
enum {
    FC_NAME(pool_channel_lanes),
    FC_NAME(pool_every_column),
    FC_NAME(pool_second_columns) // stride 2 without dilation
};

// A running fold, and for maxima how far behind the band's first element it was found; T holds that exactly (pool/pool.c
// sees to it), and so both are selected by one mask.
typedef struct FC_NAME(pool_best) {
    vec value, offset;
} FC_NAME(pool_best);

FC_INLINE void FC_NAME(pool_join)(const int mode, FC_NAME(pool_best) * best, vec x, vec offset) {
    if (mode == FC_NAME(pool_avg)) best->value = v_add(best->value, x);
    else if (mode == FC_NAME(pool_max)) best->value = v_peak(best->value, x);
    else {
        const vmask above = v_above(x, best->value);
        best->value = v_select(above, x, best->value);
        best->offset = v_select(above, offset, best->offset);
    }
}

// What the lanes of a strip read in each row.
typedef struct FC_NAME(pool_lanes) {
    int64_t start;                // input column of lane 0's first tap; it may lie in the padding
    int64_t taps, step, dilation; // inputs of one lane: their number, elements and columns from one to the next
    int64_t lanes;                // outputs
    int64_t stride;               // input columns from lane to lane
    vec first;                    // columns from a lane's first tap to its first input
    vec count;                    // a lane's factor of the divisor
    const vmask *reads;           // at an edge: the lanes of each load that lie in the row
} FC_NAME(pool_lanes);

// Output rows of one depth, and the input rows under them.
typedef struct FC_NAME(pool_band) {
    const fc_pool *pool;
    int64_t row, rows; // flat over (d, h), as in fc_pool_work
    int shared;        // whether windows overlap, and the rows under them fit into a band
    int size;          // of windows three rows high that share them, or two and share none: 3 or 2; else 0
    int64_t lo, hi;    // input rows
    int64_t above;     // rows under the first window that lie in the padding above
    int64_t under;     // rows under windows that share them, with those in the padding
    int64_t position;  // of the element that offsets count from
    fc_window depth;
    fc_window window[FC_POOL_BAND];
    T count[FC_POOL_BAND];
} FC_NAME(pool_band);

FC_INLINE T FC_NAME(pool_blank)(const int mode) { return mode == FC_NAME(pool_avg) ? 0 : -(T)INFINITY; }

// Tap k of vector v.
FC_INLINE vec FC_NAME(pool_tap)(const int mode, const int form, const int edge, const FC_NAME(pool_lanes) * l,
                                const T *src, int64_t k, const int v) {
    const vec blank = v_set1(FC_NAME(pool_blank)(mode));
    if (form == FC_NAME(pool_channel_lanes)) {
        src += k * l->step;
        return edge ? v_load_part(src, l->lanes) : v_load(src + v * FC_VL);
    }
    if (form == FC_NAME(pool_every_column)) {
        src += k * l->dilation + v * FC_VL;
        return edge ? v_load_where(l->reads[k], src, blank) : v_load(src);
    }
    src += (k & ~(int64_t)1) + 2 * v * FC_VL; // two taps share their loads
    const vec low = edge ? v_load_where(l->reads[k & ~(int64_t)1], src, blank) : v_load(src);
    const vec high = edge ? v_load_where(l->reads[k | 1], src + FC_VL, blank) : v_load(src + FC_VL);
    return k & 1 ? v_odd(low, high) : v_even(low, high);
}

FC_INLINE void FC_NAME(pool_across)(const int mode, const int form, const int edge, const int vectors,
                                    const int64_t taps, const FC_NAME(pool_lanes) * l, const T *src, T at,
                                    FC_NAME(pool_best) best[4]) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        FC_AHEAD(src + v * FC_VL);
        if (form == FC_NAME(pool_second_columns)) FC_AHEAD(src + (vectors + v) * FC_VL);
        best[v].value = FC_NAME(pool_tap)(mode, form, edge, l, src, 0, v);
        if (mode != FC_NAME(pool_max_indexed)) continue;
        best[v].offset = v_set1(at);
        if (edge && form != FC_NAME(pool_channel_lanes)) best[v].offset = v_add(best[v].offset, l->first);
    }
#pragma GCC unroll 3
    for (int64_t k = 1; k < taps; k++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            FC_NAME(pool_join)(mode, &best[v], FC_NAME(pool_tap)(mode, form, edge, l, src, k, v),
                               v_set1(at + (T)(k * l->dilation)));
}

// What one strip folds of each row, once for all windows that share it.
typedef struct FC_NAME(pool_folds) {
    vec value[4 * FC_POOL_BAND], offset[4 * FC_POOL_BAND];
} FC_NAME(pool_folds);

FC_INLINE void FC_NAME(pool_keep)(const int mode, const int vectors, FC_NAME(pool_folds) * folds, int64_t row,
                                  const FC_NAME(pool_best) best[4]) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        folds->value[row * vectors + v] = best[v].value;
        if (mode == FC_NAME(pool_max_indexed)) folds->offset[row * vectors + v] = best[v].offset;
    }
}

FC_INLINE FC_NAME(pool_best)
    FC_NAME(pool_kept)(const int mode, const int vectors, const FC_NAME(pool_folds) * folds, int64_t row, const int v) {
    const int64_t i = row * vectors + v;
    return (FC_NAME(pool_best)){folds->value[i], mode == FC_NAME(pool_max_indexed) ? folds->offset[i] : v_set1(0)};
}

// Of nothing but -inf the first counts, which lies `offset` elements behind the band's first.
FC_INLINE FC_NAME(pool_best) FC_NAME(pool_start)(const int mode, const FC_NAME(pool_lanes) * l, T offset) {
    return (FC_NAME(pool_best)){v_set1(FC_NAME(pool_blank)(mode)), v_add(v_set1(offset), l->first)};
}

// Asks for the lines of outputs that row y of a strip goes to.
FC_INLINE void FC_NAME(pool_ahead)(const int mode, const int vectors, const fc_pool *p, int64_t y, const T *dst,
                                   const int64_t *indices) {
    dst += y * p->dst.axis[1];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) __builtin_prefetch(dst + v * FC_VL, 1);
    if (mode != FC_NAME(pool_max_indexed)) return;
    indices += y * p->index.axis[1];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        __builtin_prefetch(indices + v * FC_VL, 1);
        if (FC_VL > 8) __builtin_prefetch(indices + v * FC_VL + FC_VL / 2, 1);
    }
}

// All rows under a band of windows three rows high, of which those in the padding are blank.
FC_INLINE void FC_NAME(pool_fold_rows)(const int mode, const int form, const int edge, const int vectors,
                                       const FC_NAME(pool_band) * b, const FC_NAME(pool_lanes) * l, const T *src,
                                       const T *dst, const int64_t *indices, FC_NAME(pool_folds) * folds) {
    const fc_pool *p = b->pool;
    // Copies, here and in pool_strip, because a vector's store might change what a pointer shows.
    const int64_t rows = b->hi - b->lo, width = p->axis[2].in, down = p->src.axis[1], deeper = p->src.axis[0];
    const int64_t outputs = b->rows, above = b->above, under = b->under, depths = b->depth.taps, apart = b->depth.step;
    const FC_NAME(pool_best) blank = FC_NAME(pool_start)(mode, l, 0);
    const FC_NAME(pool_best) blanks[4] = {blank, blank, blank, blank};
    const int64_t plane = p->axis[1].in * width;
    for (int64_t d = 0, slot = 0; d < depths; d++) {
        const int64_t at = d * apart * plane, end = slot + under;
        const T *line = src + d * apart * deeper;
        for (int64_t r = 0; r < above; r++, slot++) FC_NAME(pool_keep)(mode, vectors, folds, slot, blanks);
        for (int64_t r = 0; r < rows; r++, slot++, line += down) {
            FC_NAME(pool_best) one[4];
            if (slot < outputs) FC_NAME(pool_ahead)(mode, vectors, p, slot, dst, indices);
            FC_NAME(pool_across)(mode, form, edge, vectors, 3, l, line, (T)(at + r * width), one);
            FC_NAME(pool_keep)(mode, vectors, folds, slot, one);
        }
        for (; slot < end; slot++) FC_NAME(pool_keep)(mode, vectors, folds, slot, blanks);
    }
}

// Window y of any size.  A row that windows share is folded across for the first of them; `folded` says which are.
FC_INLINE void FC_NAME(pool_window)(const int mode, const int form, const int edge, const int vectors,
                                    const FC_NAME(pool_band) * b, int64_t y, const FC_NAME(pool_lanes) * l,
                                    const T *src, const T *dst, const int64_t *indices, FC_NAME(pool_folds) * folds,
                                    uint8_t *folded, FC_NAME(pool_best) best[4]) {
    const fc_pool *p = b->pool;
    const fc_window w = b->window[y];
    const int64_t rows = b->hi - b->lo, first = w.start - b->lo;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) best[v] = FC_NAME(pool_start)(mode, l, (T)(first * p->axis[2].in));
    for (int64_t d = 0, depth = 0; d < b->depth.taps; d++, depth += b->depth.step)
        for (int64_t h = 0, row = first; h < w.taps; h++, row += w.step) {
            const int64_t slot = d * rows + row;
            FC_NAME(pool_best) one[4];
            if (b->shared && folded[slot]) {
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) one[v] = FC_NAME(pool_kept)(mode, vectors, folds, slot, v);
            } else {
                const T *in = src + depth * p->src.axis[0] + row * p->src.axis[1];
                const T at = (T)((depth * p->axis[1].in + row) * p->axis[2].in);
                FC_NAME(pool_across)(mode, form, edge, vectors, l->taps, l, in, at, one);
                if (b->shared) {
                    if (slot < b->rows) FC_NAME(pool_ahead)(mode, vectors, p, slot, dst, indices);
                    FC_NAME(pool_keep)(mode, vectors, folds, slot, one);
                    folded[slot] = 1;
                }
            }
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) FC_NAME(pool_join)(mode, &best[v], one[v].value, one[v].offset);
        }
}

// A row of a window of known size, the first or not: from what is kept, or where windows share nothing from the input.
FC_INLINE void FC_NAME(pool_known)(const int mode, const int form, const int edge, const int vectors, const int size,
                                   const FC_NAME(pool_band) * b, int64_t d, int64_t row, const int first,
                                   const FC_NAME(pool_lanes) * l, const T *src, const FC_NAME(pool_folds) * folds,
                                   FC_NAME(pool_best) best[4]) {
    const fc_pool *p = b->pool;
    FC_NAME(pool_best) one[4];
    if (size == 2) {
        const int64_t depth = d * b->depth.step;
        FC_NAME(pool_across)(mode, form, edge, vectors, 2, l, src + depth * p->src.axis[0] + row * p->src.axis[1],
                             (T)((depth * p->axis[1].in + row) * p->axis[2].in), one);
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        if (size == 3) one[v] = FC_NAME(pool_kept)(mode, vectors, folds, d * b->under + row, v);
        if (first) best[v] = one[v];
        else FC_NAME(pool_join)(mode, &best[v], one[v].value, one[v].offset);
    }
}

// All rows of a band in one strip of `vectors` vectors; of one that is not full at an edge.  `size` is that of the windows
// if they are three by three and share rows, or two by two and share none; of others it is 0.  src is lane 0's first tap in
// the plane's first row; dst and indices are lane 0's places in the band's first row.
FC_INLINE void FC_NAME(pool_strip)(const int mode, const int form, const int edge, const int vectors, const int size,
                                   const FC_NAME(pool_band) * b, const FC_NAME(pool_lanes) * strip, const T *src,
                                   T *dst, int64_t *indices) {
    const fc_pool *p = b->pool;
    FC_NAME(pool_lanes) l = *strip;
    vmask few[4];
    if (edge && form != FC_NAME(pool_channel_lanes) && size) {
        for (int k = 0; k < 4; k++) few[k] = strip->reads[k];
        l.reads = few;
    }
    const int64_t lanes = edge ? l.lanes : FC_VL;
    src += b->depth.start * p->src.axis[0] + b->lo * p->src.axis[1];
    FC_NAME(pool_folds) folds;
    uint8_t folded[FC_POOL_BAND] = {0};
    T *to = dst;
    int64_t *index = indices;
    if (size == 3) FC_NAME(pool_fold_rows)(mode, form, edge, vectors, b, &l, src, dst, indices, &folds);
    const int64_t rows = b->rows, stride = p->axis[1].stride, depths = b->depth.taps, below = p->dst.axis[1];
    for (int64_t y = 0; y < rows; y++) {
        FC_NAME(pool_best) best[4];
        const int64_t row = size == 3 ? y * stride : size == 2 ? b->window[y].start - b->lo : 0;
        if (size == 0)
            FC_NAME(pool_window)(mode, form, edge, vectors, b, y, &l, src, dst, indices, &folds, folded, best);
#pragma GCC unroll 3
        for (int h = 0; h < size; h++)
            FC_NAME(pool_known)(mode, form, edge, vectors, size, b, 0, row + h, h == 0, &l, src, &folds, best);
        for (int64_t d = 1; size && d < depths; d++)
#pragma GCC unroll 1
            for (int h = 0; h < size; h++)
                FC_NAME(pool_known)(mode, form, edge, vectors, size, b, d, row + h, 0, &l, src, &folds, best);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            vec value = best[v].value;
            if (mode == FC_NAME(pool_avg)) value = v_div(value, v_mul(v_set1(b->count[y]), l.count));
            if (edge) v_store_part(to + v * FC_VL, value, lanes);
            else v_store(to + v * FC_VL, value);
            if (mode == FC_NAME(pool_max_indexed)) {
                const int channels = form == FC_NAME(pool_channel_lanes);
                const int64_t apart = channels ? 0 : l.stride, next = channels ? p->index.channel : p->index.axis[2];
                FC_NAME(pool_put_indices)(index + v * FC_VL * next, next, best[v].offset,
                                          b->position + l.start + v * FC_VL * apart, apart, lanes);
            }
        }
        to += below;
        index += mode == FC_NAME(pool_max_indexed) ? p->index.axis[1] : 0;
    }
}

FC_INLINE void FC_NAME(pool_strip_of)(const int mode, const int form, const int edge, const int vectors,
                                      const FC_NAME(pool_band) * b, const FC_NAME(pool_lanes) * l, const T *src, T *dst,
                                      int64_t *indices) {
    const int size = b->size == l->taps ? b->size : 0;
    if (FC_KNOWN_SIZES && size == 3) FC_NAME(pool_strip)(mode, form, edge, vectors, 3, b, l, src, dst, indices);
    else if (FC_KNOWN_SIZES && size == 2 && form != FC_NAME(pool_every_column))
        FC_NAME(pool_strip)(mode, form, edge, vectors, 2, b, l, src, dst, indices);
    else FC_NAME(pool_strip)(mode, form, edge, vectors, 0, b, l, src, dst, indices);
}

// Describes rows of `work` from `row` on: as many as lie in one depth, and at most that many.
static void FC_NAME(pool_band_at)(const fc_pool_work *work, int64_t row, int64_t most, FC_NAME(pool_band) * b) {
    const fc_pool *p = work->pool;
    const fc_axis *h = &p->axis[1];
    const int64_t d = row / h->out, y = row % h->out;
    int64_t rows = work->row + work->rows - row;
    if (rows > h->out - y) rows = h->out - y;
    if (rows > most) rows = most;
    b->pool = p;
    b->row = row;
    b->rows = rows;
    b->shared = fc_pool_shares_rows(p);
    b->depth = fc_pool_window(p, 0, d);
    b->lo = b->hi = fc_pool_window(p, 1, y).start;
    for (int64_t i = 0; i < rows; i++) {
        const fc_window w = b->window[i] = fc_pool_window(p, 1, y + i);
        b->count[i] = p->kind == FC_POOL_AVG ? FC_NAME(pool_row_count)(p, row + i) : 1;
        const int64_t end = w.start + (w.taps - 1) * w.step + 1;
        if (w.start < b->lo) b->lo = w.start;
        if (end > b->hi) b->hi = end;
    }
    b->position = (b->depth.start * h->in + b->lo) * p->axis[2].in;
    b->above = b->lo - (y * h->stride - h->pad);
    b->under = (rows - 1) * h->stride + (h->kernel - 1) * h->dilation + 1;
    int twos = !b->shared;
    for (int64_t i = 0; i < rows; i++) twos &= b->window[i].taps == 2;
    b->size = h->dilation > 1 ? 0 : b->shared && h->kernel == 3 ? 3 : twos ? 2 : 0;
}

// A kernel, of a function for each mode.  (By channels that would be up to 9 % slower by AVX2.)
#define FC_POOL_MODES(name, of)                                                                                        \
    FC_BODY void FC_NAME(name##_avg)(const fc_pool_work *work) { FC_NAME(of)(FC_NAME(pool_avg), work); }               \
    FC_BODY void FC_NAME(name##_max)(const fc_pool_work *work) { FC_NAME(of)(FC_NAME(pool_max), work); }               \
    FC_BODY void FC_NAME(name##_indexed)(const fc_pool_work *work) { FC_NAME(of)(FC_NAME(pool_max_indexed), work); }   \
    void FC_NAME(name)(const fc_pool_work *work) {                                                                     \
        if (work->pool->kind == FC_POOL_AVG) FC_NAME(name##_avg)(work);                                                \
        else if (work->indices) FC_NAME(name##_indexed)(work);                                                         \
        else FC_NAME(name##_max)(work);                                                                                \
    }

// ---------------------------------------------------------------------------------------------------------- columns

// A strip whose loads may reach over an edge.
typedef struct FC_NAME(pool_edge) {
    int64_t x;
    FC_NAME(pool_lanes) lanes;
    vmask reads[FC_POOL_TAPS + 2];
} FC_NAME(pool_edge);

FC_INLINE FC_NAME(pool_lanes) FC_NAME(pool_columns_at)(const fc_pool *p, int64_t x, int64_t lanes) {
    const fc_axis *a = &p->axis[2];
    return (FC_NAME(pool_lanes)){.start = x * a->stride - a->pad,
                                 .taps = a->kernel,
                                 .step = a->dilation,
                                 .dilation = a->dilation,
                                 .lanes = lanes,
                                 .stride = a->stride,
                                 .first = v_set1(0),
                                 .count = v_set1(p->divisor ? 1 : (T)a->kernel)};
}

static void FC_NAME(pool_edge_at)(const int form, const fc_pool *p, int64_t x, FC_NAME(pool_edge) * e) {
    const fc_axis *a = &p->axis[2];
    const int64_t lanes = a->out - x < FC_VL ? a->out - x : FC_VL;
    T first[FC_VL], count[FC_VL];
    for (int64_t i = 0; i < FC_VL; i++) {
        const int64_t column = x + (i < lanes ? i : lanes - 1);
        first[i] = (T)(fc_pool_window(p, 2, column).start - (column * a->stride - a->pad));
        count[i] = p->kind == FC_POOL_AVG ? (T)fc_pool_count(p, 2, column) : 1;
    }
    e->x = x;
    e->lanes = FC_NAME(pool_columns_at)(p, x, lanes);
    e->lanes.first = v_load(first);
    e->lanes.count = v_load(count);
    e->lanes.reads = e->reads;
    for (int64_t k = 0; k < FC_POOL_TAPS + 2 && k < a->kernel + 3; k++) {
        const int64_t tap = form == FC_NAME(pool_every_column) ? k * a->dilation : (k & ~(int64_t)1) + (k & 1) * FC_VL;
        e->reads[k] = v_lanes(-(e->lanes.start + tap), a->in - (e->lanes.start + tap));
    }
}

// Edges of a row that are described once for all rows.
enum { FC_NAME(pool_edges) = 4 };

FC_INLINE void FC_NAME(pool_columns_of)(const int mode, const int form, const fc_pool_work *work) {
    const fc_pool *p = work->pool;
    const fc_axis *a = &p->axis[2];
    // A full strip's last tap ends here.
    const int64_t reach = form == FC_NAME(pool_second_columns) ? ((a->kernel - 1) | 1) - 1 + 8 * FC_VL
                                                               : (a->kernel - 1) * a->dilation + 4 * FC_VL;
    FC_NAME(pool_lanes) full = FC_NAME(pool_columns_at)(p, 0, 4 * FC_VL);
    FC_NAME(pool_edge) edges[FC_NAME(pool_edges)];
    FC_NAME(pool_band) b;
    b.row = -1;
    for (int i = 0; i < FC_NAME(pool_edges); i++) edges[i].x = -1;
    for (int64_t c = work->channel; c < work->channel + work->channels; c++) {
        const T *plane = (const T *)work->src + work->image * p->src.outer + c * p->src.channel;
        for (int64_t row = work->row; row < work->row + work->rows; row += b.rows) {
            if (row != b.row) FC_NAME(pool_band_at)(work, row, fc_pool_band_rows(p, FC_POOL_BAND), &b);
            T *dst = (T *)work->dst + FC_NAME(pool_at)(&p->dst, work->image, c, p, row);
            int64_t *indices = work->indices;
            if (mode == FC_NAME(pool_max_indexed)) indices += FC_NAME(pool_at)(&p->index, work->image, c, p, row);
            int64_t edge = 0;
            for (int64_t x = 0, lanes; x < a->out; x += lanes) {
                const int64_t start = x * a->stride - a->pad;
                int64_t *index = mode == FC_NAME(pool_max_indexed) ? indices + x * p->index.axis[2] : NULL;
                if (start >= 0 && start + reach <= a->in && x + 4 * FC_VL <= a->out) {
                    lanes = 4 * FC_VL;
                    full.start = start;
                    FC_NAME(pool_strip_of)(mode, form, 0, 4, &b, &full, plane + start, dst + x, index);
                    continue;
                }
                FC_NAME(pool_edge) *e = &edges[edge++ % FC_NAME(pool_edges)];
                if (e->x != x) FC_NAME(pool_edge_at)(form, p, x, e);
                lanes = e->lanes.lanes;
                FC_NAME(pool_strip_of)(mode, form, 1, 1, &b, &e->lanes, plane + start, dst + x, index);
            }
        }
    }
}

FC_INLINE void FC_NAME(pool_columns_by)(const int mode, const fc_pool_work *work) {
    const fc_axis *a = &work->pool->axis[2];
    if (a->stride == 1) FC_NAME(pool_columns_of)(mode, FC_NAME(pool_every_column), work);
    else FC_NAME(pool_columns_of)(mode, FC_NAME(pool_second_columns), work);
}

FC_POOL_MODES(pool_columns, pool_columns_by)

// --------------------------------------------------------------------------------------------------------- channels

// One column of a band, of `channels` channels from c on; the pointers are those of channel 0 and column 0.
FC_INLINE void FC_NAME(pool_channels_at)(const int mode, const fc_pool *p, const FC_NAME(pool_band) * b, int64_t x,
                                         int64_t c, int64_t channels, const T *image, T *dst, int64_t *indices) {
    const fc_window w = fc_pool_window(p, 2, x);
    FC_NAME(pool_lanes) l = {.start = w.start, .taps = w.taps, .step = w.step * p->src.axis[2], .dilation = w.step};
    l.count = v_set1(mode == FC_NAME(pool_avg) ? (T)fc_pool_count(p, 2, x) : 1);
    image += w.start * p->src.axis[2];
    dst += x * p->dst.axis[2];
    if (mode == FC_NAME(pool_max_indexed)) indices += x * p->index.axis[2] + c * p->index.channel;
    for (const int64_t end = c + channels; c < end; c += l.lanes) {
        const int64_t left = end - c;
        l.lanes = left >= 4 * FC_VL ? 4 * FC_VL : left < FC_VL ? left : FC_VL;
        if (left >= 4 * FC_VL)
            FC_NAME(pool_strip_of)(mode, FC_NAME(pool_channel_lanes), 0, 4, b, &l, image + c, dst + c, indices);
        else FC_NAME(pool_strip_of)(mode, FC_NAME(pool_channel_lanes), 1, 1, b, &l, image + c, dst + c, indices);
        if (mode == FC_NAME(pool_max_indexed)) indices += l.lanes * p->index.channel;
    }
}

FC_INLINE void FC_NAME(pool_channels_of)(const int mode, const fc_pool_work *work) {
    const fc_pool *p = work->pool;
    const T *image = (const T *)work->src + work->image * p->src.outer;
    FC_NAME(pool_band) b;
    // Rows that are not shared go one at a time, in the order in which memory lies; else by few enough that prefetching
    // follows.
    const int64_t window = (p->axis[1].kernel - 1) * p->axis[1].dilation + 1;
    const int64_t few = 2 * window > FC_POOL_FEW ? 2 * window : FC_POOL_FEW;
    const int shared = fc_pool_shares_rows(p);
    const int64_t most = shared ? fc_pool_band_rows(p, few) : 1, end = work->channel + work->channels;
    const int64_t block = shared ? 4 * FC_VL : work->channels;
    for (int64_t row = work->row; row < work->row + work->rows; row += b.rows) {
        FC_NAME(pool_band_at)(work, row, most, &b);
        T *dst = (T *)work->dst + FC_NAME(pool_at)(&p->dst, work->image, 0, p, row);
        int64_t *indices = work->indices;
        if (mode == FC_NAME(pool_max_indexed)) indices += FC_NAME(pool_at)(&p->index, work->image, 0, p, row);
        for (int64_t c = work->channel; c < end; c += block)
            for (int64_t x = work->column; x < work->column + work->columns; x++)
                FC_NAME(pool_channels_at)(mode, p, &b, x, c, end - c < block ? end - c : block, image, dst, indices);
    }
}

void FC_NAME(pool_channels)(const fc_pool_work *work) {
    if (work->pool->kind == FC_POOL_AVG) FC_NAME(pool_channels_of)(FC_NAME(pool_avg), work);
    else if (work->indices) FC_NAME(pool_channels_of)(FC_NAME(pool_max_indexed), work);
    else FC_NAME(pool_channels_of)(FC_NAME(pool_max), work);
}

// ------------------------------------------------------------------------------------------------- channels, in runs

// Taps of one row that are folded at a time, and vectors of channels through which they are.  (To ask for the next run in the
// order of memory, into the second-level cache, took 0.7 to 0.8 of the time where wide images come from memory, and up to
// 1.15 where they come from the third-level cache; one tap at a time, 1.2 there.)
enum { FC_NAME(pool_run_taps) = 8, FC_NAME(pool_run_vectors) = 64 };

// A run of taps of one row, of `channels` channels, folded into what is there.
FC_INLINE void FC_NAME(pool_run)(const int mode, const FC_NAME(pool_lanes) * l, const T *src, T at, int64_t channels,
                                 FC_NAME(pool_best) * best) {
    FC_NAME(pool_best) one[4];
    int64_t c = 0;
    for (; c + 4 * FC_VL <= channels; c += 4 * FC_VL, best += 4) {
        FC_NAME(pool_across)(mode, FC_NAME(pool_channel_lanes), 0, 4, l->taps, l, src + c, at, one);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) FC_NAME(pool_join)(mode, best + v, one[v].value, one[v].offset);
    }
    FC_NAME(pool_lanes) edge = *l;
    for (; c < channels; c += FC_VL, best++) {
        edge.lanes = channels - c < FC_VL ? channels - c : FC_VL;
        FC_NAME(pool_across)(mode, FC_NAME(pool_channel_lanes), 1, 1, l->taps, &edge, src + c, at, one);
        FC_NAME(pool_join)(mode, best, one[0].value, one[0].offset);
    }
}

// One window of many channels.
FC_INLINE void FC_NAME(pool_run_by_run)(const int mode, const FC_NAME(pool_band) * b,
                                        const FC_NAME(pool_lanes) * window, const T *src, int64_t channels, T *dst,
                                        int64_t *indices) {
    const fc_pool *p = b->pool;
    FC_NAME(pool_best) folds[FC_NAME(pool_run_vectors)];
    FC_NAME(pool_lanes) run = *window;
    for (int64_t v = 0; v * FC_VL < channels; v++) folds[v] = FC_NAME(pool_start)(mode, &run, 0);
    src += b->depth.start * p->src.axis[0] + b->lo * p->src.axis[1];
    for (int64_t d = 0, depth = 0; d < b->depth.taps; d++, depth += b->depth.step)
        for (int64_t h = 0, row = 0; h < b->window[0].taps; h++, row += b->window[0].step) {
            const T *line = src + depth * p->src.axis[0] + row * p->src.axis[1];
            const int64_t at = (depth * p->axis[1].in + row) * p->axis[2].in;
            for (int64_t k = 0; k < window->taps; k += FC_NAME(pool_run_taps)) {
                const int64_t left = window->taps - k;
                run.taps = left < FC_NAME(pool_run_taps) ? left : FC_NAME(pool_run_taps);
                FC_NAME(pool_run)(mode, &run, line + k * run.step, (T)(at + k * run.dilation), channels, folds);
            }
        }
    for (int64_t v = 0, c = 0; c < channels; v++, c += FC_VL) {
        const int64_t lanes = channels - c < FC_VL ? channels - c : FC_VL, next = p->index.channel;
        vec value = folds[v].value;
        if (mode == FC_NAME(pool_avg)) value = v_div(value, v_mul(v_set1(b->count[0]), run.count));
        v_store_part(dst + c, value, lanes);
        if (mode == FC_NAME(pool_max_indexed))
            FC_NAME(pool_put_indices)(indices + c * next, next, folds[v].offset, b->position + run.start, 0, lanes);
    }
}

FC_INLINE void FC_NAME(pool_runs_of)(const int mode, const fc_pool_work *work) {
    const fc_pool *p = work->pool;
    const int64_t block = FC_NAME(pool_run_vectors) * FC_VL, end = work->channel + work->channels;
    FC_NAME(pool_band) b;
    for (int64_t row = work->row; row < work->row + work->rows; row++) {
        FC_NAME(pool_band_at)(work, row, 1, &b);
        for (int64_t x = work->column; x < work->column + work->columns; x++) {
            const fc_window w = fc_pool_window(p, 2, x);
            FC_NAME(pool_lanes)
            l = {.start = w.start, .taps = w.taps, .step = w.step * p->src.axis[2], .dilation = w.step};
            l.count = v_set1(mode == FC_NAME(pool_avg) ? (T)fc_pool_count(p, 2, x) : 1);
            for (int64_t c = work->channel; c < end; c += block) {
                const T *src = (const T *)work->src + work->image * p->src.outer + c + w.start * p->src.axis[2];
                T *dst = (T *)work->dst + FC_NAME(pool_at)(&p->dst, work->image, c, p, row) + x * p->dst.axis[2];
                int64_t *indices = work->indices;
                if (mode == FC_NAME(pool_max_indexed))
                    indices += FC_NAME(pool_at)(&p->index, work->image, c, p, row) + x * p->index.axis[2];
                FC_NAME(pool_run_by_run)(mode, &b, &l, src, end - c < block ? end - c : block, dst, indices);
            }
        }
    }
}

FC_POOL_MODES(pool_runs, pool_runs_of)

#undef FC_POOL_MODES
