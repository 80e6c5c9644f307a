// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise_tall.tmpl.c - rows of a convolution of one input channel or a few by a tall kernel, from padded rows
// (conv/padded.c): tiles of the stencil, which load each input once for six rows of outputs.  Rows in place take a load for
// two multiply-adds, and those of wide images share few sets of the first-level cache: a half of the peak, and less.

// Six rows of `count` vectors of outputs from row `r` of the work and column x on; those that there are are stored.
FC_INLINE void FC_NAME(tall_block)(const fc_depthwise_rows *work, int64_t r, int64_t x, const int count) {
    const fc_problem *p = work->problem;
    const int64_t height = p->axis[1].kernel, width = p->axis[2].kernel, pitch = work->pitch;
    const int64_t planes = p->in_channels * p->axis[0].kernel, taps = height * width;
    const T *wei = (const T *)work->weights + work->channel * planes * taps;
    vec sum[6][4];
#pragma GCC unroll 6
    for (int o = 0; o < 6; o++)
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) sum[o][v] = v_set1(0);
    for (int64_t i = 0; i < planes; i++, wei += taps) {
        const T *in = (const T *)work->src + work->tap_offset[i * taps] + r * pitch + x;
#define FC_INPUT_ROW(t, from, to)                                                                                      \
    FC_NAME(stencil_row)(sum, in + (t) * pitch, wei + (t), width, height, from, to, count, 1)
        FC_STENCIL_INPUTS(FC_INPUT_ROW, FC_STENCIL_ROWS, height)
#undef FC_INPUT_ROW
    }
    const FC_NAME(plane) plane = {.work = work, .bias = v_set1(((const T *)work->bias)[work->channel])};
    FC_NAME(spot) at = {.y = work->h + r, .x = x, .height = work->rows - r};
    T lane[4][6 * FC_VL]; // in memory, so that there is one loop that stores
#pragma GCC unroll 4
    for (int v = 0; v < count; v++)
#pragma GCC unroll 6
        for (int o = 0; o < 6; o++) v_store(lane[v] + o * FC_VL, sum[o][v]);
#pragma GCC unroll 1
    for (int v = 0; v < count; v++, at.x += FC_VL) {
        vec column[6];
#pragma GCC unroll 6
        for (int o = 0; o < 6; o++) column[o] = v_load(lane[v] + o * FC_VL);
        at.lanes = FC_NAME(lanes_of)(p->axis[2].out - at.x);
        FC_NAME(depthwise_store)(&plane, at, column, 6);
    }
}

void FC_NAME(depthwise_tall)(const fc_depthwise_rows *work) {
    const int64_t columns = work->problem->axis[2].out;
    for (int64_t r = 0; r < work->rows; r += 6)
        for (int64_t x = 0; x < columns;) {
            const int wide = columns - x > (FC_NAME(stencil_count) - 1) * FC_VL;
            if (wide) FC_NAME(tall_block)(work, r, x, FC_NAME(stencil_count));
            else FC_NAME(tall_block)(work, r, x, 1);
            x += (wide ? FC_NAME(stencil_count) : 1) * FC_VL;
        }
}
