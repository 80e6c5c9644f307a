// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise_grad.tmpl.c - the gradient of the weights between single channels: d_wei[tap] = sum over outputs x of
// grad[x] * src[x * s - p + tap * e].
//
// What is summed stands in registers while a vector of inputs is read once for all of its products; and it is added to
// the caller's sums where a strip of columns, or a row, ends, so that no chain of additions is long.

// Rows of outputs of one plane, for the rows of taps of one pass.
typedef struct FC_NAME(grad_rows) {
    const fc_problem *problem;
    const T *src, *grad;  // the planes
    T *sums;              // of the pass' first tap
    int64_t first, end;   // output rows
    int64_t top, left;    // where the pass' first tap of output row 0 and column 0 lies
    int64_t over;         // input rows from output row to output row
    int64_t across, step; // input columns from output to output, and from tap to tap
    int64_t tap_row;      // sums from row to row of taps
    int64_t taps;         // rows of taps, where a pass has a number of its own
} FC_NAME(grad_rows);

// ------------------------------------------------------------------------------------------------------- over pixels

// A strip of a vector's columns, and the elements of each tap's inputs that exist, as row_masked wants them.
typedef struct FC_NAME(grad_strip) {
    int64_t x, lanes;
    vmask low[5], high[5];
} FC_NAME(grad_strip);

// What one input row adds: row `a` of the taps and every apart-th behind it, to output row q and those before it.  At an
// edge of the rows some of them are others' to sum.
FC_INLINE void FC_NAME(grad_row)(const FC_NAME(grad_rows) * work, const FC_NAME(grad_strip) * at, const T *row,
                                 const vec *grad, vec *sum, int64_t q, const int a, const int border, const int edge,
                                 const int rows, const int columns, const int apart) {
#pragma GCC unroll 5
    for (int k = 0; k < columns; k++) {
        const T *from = row + k * work->step;
        vec in = border ? FC_NAME(row_masked)(from, at->low[k], at->high[k], apart) : FC_NAME(row_load)(from, apart);
        FC_KEEP(in);
#pragma GCC unroll 5
        for (int i = 0; i * apart + a < rows; i++)
            if (!edge || (q - i >= work->first && q - i < work->end)) {
                const int t = (i * apart + a) * columns + k;
                sum[t] = v_fma(grad[i], in, sum[t]);
            }
    }
}

// Down the rows of a strip.  Each input row is read once: it meets the last few rows of grad, which are at hand.
FC_INLINE void FC_NAME(grad_down)(const FC_NAME(grad_rows) * work, const FC_NAME(grad_strip) * at, const int border,
                                  const int rows, const int columns, const int apart) {
    const fc_problem *p = work->problem;
    const int window = (rows - 1) / apart + 1;
    vec sum[FC_MR * FC_NV], grad[5];
#pragma GCC unroll 32
    for (int t = 0; t < rows * columns; t++) sum[t] = v_set1(0);
#pragma GCC unroll 5
    for (int i = 0; i < window; i++) grad[i] = v_set1(0);
    for (int64_t q = work->first; q < work->end + window - 1; q++) {
#pragma GCC unroll 5
        for (int i = window - 1; i > 0; i--) grad[i] = grad[i - 1];
        if (q < work->end) {
            const T *from = work->grad + q * p->dst.axis[1] + at->x;
            grad[0] = border ? v_load_part(from, at->lanes) : v_load(from);
        }
        const int edge = q - window + 1 < work->first || q >= work->end;
        const int64_t top = work->top + q * work->over;
        const T *row = work->src + top * p->src.axis[1] + work->left + at->x * apart;
#pragma GCC unroll 2
        for (int a = 0; a < apart && a < rows; a++, row += p->src.axis[1]) {
            if (top + a < 0 || top + a >= p->axis[1].in) continue;
            if (edge) FC_NAME(grad_row)(work, at, row, grad, sum, q, a, border, 1, rows, columns, apart);
            else FC_NAME(grad_row)(work, at, row, grad, sum, q, a, border, 0, rows, columns, apart);
        }
    }
#pragma GCC unroll 5
    for (int j = 0; j < rows; j++)
#pragma GCC unroll 5
        for (int k = 0; k < columns; k++) {
            T *to = work->sums + j * work->tap_row + k * FC_VL;
            v_store(to, v_add(v_load(to), sum[j * columns + k]));
        }
}

