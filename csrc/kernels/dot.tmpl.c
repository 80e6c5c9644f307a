// SPDX-License-Identifier: BSD-3-Clause
//
// dot.tmpl.c - a few rows times a matrix that is read once, where it lies: dst[i][o] = sum over k of src[i][k] * wei[o][k].
//
//   along    vectors run along k, where the weights of an output are neighbours
//   across   vectors run over outputs, where the weights of an input are
//
// Each sum is made by the same operations whatever its neighbours, of blocks of k that are added to each other.

enum { FC_NAME(dot_block) = 256 }; // terms of a sum that are added in a row
#define FC_DOT_ROWS (FC_MR * FC_NV >= 24 ? 4 : 2)

// A vector of outputs of one row, of which `lanes` count.
FC_INLINE void FC_NAME(dot_store)(const fc_dot *work, int64_t row, int64_t out, int64_t lanes, vec sum) {
    const int64_t at = row * work->dst_row + out * work->dst_out;
    const vec bias = work->bias ? v_load_part((const T *)work->bias + out, lanes) : v_set1(0);
    const vec residual =
        work->residual ? FC_NAME(load_row)((const T *)work->residual + at, lanes, work->dst_out) : v_set1(0);
    const vec value = FC_NAME(finish)(sum, bias, residual, v_set1((T)work->low), v_set1((T)work->high));
    FC_NAME(store_row)((T *)work->dst + at, value, lanes, work->dst_out);
}

FC_INLINE void FC_NAME(dot_along_block)(const fc_dot *work, int64_t row, int64_t out, const int rows, const int outs) {
    const T *src = (const T *)work->src + row * work->src_row, *wei = (const T *)work->wei + out * work->wei_out;
    vec total[4][4], sum[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int o = 0; o < outs; o++) total[i][o] = v_set1(0);
    for (int64_t k = 0; k < work->depth;) {
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (int o = 0; o < outs; o++) sum[i][o] = v_set1(0);
        const int64_t left = work->depth - k, most = FC_NAME(dot_block) * FC_VL, end = k + (left < most ? left : most);
        for (; k + FC_VL <= end; k += FC_VL) {
            vec x[4];
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) x[i] = v_load(src + i * work->src_row + k);
#pragma GCC unroll 4
            for (int o = 0; o < outs; o++) {
                const vec w = v_load(wei + o * work->wei_out + k);
#pragma GCC unroll 4
                for (int i = 0; i < rows; i++) sum[i][o] = v_fma(x[i], w, sum[i][o]);
            }
        }
        if (k < end) {
#pragma GCC unroll 4
            for (int o = 0; o < outs; o++) {
                const vec w = v_load_part(wei + o * work->wei_out + k, end - k);
#pragma GCC unroll 4
                for (int i = 0; i < rows; i++)
                    sum[i][o] = v_fma(v_load_part(src + i * work->src_row + k, end - k), w, sum[i][o]);
            }
            k = end;
        }
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (int o = 0; o < outs; o++) total[i][o] = v_add(total[i][o], sum[i][o]);
    }
    T sums[16 + FC_VL] = {0}; // [row][output]
    int joined = 0;
    for (; joined + FC_VL <= rows * outs; joined += FC_VL) { // as many sums as a vector has lanes, across those
        vec lane[FC_VL];
#pragma GCC unroll 16
        for (int i = 0; i < FC_VL; i++) lane[i] = total[(joined + i) / outs][(joined + i) % outs];
        v_transpose(lane);
#pragma GCC unroll 4
        for (int half = FC_VL / 2; half > 0; half /= 2)
#pragma GCC unroll 8
            for (int i = 0; i < half; i++) lane[i] = v_add(lane[i], lane[i + half]);
        v_store(sums + joined, lane[0]);
    }
    for (; joined < rows * outs; joined++)
        sums[joined] = FC_NAME(fold_lanes)(FC_FOLD_SUM, total[joined / outs][joined % outs]);
    for (int i = 0; i < rows; i++)
        for (int o = 0; o < outs; o += FC_VL)
            FC_NAME(dot_store)(work, row + i, out + o, FC_NAME(lanes_of)(outs - o), v_load(sums + i * outs + o));
}

FC_INLINE void FC_NAME(dot_across_block)(const fc_dot *work, int64_t row, int64_t out, int64_t lanes, const int rows,
                                         const int vectors) {
    const T *src = (const T *)work->src + row * work->src_row, *wei = (const T *)work->wei + out;
    vec total[4][4], sum[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) total[i][v] = v_set1(0);
    for (int64_t k = 0; k < work->depth;) {
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[i][v] = v_set1(0);
        const int64_t end = work->depth - k < FC_NAME(dot_block) ? work->depth : k + FC_NAME(dot_block);
        for (; k < end; k++) {
            const T *from = wei + k * work->wei_in;
            vec w[4];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                w[v] =
                    v + 1 < vectors || lanes == FC_VL ? v_load(from + v * FC_VL) : v_load_part(from + v * FC_VL, lanes);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) {
                const vec x = v_set1(src[i * work->src_row + k]);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) sum[i][v] = v_fma(x, w[v], sum[i][v]);
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) total[i][v] = v_add(total[i][v], sum[i][v]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            FC_NAME(dot_store)(work, row + i, out + v * FC_VL, v + 1 < vectors ? FC_VL : lanes, total[i][v]);
}

// Outputs from `first` on, all rows: those stay in the cache, and weights are read from memory but once.
void FC_NAME(dot_along)(const fc_dot *work) {
    for (int64_t o = 0; o < work->outs;) {
        const int64_t outs = work->outs - o >= 4 ? 4 : 1;
        for (int64_t i = 0; i < work->rows;) {
            const int whole = work->rows - i >= FC_DOT_ROWS;
            if (whole && outs == 4) FC_NAME(dot_along_block)(work, i, o, FC_DOT_ROWS, 4);
            else if (whole) FC_NAME(dot_along_block)(work, i, o, FC_DOT_ROWS, 1);
            else if (outs == 4) FC_NAME(dot_along_block)(work, i, o, 1, 4);
            else FC_NAME(dot_along_block)(work, i, o, 1, 1);
            i += whole ? FC_DOT_ROWS : 1;
        }
        o += outs;
    }
}

void FC_NAME(dot_across)(const fc_dot *work) {
    for (int64_t o = 0; o < work->outs;) {
        const int64_t left = work->outs - o;
        const int wide = left >= 4 * FC_VL;
        const int64_t lanes = FC_NAME(lanes_of)(left);
        for (int64_t i = 0; i < work->rows;) {
            const int whole = work->rows - i >= FC_DOT_ROWS;
            if (whole && wide) FC_NAME(dot_across_block)(work, i, o, FC_VL, FC_DOT_ROWS, 4);
            else if (whole) FC_NAME(dot_across_block)(work, i, o, lanes, FC_DOT_ROWS, 1);
            else if (wide) FC_NAME(dot_across_block)(work, i, o, FC_VL, 1, 4);
            else FC_NAME(dot_across_block)(work, i, o, lanes, 1, 1);
            i += whole ? FC_DOT_ROWS : 1;
        }
        o += wide ? 4 * FC_VL : lanes;
    }
}
