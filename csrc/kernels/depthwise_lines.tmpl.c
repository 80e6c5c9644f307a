// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise_lines.tmpl.c - the gradients of depthwise_steps.tmpl.c of more taps than there are registers, of which there are 32.
// A row of inputs is gone through once for each row of taps that sees it, or for two of five: their sums stand in registers,
// beside the window of outputs that moves on by a column with each step.  The inputs' gradients are read and written again by
// each line, in the first-level cache, in the order in which they are summed by themselves.
//
// Tensors that come from memory took up to 1.5 times as long where the next rows were not asked for.  In 16 registers, with the
// weights as operands in memory, short lines took up to 1.5 times as long as by phases.

// Numbers that are added one after the other, here and in depthwise_steps.tmpl.c.
enum { FC_NAME(steps_run) = 512 };

enum { FC_NAME(line_taps) = 7 }; // of a row at most

// A row of inputs, and rows of taps by which it sees as many rows of outputs, of one vector of channels.
typedef struct FC_NAME(line) {
    const fc_depthwise_steps *work;
    int64_t lanes;
    const T *src, *grad, *begin; // column 0; the first row of outputs, behind which the others follow
    int64_t begin_step;          // what inputs' gradients start from, from column to column
    const T *weights;            // of the first row of taps, above which the others follow
    T *dst, *sums;
} FC_NAME(line);

// Where a line is, from column to column, and what is in registers.
typedef struct FC_NAME(line_at) {
    const T *src, *grad, *begin;
    T *dst;
    int64_t src_step, grad_step, begin_step, dst_step;
    vec window[2][FC_NAME(line_taps)], weight[2][FC_NAME(line_taps)], sum[2][FC_NAME(line_taps)];
} FC_NAME(line_at);

// Step v, which asks for the next rows.  At a border lanes may be fewer, and inputs and outputs may not exist.
FC_INLINE void FC_NAME(line_step)(const FC_NAME(line) * line, FC_NAME(line_at) * at, int64_t v, const int rows,
                                  const int taps, const int s, const int border) {
    const fc_problem *p = line->work->problem;
    const fc_axis *w = &p->axis[2];
    const int n = (taps - 1) / s + 1, held = rows * (2 * taps + n) <= 27; // weights
    const T *column = at->grad;
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++, column += p->dst.axis[1]) {
#pragma GCC unroll 7
        for (int c = 0; c < n - 1; c++) at->window[r][c] = at->window[r][c + 1];
        if (!border) at->window[r][n - 1] = v_load(column);
        else at->window[r][n - 1] = v < w->out ? v_load_part(column, line->lanes) : v_set1(0);
    }
    if (!border) __builtin_prefetch(column, 0, 2);
    at->grad += at->grad_step;
#pragma GCC unroll 2
    for (int b = 0; b < s; b++) {
        const int64_t x = s * v + b - w->pad;
        if (!border || (x >= 0 && x < w->in)) {
            if (!border) __builtin_prefetch(at->src + s * p->src.axis[1], 0, 2);
            const vec in = border ? v_load_part(at->src, line->lanes) : v_load(at->src);
            vec sum = border ? v_load_part(at->begin, line->lanes) : v_load(at->begin);
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 7
                for (int j = b + (taps - 1 - b) / s * s; j >= b; j -= s) {
                    const int c = n - 1 - j / s;
                    if (border && (v < j / s || v - j / s >= w->out)) continue;
                    const vec weight = held ? at->weight[r][j] : v_load(line->weights + (j - r * s * taps) * FC_VL);
                    sum = v_fma(weight, at->window[r][c], sum);
                    at->sum[r][j] = v_fma(in, at->window[r][c], at->sum[r][j]);
                }
            if (border) v_store_part(at->dst, sum, line->lanes);
            else v_store(at->dst, sum);
        }
        at->src += at->src_step;
        at->begin += at->begin_step;
        at->dst += at->dst_step;
    }
}

FC_INLINE void FC_NAME(line_steps)(const FC_NAME(line) * line, const int rows, const int taps, const int s) {
    const fc_problem *p = line->work->problem;
    const fc_axis *w = &p->axis[2];
    const int n = (taps - 1) / s + 1;
    // Steps [low, high) have whole vectors of all inputs and outputs.
    const int64_t last = (w->in - 1 + w->pad) / s + 1, whole = (w->in + w->pad) / s;
    const int64_t low = (w->pad + s - 1) / s > n - 1 ? (w->pad + s - 1) / s : n - 1;
    const int64_t reach = whole < w->out ? whole : w->out, high = line->lanes == FC_VL && reach > low ? reach : low;
    FC_NAME(line_at)
    at = {
        .src_step = p->src.axis[2],
        .grad_step = p->dst.axis[2],
        .begin_step = line->begin_step,
        .dst_step = line->work->result->axis[2],
    };
    at.src = line->src - w->pad * at.src_step;
    at.grad = line->grad;
    at.begin = line->begin - w->pad * at.begin_step;
    at.dst = line->dst - w->pad * at.dst_step;
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 7
        for (int c = 0; c < n; c++) at.window[r][c] = v_set1(0);
#pragma GCC unroll 7
        for (int j = 0; j < taps; j++) {
            at.sum[r][j] = v_set1(0);
            at.weight[r][j] = v_load(line->weights + (j - r * s * taps) * FC_VL);
        }
    }
    for (int64_t v = 0, begin = 0; v < last;) {
        const int64_t end = last - begin < FC_NAME(steps_run) ? last : begin + FC_NAME(steps_run);
        if (v >= low && v < high) {
            const int64_t stop = end < high ? end : high;
            for (; v < stop; v++) FC_NAME(line_step)(line, &at, v, rows, taps, s, 0);
        } else {
            const int64_t stop = v < low && low < end ? low : end;
            for (; v < stop; v++) FC_NAME(line_step)(line, &at, v, rows, taps, s, 1);
        }
        if (v < end) continue;
        begin = v;
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 7
            for (int j = 0; j < taps; j++) {
                T *to = line->sums + (j - r * s * taps) * FC_VL;
                v_store(to, v_add(v_load(to), at.sum[r][j]));
                at.sum[r][j] = v_set1(0);
            }
    }
}