// One pass: `rows` x `columns` taps over all strips; outputs are `apart` columns of the input apart, and, if there are
// several rows of taps, which are neighbours then, as many rows.
FC_INLINE void FC_NAME(grad_pass)(const FC_NAME(grad_rows) * work, const int rows, const int columns, const int apart) {
    const fc_axis *w = &work->problem->axis[2];
    for (int64_t x = 0; x < w->out; x += FC_VL) {
        FC_NAME(grad_strip) at = {.x = x, .lanes = FC_NAME(lanes_of)(w->out - x)};
        const int64_t left = work->left + x * apart, span = (at.lanes - 1) * apart;
        if (at.lanes == FC_VL && left >= 0 && left + span + (columns - 1) * work->step < w->in) {
            FC_NAME(grad_down)(work, &at, 0, rows, columns, apart);
            continue;
        }
        for (int k = 0; k < columns; k++) {
            const int64_t from = left + k * work->step, to = from + span < w->in ? span + 1 : w->in - from;
            at.low[k] = v_lanes(-from, to);
            at.high[k] = v_lanes(-from - FC_VL, to - FC_VL);
        }
        FC_NAME(grad_down)(work, &at, 1, rows, columns, apart);
    }
}

// Any steps between columns: each tap's outputs that see the image, in vectors of their own.
FC_INLINE void FC_NAME(grad_apart)(const FC_NAME(grad_rows) * work) {
    const fc_problem *p = work->problem;
    const fc_axis *w = &p->axis[2];
    const int64_t grad_step = p->dst.axis[2], src_step = work->across * p->src.axis[2];
    T *to = work->sums;
    for (int64_t k = 0; k < w->kernel; k++, to += FC_VL) {
        const int64_t from = work->left + k * work->step, s = work->across;
        const int64_t low = from < 0 ? (-from + s - 1) / s : 0;
        const int64_t high = from < w->in ? (w->in - 1 - from) / s + 1 : 0;
        for (int64_t y = work->first; y < work->end; y++) {
            const int64_t top = work->top + y * work->over;
            if (top < 0 || top >= p->axis[1].in) continue;
            const T *grad = work->grad + y * p->dst.axis[1];
            const T *src = work->src + top * p->src.axis[1] + from * p->src.axis[2];
            vec sum = v_set1(0);
            for (int64_t x = low; x < high && x < w->out; x += FC_VL) {
                int64_t n = high < w->out ? high - x : w->out - x;
                if (n > FC_VL) n = FC_VL;
                sum = v_fma(FC_NAME(load_row)(grad + x * grad_step, n, grad_step),
                            FC_NAME(load_row)(src + x * src_step, n, src_step), sum);
            }
            v_store(to, v_add(v_load(to), sum));
        }
    }
}

// The taps of one plane, in passes of as many as there are registers for.
FC_INLINE void FC_NAME(grad_passes)(FC_NAME(grad_rows) work, const int taps, const int apart) {
    const fc_axis *h = &work.problem->axis[1], *w = &work.problem->axis[2];
    const int reach = taps * taps <= FC_MR * FC_NV ? taps : FC_MR * FC_NV / taps;
    int64_t j = 0;
    T *sums = work.sums;
    const int64_t top = work.top, left = work.left;
    if (taps > 1) {
        work.step = 1; // what it is; here the compiler sees it
        for (; j + reach <= h->kernel; j += reach) {
            work.sums = sums + j * work.tap_row;
            work.top = top + j;
            FC_NAME(grad_pass)(&work, reach, taps, apart);
        }
    }
    for (; j < h->kernel; j++) {
        work.top = top + j * h->dilation;
        work.sums = sums + j * work.tap_row;
        if (taps > 1) {
            FC_NAME(grad_pass)(&work, 1, taps, apart);
            continue;
        }
        int64_t k = 0;
        for (; k + 4 <= w->kernel; k += 4, work.sums += 4 * FC_VL) {
            work.left = left + k * work.step;
            FC_NAME(grad_pass)(&work, 1, 4, apart);
        }
        for (; k < w->kernel; k++, work.sums += FC_VL) {
            work.left = left + k * work.step;
            FC_NAME(grad_pass)(&work, 1, 1, apart);
        }
    }
}

