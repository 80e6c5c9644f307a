// SPDX-License-Identifier: BSD-3-Clause
//
// pool_pairs.tmpl.c - pooling of windows of two columns side by side, with stride 2 and no padding beside them.

// indices[l * stride] = first + l * step + offset[l]
FC_INLINE void FC_NAME(pool_put_indices)(int64_t *indices, int64_t stride, vec offset, int64_t first, int64_t step,
                                         int64_t n) {
    if (stride == 1) {
        v_store_indices(indices, offset, first, step, n);
        return;
    }
    T lanes[FC_VL];
    v_store(lanes, offset);
    for (int64_t l = 0; l < n; l++) indices[l * stride] = first + l * step + (int32_t)lanes[l];
}

// Two vectors of a row's columns, or those under `part` of a vector of outputs.
FC_INLINE vec FC_NAME(pool_pair)(const int64_t part, const T *src, const int high) {
    const int64_t left = 2 * part - high * FC_VL;
    if (!part) return v_load(src + high * FC_VL);
    return left > 0 ? v_load_part(src + high * FC_VL, left < FC_VL ? left : FC_VL) : v_set1(0);
}

// Positions of maxima, finite ones: like pool_seek.  (To seek rows before they are paired has a third fewer shuffles, and
// took a twentieth longer.)
FC_INLINE void FC_NAME(pool_pairs_seek)(const int square, const int64_t part, const fc_pool *p,
                                        const FC_NAME(pool_places) * places, int64_t x, vec maximum, int64_t *indices) {
    const FC_NAME(pool_rows_under) *u = &places->rows;
    const int64_t depths = square ? 1 : u->depths, heights = square ? 2 : u->heights;
    vec at = v_set1(0);
    for (int64_t d = depths - 1; d >= 0; d--)
#pragma GCC unroll 2
        for (int64_t h = heights - 1; h >= 0; h--) {
            const T *src = u->first + 2 * x + d * u->depth_step + h * u->height_step;
            const vec low = FC_NAME(pool_pair)(part, src, 0), high = FC_NAME(pool_pair)(part, src, 1);
            const T place = (T)(d * places->depth_apart + h * places->height_apart);
            at = v_select(v_same(v_odd(low, high), maximum), v_set1(place + 1), at);
            at = v_select(v_same(v_even(low, high), maximum), v_set1(place), at);
        }
    FC_NAME(pool_put_indices)(indices + x * p->index.axis[2], p->index.axis[2], at, places->first + 2 * x, 2,
                              part ? part : FC_VL);
}

// Windows of two columns side by side, the commonest of all, in long rows: a vector of outputs, or `part` of one.  Down
// goes first, which halves the shuffles; for short rows bands have less to do around each of them.
FC_INLINE vec FC_NAME(pool_pairs_vectors)(const int kind, const int square, const int64_t part,
                                          const FC_NAME(pool_rows_under) * u, const T *src, vec count) {
    const int64_t depths = square ? 1 : u->depths, heights = square ? 2 : u->heights;
    vec low = v_set1(FC_NAME(pool_identity)(kind)), high = low;
    for (int64_t d = 0; d < depths; d++)
#pragma GCC unroll 2
        for (int64_t h = 0; h < heights; h++) {
            const T *p = src + d * u->depth_step + h * u->height_step;
            FC_AHEAD(p);
            FC_AHEAD(p + FC_VL);
            low = FC_NAME(pool_fold)(kind, low, FC_NAME(pool_pair)(part, p, 0));
            high = FC_NAME(pool_fold)(kind, high, FC_NAME(pool_pair)(part, p, 1));
        }
    vec result = FC_NAME(pool_fold)(kind, v_even(low, high), v_odd(low, high));
    return kind == FC_POOL_AVG ? v_div(result, count) : result;
}

FC_INLINE void FC_NAME(pool_pairs_row)(const int kind, const int indexed, const int square, const fc_pool *p,
                                       const T *plane, int64_t row, T count, T *dst, int64_t *indices) {
    const FC_NAME(pool_places) places = FC_NAME(pool_places_of)(p, plane, row);
    const FC_NAME(pool_rows_under) u = places.rows;
    const int64_t n = p->axis[2].out;
    int finite = 1;
    if (n < FC_VL) {
        const vec result = FC_NAME(pool_pairs_vectors)(kind, square, n, &u, u.first, v_set1(count));
        if (indexed) FC_NAME(pool_pairs_seek)(square, n, p, &places, 0, result, indices);
        v_store_part(dst, result, n);
        finite = v_finite(result);
    }
    for (int64_t i = 0; n >= FC_VL && i < n; i += FC_VL) {
        const int64_t x = i + FC_VL <= n ? i : n - FC_VL; // the last one overlaps its neighbour
        const vec result = FC_NAME(pool_pairs_vectors)(kind, square, 0, &u, u.first + 2 * x, v_set1(count));
        if (indexed) FC_NAME(pool_pairs_seek)(square, 0, p, &places, x, result, indices);
        v_store(dst + x, result);
        finite &= v_finite(result);
    }
    if (indexed && !finite) FC_NAME(pool_search_row)(p, plane, row, 0, n, 0, dst, indices);
}

FC_INLINE void FC_NAME(pool_pairs_of)(const int kind, const int indexed, const fc_pool_work *work) {
    const fc_pool *p = work->pool;
    const T columns = (T)fc_pool_count(p, 2, 0);
    for (int64_t c = work->channel; c < work->channel + work->channels; c++) {
        const T *plane = (const T *)work->src + work->image * p->src.outer + c * p->src.channel;
        for (int64_t row = work->row; row < work->row + work->rows; row++) {
            const T count = kind == FC_POOL_AVG ? FC_NAME(pool_row_count)(p, row) * columns : 1;
            T *dst = (T *)work->dst + FC_NAME(pool_at)(&p->dst, work->image, c, p, row);
            int64_t *indices = work->indices;
            if (indexed) indices += FC_NAME(pool_at)(&p->index, work->image, c, p, row);
            const int high = FC_NAME(pool_under)(p, plane, row).heights == 2;
            if (FC_KNOWN_SIZES && high && p->axis[0].kernel == 1)
                FC_NAME(pool_pairs_row)(kind, indexed, 1, p, plane, row, count, dst, indices);
            else FC_NAME(pool_pairs_row)(kind, indexed, 0, p, plane, row, count, dst, indices);
        }
    }
}

void FC_NAME(pool_pairs)(const fc_pool_work *work) {
    if (work->pool->kind == FC_POOL_AVG) FC_NAME(pool_pairs_of)(FC_POOL_AVG, 0, work);
    else if (work->indices) FC_NAME(pool_pairs_of)(FC_POOL_MAX, 1, work);
    else FC_NAME(pool_pairs_of)(FC_POOL_MAX, 0, work);
}
