// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise_steps.tmpl.c - the gradients of inputs, of 3 x 3 weights and of the bias between single channels, all at once,
// vectors along the channels.  On each side, of stride s,
//
//   d_src[s * u + a - p] = sum over the taps a + s * t of wei[a + s * t] * d_dst[u - t]       0 <= a < s
//   d_wei[a + s * t]    += src[s * u + a - p] * d_dst[u - t]
//
// so that step (u, v) goes through s * s inputs, and through the window of outputs which see those: it moves on by a column,
// in registers, beside the weights and the sums of their gradient.  An input and an output's gradient take part in nine
// products of either kind, and are read once for a row of steps.  An input's gradient is summed in the order of outputs, as
// it is by itself.

// A row of steps, of one vector of channels.
typedef struct FC_NAME(steps_row) {
    const fc_depthwise_steps *work;
    int64_t u, lanes;
    const T *src, *grad, *weights; // of column 0, row 0
    T *dst, *sums, *total;
} FC_NAME(steps_row);

// Any step, whose inputs and outputs may not all exist: sums stand in memory.
FC_INLINE void FC_NAME(steps_edge)(const FC_NAME(steps_row) * row, int64_t v, const int s) {
    const fc_problem *p = row->work->problem;
    const fc_view *result = row->work->result;
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int64_t lanes = row->lanes;
    for (int64_t a = 0; a < s; a++) {
        const int64_t y = s * row->u + a - h->pad;
        if (y < 0 || y >= h->in) continue;
        for (int64_t b = 0; b < s; b++) {
            const int64_t x = s * v + b - w->pad;
            if (x < 0 || x >= w->in) continue;
            const vec in = v_load_part(row->src + y * p->src.axis[1] + x * p->src.axis[2], lanes);
            vec sum = v_set1(0);
            for (int64_t i = a + (2 - a) / s * s; i >= a; i -= s) {
                const int64_t r = row->u - i / s;
                if (r < 0 || r >= h->out) continue;
                for (int64_t j = b + (2 - b) / s * s; j >= b; j -= s) {
                    const int64_t c = v - j / s;
                    if (c < 0 || c >= w->out) continue;
                    const vec grad = v_load_part(row->grad + r * p->dst.axis[1] + c * p->dst.axis[2], lanes);
                    T *to = row->sums + (i * 3 + j) * FC_VL;
                    sum = v_fma(v_load(row->weights + (i * 3 + j) * FC_VL), grad, sum);
                    v_store(to, v_fma(in, grad, v_load(to)));
                    if (i == 1 && j == 1) v_store(row->total, v_add(v_load(row->total), grad));
                }
            }
            v_store_part(row->dst + y * result->axis[1] + x * result->axis[2], v_one_nan(sum), lanes);
        }
    }
}

// What is in registers from step to step.  Where those are few the window is read anew at each step, and the weights are
// operands in memory.
typedef struct FC_NAME(steps_sums) {
    vec window[3][3], weight[9], sum[9], total;
} FC_NAME(steps_sums);

// A step of whole vectors, which moves on to the next: by the columns [c0, c1) of its window, and by those of its rows that exist,
// for outputs r0 to r1 and for inputs a0 to a1.
FC_INLINE void FC_NAME(steps_next)(const FC_NAME(steps_row) * row, const T **grad, const T **src, T **dst,
                                   FC_NAME(steps_sums) * at, int r0, int r1, int a0, int a1, const int s, const int c0,
                                   const int c1) {
    const fc_problem *p = row->work->problem;
    const fc_view *result = row->work->result;
    const int n = (3 - 1) / s + 1, many = FC_MR * FC_NV >= 24, centre = n - 1 - 1 / s;
    const int64_t across = p->dst.axis[2];
    const T *column = *grad;
#pragma GCC unroll 3
    for (int r = 0; r < n; r++, column += p->dst.axis[1]) {
        FC_WALK(column);
        if (r < r0 || r >= r1) continue;
#pragma GCC unroll 3
        for (int c = c0; c < c1; c++)
            if (many && c < n - 1) at->window[r][c] = at->window[r][c + 1];
            else at->window[r][c] = v_load(column - (n - 1 - c) * across);
        if (r == centre && c0 <= centre && centre < c1) at->total = v_add(at->total, at->window[r][centre]);
    }
    __builtin_prefetch(column, 0, 2);
#pragma GCC unroll 2
    for (int a = 0; a < s; a++) {
        if (a < a0 || a >= a1) continue;
#pragma GCC unroll 2
        for (int b = 0; b < s; b++) {
            const T *from = *src + a * p->src.axis[1] + b * p->src.axis[2];
            __builtin_prefetch(from + s * p->src.axis[1], 0, 2);
            const vec in = v_load(from);
            vec sum = v_set1(0);
#pragma GCC unroll 3
            for (int i = a + (2 - a) / s * s; i >= a; i -= s) {
                const int r = n - 1 - i / s;
                if (r < r0 || r >= r1) continue;
#pragma GCC unroll 3
                for (int j = b + (2 - b) / s * s; j >= b; j -= s) {
                    const int t = i * 3 + j, c = n - 1 - j / s;
                    if (c < c0 || c >= c1) continue;
                    sum = v_fma(many ? at->weight[t] : v_load(row->weights + t * FC_VL), at->window[r][c], sum);
                    at->sum[t] = v_fma(in, at->window[r][c], at->sum[t]);
                }
            }
            v_store(*dst + a * result->axis[1] + b * result->axis[2], v_one_nan(sum));
        }
    }
    *grad += across;
    *src += s * p->src.axis[2];
    *dst += s * result->axis[2];
}