#define FC_GRAD_PASSES(taps, apart)                                                                                    \
    FC_BODY void FC_NAME(grad_passes_##taps##_##apart)(const FC_NAME(grad_rows) * work) {                              \
        FC_NAME(grad_passes)(*work, taps, apart);                                                                      \
    }
FC_GRAD_PASSES(1, 1)
FC_GRAD_PASSES(1, 2)
FC_GRAD_PASSES(3, 1)
FC_GRAD_PASSES(3, 2)
FC_GRAD_PASSES(5, 1)
FC_GRAD_PASSES(5, 2)
#undef FC_GRAD_PASSES

// The taps of one plane whose columns, of either operand, are no neighbours.
FC_BODY void FC_NAME(grad_plane_apart)(const FC_NAME(grad_rows) * plane) {
    const fc_axis *h = &plane->problem->axis[1];
    FC_NAME(grad_rows) work = *plane;
    for (int64_t j = 0; j < h->kernel; j++, work.top += h->dilation, work.sums += work.tap_row)
        FC_NAME(grad_apart)(&work);
}

FC_INLINE void FC_NAME(grad_plane)(const FC_NAME(grad_rows) * work) {
    const fc_problem *p = work->problem;
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int taps = h->dilation == 1 && w->dilation == 1 && h->stride == w->stride ? (int)w->kernel : 1;
    if (p->src.axis[2] != 1 || p->dst.axis[2] != 1 || w->stride > 2) FC_NAME(grad_plane_apart)(work);
    else if (taps == 3 && FC_VL > 1 && w->stride == 1) FC_NAME(grad_passes_3_1)(work);
    else if (taps == 3 && FC_KNOWN_SIZES) FC_NAME(grad_passes_3_2)(work);
    else if (taps == 5 && FC_KNOWN_SIZES && w->stride == 1) FC_NAME(grad_passes_5_1)(work);
    else if (taps == 5 && FC_KNOWN_SIZES) FC_NAME(grad_passes_5_2)(work);
    else if (w->stride == 1) FC_NAME(grad_passes_1_1)(work);
    else FC_NAME(grad_passes_1_2)(work);
}

// Goes through the planes of a range of output rows, and each d of the taps that reads inside of the image: `call` is what
// becomes of `rows`.
#define FC_GRAD_PLANES(call)                                                                                           \
    const fc_problem *p = work->problem;                                                                               \
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];                                                \
    FC_NAME(grad_rows)                                                                                                 \
    rows = {.problem = p,                                                                                              \
            .top = -h->pad,                                                                                            \
            .left = -w->pad,                                                                                           \
            .over = h->stride,                                                                                         \
            .across = w->stride,                                                                                       \
            .step = w->dilation,                                                                                       \
            .tap_row = work->tap * w->kernel};                                                                         \
    for (int64_t row = work->row; row < work->end; row += rows.end - rows.first) {                                     \
        const int64_t plane = row / h->out, image = plane / d->out, at = plane % d->out, left = work->end - row;       \
        rows.first = row % h->out;                                                                                     \
        rows.end = left < h->out - rows.first ? rows.first + left : h->out;                                            \
        rows.grad = (const T *)work->grad + image * p->dst.outer + at * p->dst.axis[0];                                \
        int64_t low, high;                                                                                             \
        FC_NAME(taps_inside)(d, at, &low, &high);                                                                      \
        for (int64_t i = low; i < high; i++) {                                                                         \
            const int64_t depth = at * d->stride - d->pad + i * d->dilation;                                           \
            rows.src = (const T *)work->src + image * p->src.outer + depth * p->src.axis[0];                           \
            rows.sums = (T *)work->sums + i * h->kernel * rows.tap_row;                                                \
            call;                                                                                                      \
        }                                                                                                              \
    }

// Sums [tap][lane].
void FC_NAME(depthwise_grad_pixels)(const fc_depthwise_grad *work){FC_GRAD_PLANES(FC_NAME(grad_plane)(&rows))}

// ----------------------------------------------------------------------------------------------------- over channels

