// SPDX-License-Identifier: BSD-3-Clause
//
// lrn.tmpl.c - local response normalisation.  Windows are summed anew for every channel: a running sum would keep the
// rounding errors of large channels that it has left behind.

// x / s^beta; s^(3/4), which all networks have, is sqrt(s) * sqrt(sqrt(s)).
FC_INLINE vec FC_NAME(lrn_divide)(vec x, vec s, double beta) {
    if (beta == 0.75) {
        const vec root = v_sqrt(s);
        return v_div(x, v_mul(root, v_sqrt(root)));
    }
    if (beta == 1) return v_div(x, s);
    if (beta == 0.5) return v_div(x, v_sqrt(s));
    T lane[FC_VL];
    v_store(lane, s);
    for (int i = 0; i < FC_VL; i++) lane[i] = (T)pow((double)lane[i], -beta);
    return v_mul(x, v_load(lane));
}

enum { FC_LRN_VECTORS = 4 }; // of pixels, side by side: lines of one page while it is there

// The sum of squares over the window of channel c, of `count` vectors of pixels; only one of them may be a part, of n.
FC_INLINE void FC_NAME(lrn_squares)(const fc_lrn_work *work, const T *src, int64_t c, int64_t n, const int count,
                                    vec *sum) {
    const int64_t step = work->src_channel, in = work->src_pixel, most = work->channels - 1;
    const int64_t first = c > work->before ? c - work->before : 0;
    const int64_t last = c + work->after < most ? c + work->after : most;
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) sum[v] = v_set1(0);
    for (int64_t j = first; j <= last; j++) {
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            const T *at = src + j * step;
            const vec x = count > 1 ? v_load(at + v * FC_VL) : FC_NAME(load_row)(at, n, in);
            sum[v] = v_fma(x, x, sum[v]);
        }
    }
}

FC_INLINE void FC_NAME(lrn_planes_block)(const fc_lrn_work *work, const T *src, T *dst, int64_t n, const int count) {
    const vec share = v_set1((T)work->share), k = v_set1((T)work->k);
    const int64_t step = work->src_channel, in = work->src_pixel, out = work->dst_pixel;
    for (int64_t c = 0; c < work->channels; c++) {
        vec sum[FC_LRN_VECTORS];
        FC_NAME(lrn_squares)(work, src, c, n, count, sum);
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            const T *at = src + c * step;
            const vec x = count > 1 ? v_load(at + v * FC_VL) : FC_NAME(load_row)(at, n, in);
            const vec y = FC_NAME(lrn_divide)(x, v_fma(share, sum[v], k), work->beta);
            if (count > 1) v_store(dst + c * work->dst_channel + v * FC_VL, y);
            else FC_NAME(store_row)(dst + c * work->dst_channel, y, n, out);
        }
    }
}

void FC_NAME(lrn_planes)(const fc_lrn_work *work) {
    const int64_t in = work->src_pixel, out = work->dst_pixel;
    const T *src = work->src;
    T *dst = work->dst;
    int64_t i = 0;
    if (in == 1 && out == 1)
        for (; i + 4 * FC_VL <= work->pixels; i += 4 * FC_VL)
            FC_NAME(lrn_planes_block)(work, src + i, dst + i, FC_VL, 4);
    for (; i < work->pixels; i += FC_VL) FC_NAME(lrn_planes_block)
    (work, src + i * in, dst + i * out, FC_NAME(lanes_of)(work->pixels - i), 1);
}

