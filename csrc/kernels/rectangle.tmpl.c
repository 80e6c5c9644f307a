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

// Where rows of src follow each other, or every second element is one, and columns of dst do: tiles of as many of either as a
// vector has lanes.  Streams are as many as columns, more than prefetchers follow: what is two tiles on is asked for.
FC_INLINE void FC_NAME(turned_tile)(T *dst, const T *src, int64_t rows, int64_t columns, const fc_rectangle *w,
                                    const int step) {
    vec v[FC_VL];
#pragma GCC unroll 16
    for (int i = 0; i < FC_VL; i++) {
        const T *p = src + (i < columns ? i : 0) * w->src_column;
        __builtin_prefetch(p + 2 * step * FC_VL, 0, 3);
        if (step == 1) v[i] = rows == FC_VL ? v_load(p) : v_load_part(p, rows);
        else v[i] = rows == FC_VL ? v_load2(p) : v_load2_part(p, rows);
    }
    v_transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < FC_VL; i++) {
        if (i >= rows) break;
        if (columns == FC_VL) v_store(dst + i * w->dst_row, v[i]);
        else v_store_part(dst + i * w->dst_row, v[i], columns);
    }
}

// The power of two in the bytes from one stream to the next, a cache line at least: 4 KiB of them are as many as the
// first-level cache has sets.
FC_INLINE int64_t FC_NAME(power)(int64_t apart) {
    const int64_t bytes = apart * (int64_t)sizeof(T), power = bytes & -bytes;
    return power < 64 ? 64 : power;
}

// Rows go outside, so that dst is written in its order; but columns do where more than four of them share a set, and rows of
// dst do so less.
FC_INLINE void FC_NAME(turned_rectangle)(const fc_rectangle *w, const int step) {
    const int64_t power = FC_NAME(power)(w->src_column);
    const int by_columns = w->columns * power > 4 * 4096 && power > FC_NAME(power)(w->dst_row);
    const int64_t outer = by_columns ? w->columns : w->rows, inner = by_columns ? w->rows : w->columns;
    const int64_t src_next = FC_VL * (by_columns ? step : w->src_column),
                  dst_next = by_columns ? FC_VL * w->dst_row : FC_VL;
    for (int64_t o = 0; o < outer; o += FC_VL) {
        const T *src = (const T *)w->src + o * (by_columns ? w->src_column : step);
        T *dst = (T *)w->dst + o * (by_columns ? 1 : w->dst_row);
        const int64_t across = FC_NAME(lanes_of)(outer - o);
        for (int64_t left = inner; left > 0; left -= FC_VL, src += src_next, dst += dst_next) {
            const int64_t along = FC_NAME(lanes_of)(left);
            if (across == FC_VL && along == FC_VL) FC_NAME(turned_tile)(dst, src, FC_VL, FC_VL, w, step);
            else FC_NAME(turned_tile)(dst, src, by_columns ? along : across, by_columns ? across : along, w, step);
        }
    }
}

static __attribute__((noinline)) void FC_NAME(turned_rectangle_1)(const fc_rectangle *w) {
    FC_NAME(turned_rectangle)(w, 1);
}
static __attribute__((noinline)) void FC_NAME(turned_rectangle_2)(const fc_rectangle *w) {
    FC_NAME(turned_rectangle)(w, 2);
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
    if ((w->src_row == 1 || w->src_row == 2) && w->src_column != 1 && w->dst_column == 1 && FC_VL > 1) {
        if (w->src_row == 1) FC_NAME(turned_rectangle_1)(w);
        else FC_NAME(turned_rectangle_2)(w);
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