// What a patch of height x count outputs adds, by the rows of taps of a pass, without dilation, in one vector of `lanes`
// channels: `rows` x `columns` taps at a time.  Neighbours share inputs, each of which is loaded once for those, if it
// exists: `top` and `column` are those of the first.
FC_INLINE void FC_NAME(grad_patch)(const FC_NAME(grad_rows) * work, const T *out, const T *src, int64_t top,
                                   int64_t column, int64_t lanes, T *sums, const int whole, const int height,
                                   const int count, const int rows, const int columns, const int apart) {
    const fc_problem *p = work->problem;
    const int64_t down = p->src.axis[1];
    vec grad[8];
#pragma GCC unroll 2
    for (int r = 0; r < height; r++, out += p->dst.axis[1])
#pragma GCC unroll 4
        for (int i = 0; i < count; i++) {
            const T *from = out + i * p->dst.axis[2];
            grad[r * count + i] = whole ? v_load(from) : v_load_part(from, lanes);
        }
    for (int64_t done = 0; done < work->taps; done += rows, top += rows, src += rows * down) {
        vec sum[9];
#pragma GCC unroll 9
        for (int t = 0; t < rows * columns; t++) sum[t] = v_set1(0);
        const T *row = src;
#pragma GCC unroll 5
        for (int t = 0; t < (height - 1) * apart + rows; t++, row += down) {
            FC_WALK(row);
            if (top + t < 0 || top + t >= p->axis[1].in) continue;
            const T *from = row;
#pragma GCC unroll 11
            for (int i = 0; i < (count - 1) * apart + columns; i++, from += p->src.axis[2]) {
                FC_WALK(from);
                if (column + i < 0 || column + i >= p->axis[2].in) continue;
                vec in = whole ? v_load(from) : v_load_part(from, lanes);
                FC_KEEP(in);
#pragma GCC unroll 2
                for (int r = 0; r < height; r++) {
                    const int j = t - r * apart;
                    if (j < 0 || j >= rows) continue;
#pragma GCC unroll 5
                    for (int k = 0; k < columns; k++)
                        if (i >= k && (i - k) % apart == 0 && (i - k) / apart < count)
                            sum[j * columns + k] = v_fma(grad[r * count + (i - k) / apart], in, sum[j * columns + k]);
                }
            }
        }
#pragma GCC unroll 3
        for (int j = 0; j < rows; j++, sums += work->tap_row)
#pragma GCC unroll 5
            for (int k = 0; k < columns; k++) {
                T *to = sums + k * FC_VL;
                v_store(to, v_add(v_load(to), sum[j * columns + k]));
            }
    }
}

// The same in whole vectors of channels, one after the other: pixels may lie apart by a power of two, and then only a few
// of the same channels fit into the first-level cache; or in what is left of one behind those, of a single output.
FC_INLINE void FC_NAME(grad_patches)(const FC_NAME(grad_rows) * work, int64_t y, int64_t x, int64_t c, int64_t channels,
                                     int64_t vector, const int whole, const int height, const int count, const int rows,
                                     const int columns, const int apart) {
    const fc_problem *p = work->problem;
    const int64_t top = work->top + y * work->over, column = work->left + x * work->across;
    const T *out = work->grad + y * p->dst.axis[1] + x * p->dst.axis[2];
    const T *src = work->src + top * p->src.axis[1] + column * p->src.axis[2];
    T *sums = work->sums + c / FC_VL * vector;
    for (; c < channels; c += FC_VL, sums += vector)
        FC_NAME(grad_patch)(work, out + c, src + c, top, column, channels - c, sums, whole, height, count, rows,
                            columns, apart);
}

// A pass over rows of outputs by rows of `columns` taps.  Three of three share inputs, which five of five have no registers
// for; and so do two rows of outputs, if there are registers for those.
FC_INLINE void FC_NAME(grad_bands)(const FC_NAME(grad_rows) * work, int64_t channels, int64_t vector, const int columns,
                                   const int apart) {
    const int rows = columns == 3 ? 3 : 1, height = rows * columns + 2 * 4 + 1 <= FC_MR * FC_NV + 4 ? 2 : 1;
    const int64_t out = work->problem->axis[2].out, whole = channels / FC_VL * FC_VL;
    for (int64_t y = work->first, next; y < work->end; y = next) {
        const int together = y + height <= work->end && work->taps % rows == 0;
        int64_t x = 0;
        next = together ? y + height : y + 1;
        for (; together && x + 4 <= out; x += 4)
            FC_NAME(grad_patches)(work, y, x, 0, whole, vector, 1, height, 4, rows, columns, apart);
        for (const int64_t left = x; y < next; y++) {
            x = left;
            for (; x + 4 <= out; x += 4)
                FC_NAME(grad_patches)(work, y, x, 0, whole, vector, 1, 1, 4, 1, columns, apart);
            for (; x + 2 <= out; x += 2)
                FC_NAME(grad_patches)(work, y, x, 0, whole, vector, 1, 1, 2, 1, columns, apart);
            if (x < out) FC_NAME(grad_patches)(work, y, x, 0, whole, vector, 1, 1, 1, 1, columns, apart);
            for (x = 0; x < out && whole < channels; x++)
                FC_NAME(grad_patches)(work, y, x, whole, channels, vector, 0, 1, 1, 1, columns, apart);
        }
    }
}

