// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise_phases.tmpl.c - the gradient of the input, channel by channel, where outputs lie two columns apart:
// d_src[x] = sum over taps k of w[k] * grad[(x + p - k) / 2], of those k for which that is whole.
//
// Even columns see every second tap of a row, odd ones the others, both by neighbours in grad: two vectors of sums, which
// are interleaved where they are stored.

// The first tap of an axis that has an output at hand for input `at`, and that output; each stride-th tap from there on
// sees the output before.
FC_INLINE void FC_NAME(first_tap)(const fc_axis *a, int64_t at, int64_t *tap, int64_t *out) {
    const int64_t from = at + a->pad;
    *tap = a->stride == 1 ? 0 : from & 1;
    *out = from;
    if (a->stride == 2) *out = (from - *tap) / 2;
    if (a->stride > 2) {
        *tap = (from % a->stride + a->stride) % a->stride;
        *out = (from - *tap) / a->stride;
    }
    if (*out < a->out) return;
    *tap += (*out - a->out + 1) * a->stride;
    *out = a->out - 1;
}

// Two vectors of columns of any row, from column x on: how many of each exist, the output that the first of them sees by
// tap 1, or if `first` by taps 0 and 2, one further, and the lanes whose outputs exist, of each tap.
typedef struct FC_NAME(phase_columns) {
    int64_t x, n, rest, at, first;
    vmask seen[3];
} FC_NAME(phase_columns);

// Rows whose columns are computed one below the other.
enum { FC_PHASE_ROWS = 8 };

FC_INLINE vec FC_NAME(load_phase)(const T *grad, vmask seen, const int border) {
    return border ? v_load_lanes(seen, grad) : v_load(grad);
}

// Finishes n columns.
FC_INLINE void FC_NAME(store_phases)(const fc_problem *p, T *to, const T *residual, vec sum, vec bias, int64_t n,
                                     const int border) {
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
    vec res = v_set1(0);
    if (residual) res = border && n < FC_VL ? v_load_part(residual, n) : v_load(residual);
    const vec value = FC_NAME(finish)(sum, bias, res, low, high);
    if (border && n < FC_VL) v_store_part(to, value, n);
    else v_store(to, value);
}

// The columns `c` of row y; its first tap along depth and height and the outputs at hand are in `tap` and `out`.  At the
// border some columns, or outputs that they see, do not exist.
FC_INLINE void FC_NAME(phase_row)(const fc_depthwise_rows *work, const FC_NAME(phase_columns) * c, int64_t y,
                                  const int64_t *tap, const int64_t *out, vec bias, const int border) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1];
    const int64_t taps = d->kernel * h->kernel * 3;
    const T *weights = (const T *)work->weights + work->channel * p->out_channels * taps;
    const T *plane = (const T *)work->src + c->at;
    vec zero = v_set1(0), one = v_set1(0); // by taps 0 and 2, and by tap 1
    for (int64_t o = 0; o < p->out_channels; o++, weights += taps, plane += p->dst.channel)
        for (int64_t i = tap[0], z = out[0]; i < d->kernel && z >= 0; i += d->stride, z--)
            for (int64_t j = tap[1], q = out[1]; j < h->kernel && q >= 0; j += h->stride, q--) {
                const T *grad = plane + z * p->dst.axis[0] + q * p->dst.axis[1];
                const T *row = weights + (i * h->kernel + j) * 3;
                zero = v_fma(v_set1(row[0]), FC_NAME(load_phase)(grad + c->first, c->seen[0], border), zero);
                zero = v_fma(v_set1(row[2]), FC_NAME(load_phase)(grad + c->first - 1, c->seen[2], border), zero);
                one = v_fma(v_set1(row[1]), FC_NAME(load_phase)(grad, c->seen[1], border), one);
            }
    const vec even = c->first ? one : zero, odd = c->first ? zero : one;
    const int64_t to = y * p->src.axis[1] + c->x;
    T *dst = (T *)work->dst + to;
    const T *res = work->residual ? (const T *)work->residual + to : NULL;
    FC_NAME(store_phases)(p, dst, res, v_zip_low(even, odd), bias, c->n, border);
    if (c->rest == 0) return;
    FC_NAME(store_phases)(p, dst + c->n, res ? res + c->n : NULL, v_zip_high(even, odd), bias, c->rest, border);
}

// Rows of one input channel, by rows of three taps; src is the gradient of its group's outputs.
void FC_NAME(depthwise_phases)(const fc_depthwise_rows *work) {
    const fc_problem *p = work->problem;
    const fc_axis *w = &p->axis[2];
    const vec bias = v_set1(((const T *)work->bias)[work->channel]);
    const int64_t end = work->h + work->rows;
    int64_t tap[2], out[2];
    FC_NAME(first_tap)(&p->axis[0], work->d, &tap[0], &out[0]);
    for (int64_t top = work->h; top < end; top += FC_PHASE_ROWS)
        for (int64_t x = 0; x < w->in; x += 2 * FC_VL) {
            const int64_t left = w->in - x, first = w->pad & 1, at = (x + w->pad - first) / 2;
            const int64_t n = left < FC_VL ? left : FC_VL, rest = left - n < FC_VL ? left - n : FC_VL;
            const FC_NAME(phase_columns) c = {
                .x = x,
                .n = n,
                .rest = rest,
                .at = at,
                .first = first,
                .seen = {v_lanes(-at - first, w->out - at - first), v_lanes(-at, w->out - at),
                         v_lanes(1 - at - first, w->out + 1 - at - first)},
            };
            const int border = n + rest < 2 * FC_VL || at + first < 1 || at + first + FC_VL > w->out;
            for (int64_t y = top; y < end && y < top + FC_PHASE_ROWS; y++) {
                FC_NAME(first_tap)(&p->axis[1], y, &tap[1], &out[1]);
                if (border) FC_NAME(phase_row)(work, &c, y, tap, out, bias, 1);
                else FC_NAME(phase_row)(work, &c, y, tap, out, bias, 0);
            }
        }
}
