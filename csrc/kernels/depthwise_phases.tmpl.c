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

// What every second tap from `k` on adds to a vector of columns, the first of which sees output `at` by it.
FC_INLINE vec FC_NAME(add_phase)(const T *grad, int64_t out, const T *taps, int k, const int kernel, int64_t at,
                                 const int border, vec sum) {
#pragma GCC unroll 4
    for (; k < kernel; k += 2, at--) {
        const vec in = border ? v_load_lanes(v_lanes(-at, out - at), grad + at) : v_load(grad + at);
        sum = v_fma(v_set1(taps[k]), in, sum);
    }
    return sum;
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

// Two vectors of columns from x on of a row y, by rows of `kernel` taps; its first tap along depth and height and the
// outputs at hand are in `tap` and `out`.  At the border some columns, or outputs that they see, do not exist.
FC_INLINE void FC_NAME(phase_columns)(const fc_depthwise_rows *work, int64_t y, int64_t x, const int64_t *tap,
                                      const int64_t *out, vec bias, const int kernel, const int border) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int64_t left = w->in - x, n = left < FC_VL ? left : FC_VL, rest = left - n < FC_VL ? left - n : FC_VL;
    const int64_t first = w->pad & 1, at = (x + w->pad - first) / 2; // even columns see taps first, first + 2, ...
    const int64_t taps = d->kernel * h->kernel * kernel;
    const T *weights = (const T *)work->weights + work->channel * p->out_channels * taps;
    const T *plane = work->src;
    vec zero = v_set1(0), one = v_set1(0); // by taps 0, 2, ... and 1, 3, ...
    for (int64_t o = 0; o < p->out_channels; o++, weights += taps, plane += p->dst.channel)
        for (int64_t i = tap[0], z = out[0]; i < d->kernel && z >= 0; i += d->stride, z--)
            for (int64_t j = tap[1], q = out[1]; j < h->kernel && q >= 0; j += h->stride, q--) {
                const T *grad = plane + z * p->dst.axis[0] + q * p->dst.axis[1];
                const T *row = weights + (i * h->kernel + j) * kernel;
                zero = FC_NAME(add_phase)(grad, w->out, row, 0, kernel, at + first, border, zero);
                one = FC_NAME(add_phase)(grad, w->out, row, 1, kernel, at, border, one);
            }
    const vec even = first ? one : zero, odd = first ? zero : one;
    const int64_t to = y * p->src.axis[1] + x;
    T *dst = (T *)work->dst + to;
    const T *res = work->residual ? (const T *)work->residual + to : NULL;
    FC_NAME(store_phases)(p, dst, res, v_zip_low(even, odd), bias, n, border);
    FC_NAME(store_phases)(p, dst + n, res ? res + n : NULL, v_zip_high(even, odd), bias, rest, border);
}

// Rows of one input channel, by rows of three taps; src is the gradient of its group's outputs.
void FC_NAME(depthwise_phases)(const fc_depthwise_rows *work) {
    const fc_problem *p = work->problem;
    const fc_axis *w = &p->axis[2];
    const vec bias = v_set1(((const T *)work->bias)[work->channel]);
    int64_t tap[2], out[2];
    FC_NAME(first_tap)(&p->axis[0], work->d, &tap[0], &out[0]);
    for (int64_t y = work->h; y < work->h + work->rows; y++) {
        FC_NAME(first_tap)(&p->axis[1], y, &tap[1], &out[1]);
        for (int64_t x = 0; x < w->in; x += 2 * FC_VL) {
            const int64_t last =
                (x + w->pad + (w->pad & 1)) / 2; // output that the first tap sees; the others: or one before
            const int border = x + 2 * FC_VL > w->in || last < 1 || last + FC_VL > w->out;
            if (border) FC_NAME(phase_columns)(work, y, x, tap, out, bias, 3, 1);
            else FC_NAME(phase_columns)(work, y, x, tap, out, bias, 3, 0);
        }
    }
}