// Taps in rows of three or five.  Pixels may lie apart by a power of two, and then the lines that a patch reads for five rows
// of taps throw each other out: all the same where a vector is a line, but what is left of one is read for the next vector.
FC_INLINE void FC_NAME(grad_taps)(FC_NAME(grad_rows) work, int64_t channels, int64_t vector, const int columns,
                                  const int apart) {
    const int64_t kernel = work.problem->axis[1].kernel;
    work.taps = FC_LINES || (columns == 3 && kernel == 3) ? kernel : 1;
    for (int64_t j = 0; j < kernel; j += work.taps, work.top += work.taps, work.sums += work.taps * work.tap_row)
        FC_NAME(grad_bands)(&work, channels, vector, columns, apart);
}

// What `count` neighbouring outputs of a row add, by a row of `columns` taps, to what stands beside channels [c, c + lanes):
// of groups of `size`, input q of each is spread over the group's outputs.
FC_INLINE void FC_NAME(grad_pixels)(const FC_NAME(grad_rows) * work, int64_t y, int64_t x, int64_t c, int64_t lanes,
                                    int64_t size, int64_t q, vec *sum, const int whole, const int border,
                                    const int count, const int columns) {
    const fc_problem *p = work->problem;
    const int64_t step = p->src.axis[2], column = work->left + x * work->across;
    const T *out = work->grad + y * p->dst.axis[1] + x * p->dst.axis[2] + c;
    const T *row = work->src + (work->top + y * work->over) * p->src.axis[1] + column * step + c;
#pragma GCC unroll 4
    for (int i = 0; i < count; i++, out += p->dst.axis[2]) {
        const vec grad = whole ? v_load(out) : v_load_part(out, lanes);
#pragma GCC unroll 4
        for (int k = 0; k < columns; k++) {
            const int64_t at = i * work->across + k * work->step;
            if (border && (column + at < 0 || column + at >= p->axis[2].in)) continue;
            const T *from = row + at * step;
            const vec in = whole ? v_load(from) : v_load_part(from, lanes);
            sum[k] = v_fma(grad, size == 1 ? in : v_spread(in, (int)size, (int)q), sum[k]);
        }
    }
}

// A row of outputs by a row of taps.
FC_INLINE void FC_NAME(grad_line)(const FC_NAME(grad_rows) * work, int64_t y, int64_t c, int64_t lanes, int64_t size,
                                  int64_t q, int64_t low, int64_t high, T *sums, const int whole, const int columns) {
    vec sum[4];
    const int64_t out = work->problem->axis[2].out, top = work->top + y * work->over;
    if (top < 0 || top >= work->problem->axis[1].in) return;
#pragma GCC unroll 4
    for (int k = 0; k < columns; k++) sum[k] = v_set1(0);
    for (int64_t x = 0; x < out;) {
        const int inside = x >= low && x + 4 <= high;
        if (inside) FC_NAME(grad_pixels)(work, y, x, c, lanes, size, q, sum, whole, 0, 4, columns);
        else FC_NAME(grad_pixels)(work, y, x, c, lanes, size, q, sum, whole, 1, 1, columns);
        x += inside ? 4 : 1;
    }
#pragma GCC unroll 4
    for (int k = 0; k < columns; k++) {
        T *to = sums + k * size * FC_VL;
        v_store(to, v_add(v_load(to), sum[k]));
    }
}

// Rows of three taps of groups of several channels, where there are 32 registers: step v goes through `apart` inputs, each spread
// once for a few of its group's channels, and through the window of outputs that see them, as in depthwise_steps.tmpl.c.
enum { FC_NAME(grad_few) = 4 }; // inputs of a group

