// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise.tmpl.c - rows of a convolution with one input channel: dst[x] = sum over taps of w[tap] * src[x * s + tap].
//
// Taps are summed in one order everywhere, and every column by the same operations, so that a pixel's bits do not depend
// on where it stands.

// `count` vectors of an output row from column x on; the last one holds `lanes` columns.
FC_INLINE void FC_NAME(depthwise_vectors)(const fc_depthwise_rows *work, const T *row, const T *weights, vec bias,
                                          T *dst, const T *residual, int64_t x, int64_t lanes, const int count) {
    vec sum[4];
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) sum[v] = v_set1(0);
    for (int64_t t = 0; t < work->taps; t++) {
        const vec tap = v_set1(weights[t]);
        const T *in = row + work->tap_offset[t] + x;
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) sum[v] = v_fma(tap, v_load(in + v * FC_VL), sum[v]);
    }
    const vec low = v_set1((T)work->problem->low), high = v_set1((T)work->problem->high);
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        const int64_t at = x + v * FC_VL, n = v + 1 < count ? FC_VL : lanes;
        const vec res = residual ? v_load_part(residual + at, n) : v_set1(0);
        v_store_part(dst + at, FC_NAME(finish)(sum[v], bias, res, low, high), n);
    }
}

// Rows of one output channel from padded rows (algo/padded.c): no borders, no strides, only taps at offsets.
static void FC_NAME(depthwise_pixels)(const fc_depthwise_rows *work) {
    const fc_problem *p = work->problem;
    const int64_t columns = p->axis[2].out;
    const T *weights = (const T *)work->weights + work->channel * work->taps;
    const vec bias = v_set1(((const T *)work->bias)[work->channel]);
    for (int64_t r = 0; r < work->rows; r++) {
        const T *row = (const T *)work->src + r * work->row;
        T *dst = (T *)work->dst + (work->h + r) * p->dst.axis[1];
        const T *residual = work->residual ? (const T *)work->residual + (work->h + r) * p->dst.axis[1] : NULL;
        int64_t x = 0;
        for (; x + 4 * FC_VL <= columns; x += 4 * FC_VL)
            FC_NAME(depthwise_vectors)(work, row, weights, bias, dst, residual, x, FC_VL, 4);
        for (; x < columns; x += FC_VL)
            FC_NAME(depthwise_vectors)(work, row, weights, bias, dst, residual, x,
                                       columns - x < FC_VL ? columns - x : FC_VL, 1);
    }
}

// The taps k of an axis that read inside [0, in) from output position `at`: [low, high).
FC_INLINE void FC_NAME(taps_inside)(const fc_axis *a, int64_t at, int64_t *low, int64_t *high) {
    const int64_t first = at * a->stride - a->pad, e = a->dilation;
    *low = first < 0 ? (-first + e - 1) / e : 0;
    *high = first + (a->kernel - 1) * e < a->in ? a->kernel : first < a->in ? (a->in - 1 - first) / e + 1 : 0;
    if (*low > a->kernel) *low = a->kernel;
    if (*high < *low) *high = *low;
}

typedef struct FC_NAME(tap_range) {
    int64_t low[FC_AXES], high[FC_AXES];
} FC_NAME(tap_range);

// Vectors of channels [c, c + count * FC_VL), the last of them only `lanes` wide, at one output pixel.
FC_INLINE void FC_NAME(depthwise_pixel)(const fc_depthwise_rows *work, const FC_NAME(tap_range) * r, const T *src,
                                        T *dst, const T *residual, int64_t c, int64_t lanes, const int count) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const T *weights = (const T *)work->weights + c;
    vec sum[4];
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) sum[v] = v_set1(0);
    for (int64_t i = r->low[0]; i < r->high[0]; i++)
        for (int64_t j = r->low[1]; j < r->high[1]; j++)
            for (int64_t k = r->low[2]; k < r->high[2]; k++) {
                const T *at = src + i * d->dilation * p->src.axis[0] + j * h->dilation * p->src.axis[1] +
                              k * w->dilation * p->src.axis[2] + c;
                const T *tap = weights + ((i * h->kernel + j) * w->kernel + k) * p->groups;
#pragma GCC unroll 4
                for (int v = 0; v < count; v++)
                    if (lanes == FC_VL) sum[v] = v_fma(v_load(tap + v * FC_VL), v_load(at + v * FC_VL), sum[v]);
                    else sum[v] = v_fma(v_load_part(tap, lanes), v_load_part(at, lanes), sum[v]);
            }
    const vec low = v_set1((T)p->low), high = v_set1((T)p->high);
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        const vec bias = v_load_part((const T *)work->bias + c + v * FC_VL, lanes);
        const vec res = residual ? v_load_part(residual + c + v * FC_VL, lanes) : v_set1(0);
        v_store_part(dst + c + v * FC_VL, FC_NAME(finish)(sum[v], bias, res, low, high), lanes);
    }
}

static void FC_NAME(depthwise_channels)(const fc_depthwise_rows *work) {
    const fc_problem *p = work->problem;
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    FC_NAME(tap_range) r;
    FC_NAME(taps_inside)(d, work->d, &r.low[0], &r.high[0]);
    for (int64_t y = work->h; y < work->h + work->rows; y++) {
        FC_NAME(taps_inside)(h, y, &r.low[1], &r.high[1]);
        for (int64_t x = 0; x < w->out; x++) {
            FC_NAME(taps_inside)(w, x, &r.low[2], &r.high[2]);
            const T *src = (const T *)work->src + (work->d * d->stride - d->pad) * p->src.axis[0] +
                           (y * h->stride - h->pad) * p->src.axis[1] + (x * w->stride - w->pad) * p->src.axis[2];
            const int64_t at = y * p->dst.axis[1] + x * p->dst.axis[2];
            T *dst = (T *)work->dst + at;
            const T *residual = work->residual ? (const T *)work->residual + at : NULL;
            int64_t c = 0;
            for (; c + 4 * FC_VL <= p->groups; c += 4 * FC_VL)
                FC_NAME(depthwise_pixel)(work, &r, src, dst, residual, c, FC_VL, 4);
            for (; c < p->groups; c += FC_VL)
                FC_NAME(depthwise_pixel)(work, &r, src, dst, residual, c, p->groups - c < FC_VL ? p->groups - c : FC_VL,
                                         1);
        }
    }
}
