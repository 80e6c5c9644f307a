// SPDX-License-Identifier: BSD-3-Clause
//
// stencil.tmpl.c - rows of a correlation over one plane or several: dst[y][x] = sum over t, i, j of
// wei[t][j][i] * rows[t][y + i][x + j].
//
// Every input vector is loaded once for all output rows that see it, and every weight once for all vectors of a row, so
// that a tile of 6 rows x 4 vectors takes 10 loads for 24 multiply-adds.  (Taps outside and rows inside, as depthwise
// has it, takes a load for each multiply-add: half of the peak.)  The order of the sum is that of the taps, row-major,
// for every output, so that its bits depend neither on the tile nor on the place.

// What one column of taps adds: output rows [from, to) see this input row, by the tap that lies o rows before `wei`.
FC_INLINE void FC_NAME(stencil_row)(vec sum[6][4], const T *in, const T *wei, int64_t width, int64_t height,
                                    const int from, const int to, const int count, const int fused) {
    for (int64_t j = 0; j < width; j++, wei += height) {
        vec x[4];
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) x[v] = v_load(in + j + v * FC_VL);
#pragma GCC unroll 6
        for (int o = from; o < to; o++) {
            const vec w = v_set1(wei[-o]);
#pragma GCC unroll 4
            for (int v = 0; v < count; v++)
                sum[o][v] = fused ? v_fma(w, x[v], sum[o][v]) : v_add(sum[o][v], v_mul(w, x[v]));
        }
    }
}

// ROW(r, from, to) for the input rows r of a tile of up to six output rows, of which from .. to - 1 see them: the first and the
// last are not seen by all.
#define FC_STENCIL_INPUTS(ROW, rows, height)                                                                           \
    if (rows > 1) ROW(0, 0, 1);                                                                                        \
    if (rows > 2) ROW(1, 0, 2);                                                                                        \
    if (rows > 3) ROW(2, 0, 3);                                                                                        \
    if (rows > 4) ROW(3, 0, 4);                                                                                        \
    if (rows > 5) ROW(4, 0, 5);                                                                                        \
    for (int64_t r = rows - 1; r < height; r++) ROW(r, 0, rows);                                                       \
    if (rows > 1) ROW(height, 1, rows);                                                                                \
    if (rows > 2) ROW(height + 1, 2, rows);                                                                            \
    if (rows > 3) ROW(height + 2, 3, rows);                                                                            \
    if (rows > 4) ROW(height + 3, 4, rows);                                                                            \
    if (rows > 5) ROW(height + 4, 5, rows);

// `rows` x `count` vectors of outputs from row `first` and column x on, the last vector of `lanes` columns; rows <= height.
FC_INLINE void FC_NAME(stencil_block)(const fc_stencil_rows *work, int64_t first, int64_t x, int64_t lanes,
                                      const int rows, const int count, const int fused) {
    const int64_t height = work->height, width = work->width;
    vec sum[6][4];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) sum[r][v] = v_set1(0);
    for (int64_t t = 0; t < work->depth; t++) {
        const void *const *in = work->rows + t * (height + work->count - 1) + first;
        const T *wei = (const T *)work->weights + t * height * width;
#define FC_INPUT_ROW(r, from, to)                                                                                      \
    FC_NAME(stencil_row)(sum, (const T *)in[r] + x, wei + (r), width, height, from, to, count, fused)
        FC_STENCIL_INPUTS(FC_INPUT_ROW, rows, height)
#undef FC_INPUT_ROW
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        T *dst = (T *)work->dst + (first + r) * work->dst_row + x;
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            if (v + 1 < count || lanes == FC_VL) v_store(dst + v * FC_VL, sum[r][v]);
            else v_store_part(dst + v * FC_VL, sum[r][v], lanes);
        }
    }
}

// With 16 vector registers a tile is two vectors wide.
enum { FC_NAME(stencil_count) = FC_MR * FC_NV >= 24 ? 4 : 2 };

FC_INLINE void FC_NAME(stencil_rows)(const fc_stencil_rows *work, int64_t first, const int rows, const int fused) {
    for (int64_t x = 0; x < work->columns;) {
        const int64_t vectors = (work->columns - x + FC_VL - 1) / FC_VL;
        const int64_t count = vectors >= FC_NAME(stencil_count) ? FC_NAME(stencil_count) : 1;
        const int64_t left = work->columns - x - (count - 1) * FC_VL, lanes = FC_NAME(lanes_of)(left);
        if (count > 1) FC_NAME(stencil_block)(work, first, x, lanes, rows, FC_NAME(stencil_count), fused);
        else FC_NAME(stencil_block)(work, first, x, lanes, rows, 1, fused);
        x += count * FC_VL;
    }
}

// Four rows are twice two: windows of even height are rare. Where products are rounded by themselves, six are twice three:
// beside two instructions for each product, loads are not noticed.
FC_INLINE void FC_NAME(stencil_any)(const fc_stencil_rows *work, const int fused) {
    for (int64_t first = 0, n; first < work->count; first += n) {
        const int64_t left = work->count - first;
        n = left == 4 ? 2 : left == 6 && !fused ? 3 : left;
        if (n == 1) FC_NAME(stencil_rows)(work, first, 1, fused);
        else if (n == 2) FC_NAME(stencil_rows)(work, first, 2, fused);
        else if (n == 3) FC_NAME(stencil_rows)(work, first, 3, fused);
        else if (n == 5) FC_NAME(stencil_rows)(work, first, 5, fused);
        else if (fused) FC_NAME(stencil_rows)(work, first, 6, fused);
    }
}

void FC_NAME(stencil)(const fc_stencil_rows *work) {
    // A lane by itself rounds products anyway.
    if (FC_BITS == 64 && FC_VL > 1 && work->unfused) FC_NAME(stencil_any)(work, 0);
    else FC_NAME(stencil_any)(work, 1);
}