FC_INLINE int FC_NAME(grad_has_steps)(const FC_NAME(grad_rows) * work) {
    const fc_axis *w = &work->problem->axis[2];
    return FC_MR * FC_NV >= 24 && w->kernel == 3 && w->dilation == 1 && w->stride <= 2 &&
           work->problem->in_channels > 1;
}

// What a step adds to the sums of inputs [q, q + few) of each group; not all of its inputs and outputs exist at an edge.
FC_INLINE void FC_NAME(grad_step)(const FC_NAME(grad_rows) * work, const T *src, int64_t v, int64_t size, int64_t q,
                                  const vec *window, vec *sum, const int few, const int apart, const int edge) {
    const fc_problem *p = work->problem;
    const fc_axis *w = &p->axis[2];
#pragma GCC unroll 2
    for (int b = 0; b < apart; b++) {
        const int64_t x = apart * v + b - w->pad;
        if (edge && (x < 0 || x >= w->in)) continue;
        const vec in = v_load(src + x * p->src.axis[2]);
#pragma GCC unroll 4
        for (int i = 0; i < few; i++) {
            const vec spread = v_spread(in, (int)size, (int)q + i);
#pragma GCC unroll 3
            for (int k = b; k < 3; k += apart) {
                const int t = k / apart;
                if (edge && (v - t < 0 || v - t >= w->out)) continue;
                sum[i * 3 + k] = v_fma(window[t], spread, sum[i * 3 + k]);
            }
        }
    }
}

