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

FC_INLINE void FC_NAME(lrn_planes_block)(const fc_lrn_work *work, const T *src, T *dst, int64_t n, const int count) {
    const vec share = v_set1((T)work->share), k = v_set1((T)work->k);
    const int64_t step = work->src_channel, in = work->src_pixel, out = work->dst_pixel;
    for (int64_t c = 0; c < work->channels; c++) {
        const int64_t first = c > work->before ? c - work->before : 0;
        const int64_t last = c + work->after < work->channels ? c + work->after : work->channels - 1;
        vec sum[4];
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
    (work, src + i * in, dst + i * out, work->pixels - i < FC_VL ? work->pixels - i : FC_VL, 1);
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
            const vec x = FC_NAME(load_row)(src + c * in, channels - c < FC_VL ? channels - c : FC_VL, in);
            v_store_part(square + before + c, v_mul(x, x), channels - c < FC_VL ? channels - c : FC_VL);
        }
        for (int64_t c = 0; c < channels; c += FC_VL) {
            const int64_t n = channels - c < FC_VL ? channels - c : FC_VL;
            vec sum = v_load(square + c);
            for (int64_t j = 1; j < size; j++) sum = v_add(sum, v_load(square + c + j));
            const vec x = FC_NAME(load_row)(src + c * in, n, in);
            const vec y = FC_NAME(lrn_divide)(x, v_fma(share, sum, k), work->beta);
            FC_NAME(store_row)(dst + c * out, y, n, out);
        }
    }
}