void FC_NAME(lrn_channels)(const fc_lrn_work *work) {
    const vec share = v_set1((T)work->share), k = v_set1((T)work->k);
    const int64_t channels = work->channels, before = work->before, size = before + work->after + 1;
    const int64_t in = work->src_channel, out = work->dst_channel;
    T *square = work->room; // of channel c at [before + c], zeros around them
    memset(square, 0, (size_t)(channels + size - 1 + FC_VL) * sizeof(T));
    for (int64_t i = 0; i < work->pixels; i++) {
        const T *src = (const T *)work->src + i * work->src_pixel;
        T *dst = (T *)work->dst + i * work->dst_pixel;
        for (int64_t c = 0; c < channels; c += FC_VL) {
            const vec x = FC_NAME(load_row)(src + c * in, FC_NAME(lanes_of)(channels - c), in);
            v_store_part(square + before + c, v_mul(x, x), FC_NAME(lanes_of)(channels - c));
        }
        for (int64_t c = 0; c < channels; c += FC_VL) {
            const int64_t n = FC_NAME(lanes_of)(channels - c);
            vec sum = v_load(square + c);
            for (int64_t j = 1; j < size; j++) sum = v_add(sum, v_load(square + c + j));
            const vec x = FC_NAME(load_row)(src + c * in, n, in);
            const vec y = FC_NAME(lrn_divide)(x, v_fma(share, sum, k), work->beta);
            FC_NAME(store_row)(dst + c * out, y, n, out);
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ gradients

// With r = g / s^beta, of which x * r / s is summed over the channels whose windows hold this one.
FC_INLINE vec FC_NAME(lrn_inner)(vec x, vec r, vec s) { return v_div(v_mul(x, r), s); }

// r - 2 * share * beta * x * sum.
FC_INLINE vec FC_NAME(lrn_slope)(const fc_lrn_work *work, vec r, vec x, vec sum) {
    return v_fnma(v_mul(v_set1((T)(2 * work->share * work->beta)), x), sum, r);
}

// `count` vectors of pixels from pixel i on; only one of them may be a part, of n.  What is summed stands in the room, and
// dst holds r until it is.
FC_INLINE void FC_NAME(lrn_grad_planes_block)(const fc_lrn_work *work, int64_t i, int64_t n, const int count) {
    const vec share = v_set1((T)work->share), k = v_set1((T)work->k);
    const int64_t in = work->src_pixel, out = work->dst_pixel, most = work->channels - 1, step = work->src_channel;
    const T *src = (const T *)work->src + i * in, *g = (const T *)work->g + i * work->g_pixel;
    T *dst = (T *)work->dst + i * out, *inner = work->room;
    for (int64_t c = 0; c <= most; c++) {
        vec sum[FC_LRN_VECTORS];
        FC_NAME(lrn_squares)(work, src, c, n, count, sum);
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            const T *at = src + c * step, *grad = g + c * work->g_channel;
            T *to = dst + c * work->dst_channel;
            const vec x = count > 1 ? v_load(at + v * FC_VL) : FC_NAME(load_row)(at, n, in);
            const vec y = count > 1 ? v_load(grad + v * FC_VL) : FC_NAME(load_row)(grad, n, work->g_pixel);
            const vec s = v_fma(share, sum[v], k), r = FC_NAME(lrn_divide)(y, s, work->beta);
            v_store(inner + (c * count + v) * FC_VL, FC_NAME(lrn_inner)(x, r, s));
            if (count > 1) v_store(to + v * FC_VL, r);
            else FC_NAME(store_row)(to, r, n, out);
        }
    }
    for (int64_t c = 0; c <= most; c++) {
        const int64_t first = c > work->after ? c - work->after : 0;
        const int64_t last = c + work->before < most ? c + work->before : most;
        const T *at = src + c * step;
        T *to = dst + c * work->dst_channel;
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            vec sum = v_set1(0);
            for (int64_t j = first; j <= last; j++) sum = v_add(sum, v_load(inner + (j * count + v) * FC_VL));
            const vec x = count > 1 ? v_load(at + v * FC_VL) : FC_NAME(load_row)(at, n, in);
            const vec r = count > 1 ? v_load(to + v * FC_VL) : FC_NAME(load_row)(to, n, out);
            const vec d = FC_NAME(lrn_slope)(work, r, x, sum);
            if (count > 1) v_store(to + v * FC_VL, d);
            else FC_NAME(store_row)(to, d, n, out);
        }
    }
}

void FC_NAME(lrn_grad_planes)(const fc_lrn_work *work) {
    int64_t i = 0;
    if (work->src_pixel == 1 && work->g_pixel == 1 && work->dst_pixel == 1)
        for (; i + FC_LRN_VECTORS * FC_VL <= work->pixels; i += FC_LRN_VECTORS * FC_VL)
            FC_NAME(lrn_grad_planes_block)(work, i, FC_VL, FC_LRN_VECTORS);
    for (; i < work->pixels; i += FC_VL)
        FC_NAME(lrn_grad_planes_block)(work, i, FC_NAME(lanes_of)(work->pixels - i), 1);
}

void FC_NAME(lrn_grad_channels)(const fc_lrn_work *work) {
    const vec share = v_set1((T)work->share), k = v_set1((T)work->k);
    const int64_t channels = work->channels, before = work->before, after = work->after, size = before + after + 1;
    const int64_t in = work->src_channel, out = work->dst_channel, length = channels + size - 1 + FC_VL;
    T *square = work->room, *inner = square + length; // of channel c at [before + c] and [after + c], zeros around them
    memset(square, 0, (size_t)(2 * length) * sizeof(T));
    for (int64_t i = 0; i < work->pixels; i++) {
        const T *src = (const T *)work->src + i * work->src_pixel, *g = (const T *)work->g + i * work->g_pixel;
        T *dst = (T *)work->dst + i * work->dst_pixel;
        for (int64_t c = 0; c < channels; c += FC_VL) {
            const int64_t n = FC_NAME(lanes_of)(channels - c);
            const vec x = FC_NAME(load_row)(src + c * in, n, in);
            v_store_part(square + before + c, v_mul(x, x), n);
        }
        for (int64_t c = 0; c < channels; c += FC_VL) {
            const int64_t n = FC_NAME(lanes_of)(channels - c);
            vec s = v_load(square + c);
            for (int64_t j = 1; j < size; j++) s = v_add(s, v_load(square + c + j));
            s = v_fma(share, s, k);
            const vec r =
                FC_NAME(lrn_divide)(FC_NAME(load_row)(g + c * work->g_channel, n, work->g_channel), s, work->beta);
            v_store_part(inner + after + c, FC_NAME(lrn_inner)(FC_NAME(load_row)(src + c * in, n, in), r, s), n);
            FC_NAME(store_row)(dst + c * out, r, n, out);
        }
        for (int64_t c = 0; c < channels; c += FC_VL) {
            const int64_t n = FC_NAME(lanes_of)(channels - c);
            vec sum = v_load(inner + c);
            for (int64_t j = 1; j < size; j++) sum = v_add(sum, v_load(inner + c + j));
            const vec x = FC_NAME(load_row)(src + c * in, n, in);
            FC_NAME(store_row)(dst + c * out,
                               FC_NAME(lrn_slope)(work, FC_NAME(load_row)(dst + c * out, n, out), x, sum), n, out);
        }
    }
}