// A row of outputs by a row of taps, of one vector of channels.
FC_INLINE void FC_NAME(grad_few_line)(const FC_NAME(grad_rows) * work, int64_t y, int64_t c, int64_t size, int64_t q,
                                      T *sums, const int few, const int apart) {
    const fc_problem *p = work->problem;
    const fc_axis *w = &p->axis[2];
    const int64_t top = work->top + y * work->over, across = p->dst.axis[2];
    if (top < 0 || top >= p->axis[1].in) return;
    const T *grad = work->grad + y * p->dst.axis[1] + c, *src = work->src + top * p->src.axis[1] + c;
    const int n = (3 - 1) / apart + 1;
    const int64_t last = (w->in - 1 + w->pad) / apart + 1, whole = (w->in + w->pad) / apart;
    const int64_t low = (w->pad + apart - 1) / apart > n - 1 ? (w->pad + apart - 1) / apart : n - 1;
    const int64_t high = w->out < whole ? w->out : whole;
    vec sum[FC_NAME(grad_few) * 3], window[3];
#pragma GCC unroll 12
    for (int i = 0; i < few * 3; i++) sum[i] = v_set1(0);
#pragma GCC unroll 3
    for (int t = 0; t < n; t++) window[t] = v_set1(0);
    for (int64_t v = w->pad / apart - (n - 1) > 0 ? w->pad / apart - (n - 1) : 0; v < last; v++) {
#pragma GCC unroll 3
        for (int t = n - 1; t > 0; t--) window[t] = window[t - 1];
        if (v < w->out) window[0] = v_load(grad + v * across);
        if (v >= low && v < high) FC_NAME(grad_step)(work, src, v, size, q, window, sum, few, apart, 0);
        else FC_NAME(grad_step)(work, src, v, size, q, window, sum, few, apart, 1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < few; i++)
#pragma GCC unroll 3
        for (int k = 0; k < 3; k++) {
            T *to = sums + (k * size + q + i) * FC_VL;
            v_store(to, v_add(v_load(to), sum[i * 3 + k]));
        }
}

// Of one row, by whole vectors.
FC_INLINE void FC_NAME(grad_few_lines)(const FC_NAME(grad_rows) * work, int64_t y, int64_t whole, int64_t vector,
                                       const int few, const int apart) {
    const int64_t size = work->problem->in_channels;
    T *sums = work->sums;
    for (int64_t c = 0; c < whole; c += FC_VL, sums += vector)
        for (int64_t q = 0; q < size; q += few) FC_NAME(grad_few_line)(work, y, c, size, q, sums, few, apart);
}

FC_BODY void FC_NAME(grad_groups)(const FC_NAME(grad_rows) * work, int64_t y, int64_t whole, int64_t vector) {
    const int two = work->problem->axis[2].stride == 2;
    if (work->problem->in_channels == 2) {
        if (two) FC_NAME(grad_few_lines)(work, y, whole, vector, 2, 2);
        else FC_NAME(grad_few_lines)(work, y, whole, vector, 2, 1);
    } else if (two) FC_NAME(grad_few_lines)(work, y, whole, vector, 4, 2);
    else FC_NAME(grad_few_lines)(work, y, whole, vector, 4, 1);
}

// One pass over all rows and channels, by a row of taps.
FC_INLINE void FC_NAME(grad_lines)(const FC_NAME(grad_rows) * work, int64_t channels, int64_t vector,
                                   const int columns) {
    const fc_problem *p = work->problem;
    const fc_axis *w = &p->axis[2];
    const int64_t size = FC_VL > 1 ? p->in_channels : 1, s = work->across;
    const int64_t reach = w->in - 1 - (columns - 1) * work->step - work->left;
    const int64_t low = work->left < 0 ? (-work->left + s - 1) / s : 0, past = reach < 0 ? 0 : reach / s + 1;
    const int64_t high = past < w->out ? past : w->out;
    const int steps = columns == 3 && FC_NAME(grad_has_steps)(work);
    for (int64_t y = work->first; y < work->end; y++) {
        T *sums = work->sums;
        int64_t c = 0;
        if (steps) {
            c = channels / FC_VL * FC_VL;
            sums += c / FC_VL * vector;
            FC_NAME(grad_groups)(work, y, c, vector);
        }
        for (; c + FC_VL <= channels; c += FC_VL, sums += vector)
            for (int64_t q = 0; q < size; q++)
                FC_NAME(grad_line)(work, y, c, FC_VL, size, q, low, high, sums + q * FC_VL, 1, columns);
        for (int64_t q = 0; FC_VL > 1 && q < size && c < channels; q++)
            FC_NAME(grad_line)(work, y, c, channels - c, size, q, low, high, sums + q * FC_VL, 0, columns);
    }
}

// Any kernel: one pass for each row of at most three taps.
FC_INLINE void FC_NAME(grad_blocks)(FC_NAME(grad_rows) work, int64_t channels, int64_t vector) {
    const fc_axis *h = &work.problem->axis[1], *w = &work.problem->axis[2];
    const int64_t top = work.top, left = work.left, tap = work.tap_row / w->kernel;
    T *sums = work.sums;
    for (int64_t j = 0; j < h->kernel; j++) {
        work.top = top + j * h->dilation;
        work.sums = sums + j * work.tap_row;
        int64_t k = 0;
        for (; k + 3 <= w->kernel; k += 3, work.sums += 3 * tap) {
            work.left = left + k * work.step;
            FC_NAME(grad_lines)(&work, channels, vector, 3);
        }
        for (; k < w->kernel; k++, work.sums += tap) {
            work.left = left + k * work.step;
            FC_NAME(grad_lines)(&work, channels, vector, 1);
        }
    }
}

FC_INLINE void FC_NAME(grad_block)(const FC_NAME(grad_rows) * work, int64_t channels, int64_t vector) {
    const fc_problem *p = work->problem;
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int known = FC_VL > 1 && p->in_channels == 1 && h->dilation == 1 && w->dilation == 1 &&
                      h->stride == w->stride && (w->stride == 1 || (w->stride == 2 && FC_KNOWN_SIZES));
    if (known && w->kernel == 3 && w->stride == 1) FC_NAME(grad_taps)(*work, channels, vector, 3, 1);
    else if (known && w->kernel == 3) FC_NAME(grad_taps)(*work, channels, vector, 3, 2);
    else if (known && FC_KNOWN_SIZES && w->kernel == 5 && w->stride == 1)
        FC_NAME(grad_taps)(*work, channels, vector, 5, 1);
    else if (known && FC_KNOWN_SIZES && w->kernel == 5) FC_NAME(grad_taps)(*work, channels, vector, 5, 2);
    else FC_NAME(grad_blocks)(*work, channels, vector);
}

// Sums [vector of channels][tap][input of the group][lane].
void FC_NAME(depthwise_grad_channels)(const fc_depthwise_grad *work) {
    FC_GRAD_PLANES(FC_NAME(grad_block)(&rows, work->channels, work->vector))
}

#undef FC_GRAD_PLANES