// One NaN in a row of inputs' gradients, of which there may be no sum at all.
FC_INLINE void FC_NAME(line_end)(const FC_NAME(line) * line) {
    const int64_t step = line->work->result->axis[2], in = line->work->problem->axis[2].in;
    vec seen = v_set1(1);
    T *dst = line->dst;
    for (int64_t x = 0; x < in; x++, dst += step) {
        if (line->begin_step == 0) v_store_part(dst, v_set1(0), line->lanes);
        const vec value = v_load_part(dst, line->lanes);
        seen = FC_NAME(look)(seen, value, value);
    }
    if (FC_NAME(saw_nan)(seen)) FC_NAME(one_nan)(line->dst, line->lanes, 1, in, step);
}

#define FC_LINES(rows, taps, apart)                                                                                    \
    FC_BODY void FC_NAME(lines_##rows##_##taps##_##apart)(const FC_NAME(line) * line) {                                \
        FC_NAME(line_steps)(line, rows, taps, apart);                                                                  \
    }
FC_LINES(1, 5, 1)
FC_LINES(2, 5, 1)
FC_LINES(1, 5, 2)
FC_LINES(2, 5, 2)
FC_LINES(1, 7, 1)
#undef FC_LINES

// What row r of outputs adds to the bias' gradient, lanes that there are.
FC_INLINE void FC_NAME(line_total)(const fc_depthwise_steps *work, int64_t r, int64_t c, int64_t lanes) {
    const fc_problem *p = work->problem;
    const T *grad = (const T *)work->grad + r * p->dst.axis[1] + c;
    T *total = (T *)work->totals + c;
    vec sum = v_set1(0);
    for (int64_t x = 0; x < p->axis[2].out; x++, grad += p->dst.axis[2]) sum = v_add(sum, v_load_part(grad, lanes));
    v_store(total, v_add(v_load(total), sum));
}

FC_INLINE void FC_NAME(lines)(const fc_depthwise_steps *work) {
    const fc_problem *p = work->problem;
    const fc_view *result = work->result;
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int64_t s = h->stride, tap_row = w->kernel * FC_VL;
    const T none[FC_VL] = {0};
    for (int64_t u = work->row; u < work->end; u++)
        for (int64_t c = 0; c < work->channels; c += FC_VL)
            for (int64_t a = 0; a < s; a++) {
                const int64_t y = s * u + a - h->pad;
                if (y < 0 || y >= h->in) continue;
                FC_NAME(line)
                line = {
                    .work = work,
                    .lanes = FC_NAME(lanes_of)(work->channels - c),
                    .src = (const T *)work->src + y * p->src.axis[1] + c,
                    .begin = none,
                    .dst = (T *)work->dst + y * result->axis[1] + c,
                };
                // Rows [t0, t1) of the taps that see row y, and so outputs u - t.
                int64_t t1 = (h->kernel - 1 - a) / s + 1;
                if (t1 > u + 1) t1 = u + 1;
                const int64_t t0 = u - h->out + 1 > 0 ? u - h->out + 1 : 0;
                const int64_t middle = h->kernel / 2, r = u - middle / s;
                if (a == middle % s && r >= 0 && r < h->out) FC_NAME(line_total)(work, r, c, line.lanes);
                for (int64_t t = t1 - 1, rows; t >= t0; t -= rows) {
                    const int64_t i = a + s * t, at = c * h->kernel * w->kernel + i * tap_row;
                    rows = w->kernel == 5 && t > t0 ? 2 : 1;
                    line.grad = (const T *)work->grad + (u - t) * p->dst.axis[1] + c;
                    line.weights = (const T *)work->weights + at;
                    line.sums = (T *)work->sums + at;
                    if (w->kernel == 7) FC_NAME(lines_1_7_1)(&line);
                    else if (w->stride == 1 && rows == 2) FC_NAME(lines_2_5_1)(&line);
                    else if (w->stride == 1) FC_NAME(lines_1_5_1)(&line);
                    else if (rows == 2) FC_NAME(lines_2_5_2)(&line);
                    else FC_NAME(lines_1_5_2)(&line);
                    line.begin = line.dst;
                    line.begin_step = result->axis[2];
                }
                FC_NAME(line_end)(&line);
            }
}
