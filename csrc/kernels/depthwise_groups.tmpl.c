// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise_groups.tmpl.c - rows of a convolution of small groups, vectors along the channels of several, without dilation along
// the row.
//
// Input q of each group is spread over its lanes, a permutation, and then meets all outputs and taps of a row that see it: a
// window's inputs stay in 32 registers beside its sums.  In 16, where each is loaded and spread anew for a half of the window or
// for all of it, this took up to 1.3 times as long as runs.  All taps are summed in one order, so a pixel's bits do not depend
// on where it stands.

enum {
    FC_NAME(group_taps) = 3,   // of a row, together
    FC_NAME(group_pixels) = 8, // outputs of a window; half of them where they are two columns apart
};

// What `taps` neighbouring taps add to the sums of neighbouring outputs, `apart` columns apart, the first of which sees column 0
// of `in` by the first of these.  At a border lanes are fewer, and columns outside of [low, high) do not exist.
FC_INLINE void FC_NAME(group_row)(const T *in, int64_t step, int64_t low, int64_t high, int64_t lanes, const T *tap,
                                  const int size, vec *sum, const int taps, const int apart, const int border) {
    const int pixels = FC_NAME(group_pixels) / apart, columns = (pixels - 1) * apart + taps;
    vec column[10];
#pragma GCC unroll 10
    for (int c = 0; c < columns; c++, in += step) {
        FC_WALK(in);
        if (!border) column[c] = v_load(in);
        else column[c] = c >= low && c < high ? v_load_part(in, lanes) : v_set1(0);
    }
    for (int q = 0; q < size; q++, tap += FC_VL) {
        vec weight[FC_NAME(group_taps)];
#pragma GCC unroll 3
        for (int k = 0; k < taps; k++) weight[k] = v_load(tap + k * size * FC_VL);
#pragma GCC unroll 10
        for (int c = 0; c < columns; c++) {
            if (border && (c < low || c >= high)) continue;
            const vec x = v_spread(column[c], size, q);
#pragma GCC unroll 3
            for (int k = 0; k < taps; k++)
                if (c >= k && (c - k) % apart == 0 && (c - k) / apart < pixels)
                    sum[(c - k) / apart] = v_fma(weight[k], x, sum[(c - k) / apart]);
        }
    }
}

// The outputs of a box of one row and one vector.
FC_INLINE void FC_NAME(group_window)(const fc_depthwise_rows *work, const FC_NAME(box) * at, int64_t d0, int64_t d1,
                                     const int apart, const int border) {
    enum { TAPS = FC_NAME(group_taps) };
    const fc_problem *p = work->problem;
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int size = (int)p->in_channels, pixels = FC_NAME(group_pixels) / apart;
    const int64_t step = p->src.axis[2], left = at->x * apart - w->pad;
    const T *weights = (const T *)work->weights + at->c * work->taps * size;
    const int64_t some = at->width < pixels ? at->width : pixels;
    int64_t h0, h1;
    FC_NAME(taps_inside)(h, at->y, &h0, &h1);
    vec sum[FC_NAME(group_pixels)];
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++) sum[i] = v_set1(0);
    for (int64_t i = d0; i < d1; i++)
        for (int64_t j = h0; j < h1; j++) {
            const T *in = FC_NAME(depthwise_input)(work, at->y, at->x, i, j, 0) + at->c;
            const T *tap = weights + (i * h->kernel + j) * w->kernel * size * FC_VL;
            int64_t low = -left, high = w->in - left, k = 0;
            for (; k + TAPS <= w->kernel; k += TAPS, low -= TAPS, high -= TAPS, in += TAPS * step) {
                FC_NAME(group_row)(in, step, low, high, at->lanes, tap, size, sum, TAPS, apart, border);
                tap += TAPS * size * FC_VL;
            }
            if (w->kernel - k == 2)
                FC_NAME(group_row)(in, step, low, high, at->lanes, tap, size, sum, 2, apart, border);
            if (w->kernel - k == 1)
                FC_NAME(group_row)(in, step, low, high, at->lanes, tap, size, sum, 1, apart, border);
        }
    FC_NAME(depthwise_end) end = FC_NAME(depthwise_end_at)(work, at->y, at->x);
    const T *bias = (const T *)work->bias + at->c;
    const int64_t lanes = border ? at->lanes : FC_VL;
    FC_NAME(depthwise_finish)(&end, at->c, sum, border ? v_load_part(bias, lanes) : v_load(bias), pixels, some, 1,
                              lanes);
    FC_NAME(depthwise_written)(&end, at->c, lanes, some, 1, 0);
}

// One vector of channels after the other, whose taps stay in L1.
FC_INLINE void FC_NAME(group_windows)(const fc_depthwise_rows *work, const int apart) {
    const fc_problem *p = work->problem;
    const fc_axis *w = &p->axis[2];
    const int pixels = FC_NAME(group_pixels) / apart;
    const int64_t channels = p->groups * p->in_channels, reach = (pixels - 1) * apart + w->kernel;
    int64_t d0, d1;
    FC_NAME(taps_inside)(&p->axis[0], work->d, &d0, &d1);
    FC_NAME(box) at = {.height = 1};
    for (at.c = 0; at.c < channels; at.c += FC_VL) {
        at.lanes = FC_NAME(lanes_of)(channels - at.c);
        for (at.y = work->h; at.y < work->h + work->rows; at.y++)
            for (at.x = 0; at.x < w->out; at.x += pixels) {
                const int64_t left = at.x * apart - w->pad;
                at.width = w->out - at.x;
                if (at.lanes == FC_VL && at.width >= pixels && left >= 0 && left + reach <= w->in)
                    FC_NAME(group_window)(work, &at, d0, d1, apart, 0);
                else FC_NAME(group_window)(work, &at, d0, d1, apart, 1);
            }
    }
}

// Whether those have windows.
FC_INLINE int FC_NAME(has_windows)(const fc_axis *w) {
    return FC_MR * FC_NV >= 24 && w->kernel > 1 && w->dilation == 1 && w->stride <= 2;
}

FC_BODY void FC_NAME(depthwise_groups)(const fc_depthwise_rows *work) {
    if (work->problem->axis[2].stride == 1) FC_NAME(group_windows)(work, 1);
    else FC_NAME(group_windows)(work, 2);
}