// Steps [v, end) of whole vectors, all of whose inputs exist, and all columns of their windows but perhaps the first of the
// first step and the last of the last.
FC_INLINE void FC_NAME(steps_inside)(const FC_NAME(steps_row) * row, int64_t v, int64_t end, const int s) {
    const fc_problem *p = row->work->problem;
    const fc_view *result = row->work->result;
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int n = (3 - 1) / s + 1, many = FC_MR * FC_NV >= 24;
    const int64_t y = s * row->u - h->pad, x = s * v - w->pad, top = row->u - n + 1;
    int r0 = top < 0 ? (int)-top : 0, r1 = h->out - top < n ? (int)(h->out - top) : n;
    int a0 = y < 0 ? (int)-y : 0, a1 = h->in - y < s ? (int)(h->in - y) : s;
    const T *src = row->src + y * p->src.axis[1] + x * p->src.axis[2];
    const T *grad = row->grad + top * p->dst.axis[1] + v * p->dst.axis[2];
    T *dst = row->dst + y * result->axis[1] + x * result->axis[2];
    FC_NAME(steps_sums) at = {.total = v_set1(0)};
#pragma GCC unroll 9
    for (int t = 0; t < 9; t++) {
        at.sum[t] = v_set1(0);
        if (many) at.weight[t] = v_load(row->weights + t * FC_VL);
    }
#pragma GCC unroll 3
    for (int r = 0; r < n && many; r++)
#pragma GCC unroll 3
        for (int c = 1; c < n; c++)
            at.window[r][c] = r >= r0 && r < r1 && v - n + c >= 0
                                  ? v_load(grad + r * p->dst.axis[1] - (n - c) * p->dst.axis[2])
                                  : v_set1(0);
    const int last = end > w->out;
    if (v < n - 1) {
        FC_NAME(steps_next)(row, &grad, &src, &dst, &at, r0, r1, a0, a1, s, 1, n);
        v++;
    }
    for (; v < end - last; v++) {
        // Without this the compiler makes a loop for each case.
        __asm__("" : "+r"(r0), "+r"(r1), "+r"(a0), "+r"(a1));
        FC_NAME(steps_next)(row, &grad, &src, &dst, &at, r0, r1, a0, a1, s, 0, n);
    }
    if (last) FC_NAME(steps_next)(row, &grad, &src, &dst, &at, r0, r1, a0, a1, s, 0, n - 1);
#pragma GCC unroll 9
    for (int t = 0; t < 9; t++) {
        T *to = row->sums + t * FC_VL;
        v_store(to, v_add(v_load(to), at.sum[t]));
    }
    v_store(row->total, v_add(v_load(row->total), at.total));
}

FC_INLINE void FC_NAME(steps)(const fc_depthwise_steps *work, const int s) {
    const fc_axis *w = &work->problem->axis[2];
    // Steps [first, last), of which [low, high) have all inputs, and lack a column of outputs at most.
    const int64_t first = w->pad / s, last = (w->in - 1 + w->pad) / s + 1, back = (3 - 1) / s - 1;
    const int64_t whole = (w->in + w->pad) / s, reach = w->out + 1 < whole ? w->out + 1 : whole;
    const int64_t low = (w->pad + s - 1) / s > back ? (w->pad + s - 1) / s : back, high = reach < low + 2 ? low : reach;
    for (int64_t u = work->row; u < work->end; u++)
        for (int64_t c = 0; c < work->channels; c += FC_VL) {
            const FC_NAME(steps_row) row = {
                .work = work,
                .u = u,
                .lanes = FC_NAME(lanes_of)(work->channels - c),
                .src = (const T *)work->src + c,
                .grad = (const T *)work->grad + c,
                .weights = (const T *)work->weights + 9 * c,
                .dst = (T *)work->dst + c,
                .sums = (T *)work->sums + 9 * c,
                .total = (T *)work->totals + c,
            };
            int64_t v = first;
            if (row.lanes == FC_VL && low < high) {
                for (; v < low; v++) FC_NAME(steps_edge)(&row, v, s);
                for (int64_t next; v < high; v = next) {
                    next = high - v > FC_NAME(steps_run) ? v + FC_NAME(steps_run) - 2 : high;
                    FC_NAME(steps_inside)(&row, v, next, s);
                }
            }
            for (; v < last; v++) FC_NAME(steps_edge)(&row, v, s);
        }
}

// Steps of one column after the other; strides of one and two.
void FC_NAME(depthwise_steps)(const fc_depthwise_steps *work) {
    const fc_axis *w = &work->problem->axis[2];
    if (FC_KNOWN_SIZES && FC_MR * FC_NV >= 24 && w->kernel > 3) FC_NAME(lines)(work);
    else if (w->stride == 1) FC_NAME(steps)(work, 1);
    else FC_NAME(steps)(work, 2);
}
