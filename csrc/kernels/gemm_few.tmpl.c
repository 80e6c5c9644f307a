// SPDX-License-Identifier: BSD-3-Clause
//
// gemm_few.tmpl.c - the product over pixels of so few output channels that a tile of them can be wide: the same sums in the
// same order as gemm_pixels.
//
// Two vectors of one row would leave the multipliers waiting for each sum, and would read planes a line or two at a time:
// where these are a multiple of 4 KiB apart they share the sets of a cache, which has forgotten a line before the next
// tile comes to its other half.  More than four lines in a row are found by themselves; of fewer the next are asked for.

// As many vectors of each row as leave room for what they are multiplied by among the registers of the other forms.
#define FC_FEW_VECTORS(m) (8 * (m) < FC_MR * FC_NV ? 8 : 4 * (m) < FC_MR * FC_NV ? 4 : 2)

// The sums of nv vectors from `column` on, of which `left` columns are of use: all but where they are not whole.
FC_INLINE void FC_NAME(few_body)(const fc_gemm_tile *t, int64_t column, const int m, const int nv, const int whole,
                                 int64_t left) {
    vec sum[4][8];
    int64_t lanes[8];
#pragma GCC unroll 8
    for (int j = 0; j < nv; j++) lanes[j] = left < j * FC_VL ? 0 : left < (j + 1) * FC_VL ? left - j * FC_VL : FC_VL;
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
#pragma GCC unroll 8
        for (int j = 0; j < nv; j++) sum[i][j] = v_set1(0);
    const T *a = t->a, *base = (const T *)t->b + column;
    const int64_t *offset = t->b_offset, step = t->a_row;
    const size_t bytes = (size_t)nv * sizeof(vec);
    for (int64_t k = 0; k < t->depth; k++, a += step) {
        const T *row = base + offset[k];
        for (size_t line = 0; line < bytes && bytes <= 256; line += 64)
            __builtin_prefetch((const char *)row + bytes + line, 0, 2);
        vec x[4];
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) x[i] = v_set1(a[i]);
#pragma GCC unroll 8
        for (int j = 0; j < nv; j++) {
            const vec b = whole ? v_load(row + j * FC_VL) : v_load_part(row + j * FC_VL, lanes[j]);
#pragma GCC unroll 4
            for (int i = 0; i < m; i++) sum[i][j] = v_fma(x[i], b, sum[i][j]);
        }
    }
    T *sums = (T *)t->sums + column;
#pragma GCC unroll 4
    for (int i = 0; i < m; i++, sums += FC_FEW_NR)
#pragma GCC unroll 8
        for (int j = 0; j < nv; j++)
            v_store(sums + j * FC_VL, t->first ? sum[i][j] : v_add(v_load(sums + j * FC_VL), sum[i][j]));
}

FC_INLINE void FC_NAME(few_rows)(const fc_gemm_tile *t, const int m) {
    const int nv = FC_FEW_VECTORS(m);
    int64_t column = 0;
    for (; column + nv * FC_VL <= t->columns; column += nv * FC_VL) FC_NAME(few_body)(t, column, m, nv, 1, nv * FC_VL);
    for (; column < t->columns; column += 2 * FC_VL) FC_NAME(few_body)(t, column, m, 2, 0, t->columns - column);
}

// Finishes a tile that is one run of columns side by side: with short sums gemm_scatter would take an eighth of the time.
static __attribute__((noinline)) void FC_NAME(few_finish)(const fc_gemm_tile *t) {
    const int64_t columns = t->columns, whole = columns / FC_VL * FC_VL, start = t->runs[0].offset;
    const vec low = v_set1((T)t->low), high = v_set1((T)t->high), zero = v_set1(0);
    for (int64_t i = 0; i < t->m; i++) {
        const T *sums = (const T *)t->sums + i * FC_FEW_NR;
        T *dst = (T *)t->dst + t->row_offset[i] + start;
        const T *residual = t->residual ? (const T *)t->residual + t->row_offset[i] + start : NULL;
        const vec bias = v_set1(((const T *)t->bias)[i]);
        for (int64_t j = 0; j < whole; j += FC_VL) {
            const vec r = residual ? v_load(residual + j) : zero;
            v_store(dst + j, FC_NAME(finish)(v_load(sums + j), bias, r, low, high));
        }
        if (whole == columns) continue;
        const vec r = residual ? v_load_part(residual + whole, columns - whole) : zero;
        v_store_part(dst + whole, FC_NAME(finish)(v_load(sums + whole), bias, r, low, high), columns - whole);
    }
}

void FC_NAME(gemm_few)(const fc_gemm_tile *t) {
    if (t->m == 1) FC_NAME(few_rows)(t, 1);
    else if (t->m == 2) FC_NAME(few_rows)(t, 2);
    else if (t->m == 3) FC_NAME(few_rows)(t, 3);
    else FC_NAME(few_rows)(t, 4);
    if (!t->last) return;
    if (t->run_count == 1 && t->runs[0].length == t->columns && t->column_stride == 1) FC_NAME(few_finish)(t);
    else FC_NAME(gemm_scatter)(t, FC_FEW_NR, 1);
}
#undef FC_FEW_VECTORS
