// SPDX-License-Identifier: BSD-3-Clause
//
// rectangle.tmpl.c - copies with both axes in any order: rows that lie alike, one element repeated, transposes through
// registers, and whatever is left.

FC_INLINE void FC_NAME(copy_row)(T *dst, const T *src, int64_t count) {
    if (count >= 16 * FC_VL) {
        memcpy(dst, src, (size_t)count * sizeof(T));
        return;
    }
    for (; count >= FC_VL; count -= FC_VL, dst += FC_VL, src += FC_VL) v_store(dst, v_load(src));
    v_store_part(dst, v_load_part(src, count), count);
}

FC_INLINE void FC_NAME(fill_row)(T *dst, vec value, int64_t count) {
    for (; count >= FC_VL; count -= FC_VL, dst += FC_VL) v_store(dst, value);
    v_store_part(dst, value, count);
}

// Where rows of src and columns of dst follow each other: tiles of as many of either as a vector has lanes.
FC_INLINE void FC_NAME(turned_tile)(T *dst, const T *src, int64_t rows, int64_t columns, const fc_rectangle *w) {
    vec v[FC_VL];
#pragma GCC unroll 16
    for (int i = 0; i < FC_VL; i++) {
        const T *p = src + (i < columns ? i : 0) * w->src_column;
        v[i] = rows == FC_VL ? v_load(p) : v_load_part(p, rows);
    }
    v_transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < FC_VL; i++) {
        if (i >= rows) break;
        if (columns == FC_VL) v_store(dst + i * w->dst_row, v[i]);
        else v_store_part(dst + i * w->dst_row, v[i], columns);
    }
}

static void FC_NAME(turned_rectangle)(const fc_rectangle *w) {
    for (int64_t r = 0; r < w->rows; r += FC_VL) {
        const int64_t rows = w->rows - r < FC_VL ? w->rows - r : FC_VL;
        const T *src = (const T *)w->src + r;
        T *dst = (T *)w->dst + r * w->dst_row;
        int64_t c = 0;
        if (rows == FC_VL)
            for (; c + FC_VL <= w->columns; c += FC_VL)
                FC_NAME(turned_tile)(dst + c, src + c * w->src_column, FC_VL, FC_VL, w);
        for (; c < w->columns; c += FC_VL) {
            const int64_t columns = w->columns - c < FC_VL ? w->columns - c : FC_VL;
            FC_NAME(turned_tile)(dst + c, src + c * w->src_column, rows, columns, w);
        }
    }
}

void FC_NAME(rectangle)(const fc_rectangle *w) {
    fc_rectangle turned = *w;
    if (w->src_column == 1 && w->dst_row == 1 && w->dst_column != 1) {
        turned.rows = w->columns;
        turned.columns = w->rows;
        turned.src_row = w->src_column;
        turned.src_column = w->src_row;
        turned.dst_row = w->dst_column;
        turned.dst_column = w->dst_row;
    }
    w = &turned;
    if (w->src_row == 1 && w->src_column != 1 && w->dst_column == 1 && FC_VL > 1) {
        FC_NAME(turned_rectangle)(w);
        return;
    }
    for (int64_t r = 0; r < w->rows; r++) {
        const T *src = (const T *)w->src + r * w->src_row;
        T *dst = (T *)w->dst + r * w->dst_row;
        if (w->dst_column == 1 && w->src_column == 1) FC_NAME(copy_row)(dst, src, w->columns);
        else if (w->dst_column == 1 && w->src_column == 0) FC_NAME(fill_row)(dst, v_set1(*src), w->columns);
        else
            for (int64_t c = 0; c < w->columns; c++) dst[c * w->dst_column] = src[c * w->src_column];
    }
}
