// SPDX-License-Identifier: BSD-3-Clause
//
// weave.tmpl.c - sums of rows, each of which has every stride-th column of the result: a vector of each phase is summed in
// registers, and they are interleaved as they are stored.

// Positions j to j + FC_VL of phase r.
FC_INLINE vec FC_NAME(weave_sum)(const fc_weave *w, const T *src, vec sum, int64_t r, int64_t j) {
    for (int64_t t = w->first[r]; t < w->first[r + 1]; t++) {
        const fc_weave_tap *tap = &w->taps[t];
        const int64_t from = tap->low - j, to = tap->high - j;
        if (from <= 0 && to >= FC_VL) sum = v_add(sum, v_load(src + tap->from + j));
        else if (from < FC_VL && to > 0 && from < to)
            sum = v_add(sum, v_load_lanes(v_lanes(from > 0 ? from : 0, to < FC_VL ? to : FC_VL), src + tap->from + j));
    }
    return sum;
}

// Some columns, of which n are left.
FC_INLINE void FC_NAME(weave_store)(T *dst, const T *residual, int64_t at, vec sum, vec low, vec high, int64_t n) {
    if (n >= FC_VL) {
        if (residual) sum = v_add(sum, v_load(residual + at));
        v_store(dst + at, FC_NAME(clamp)(sum, low, high));
    } else if (n > 0) {
        if (residual) sum = v_add(sum, v_load_part(residual + at, n));
        v_store_part(dst + at, FC_NAME(clamp)(sum, low, high), n);
    }
}

FC_INLINE void FC_NAME(weave_row)(const fc_weave *w, const T *src, vec bias, const T *residual, T *dst,
                                  const int stride) {
    const vec low = v_set1((T)w->low), high = v_set1((T)w->high);
    for (int64_t j = 0; j * w->stride < w->columns; j += FC_VL) {
        const int64_t at = j * w->stride, left = w->columns - at;
        vec sum[4];
#pragma GCC unroll 4
        for (int r = 0; r < stride; r++) sum[r] = FC_NAME(weave_sum)(w, src, bias, r, j);
        if (stride == 2) {
            FC_NAME(weave_store)(dst, residual, at, v_zip_low(sum[0], sum[1]), low, high, left);
            FC_NAME(weave_store)(dst, residual, at + FC_VL, v_zip_high(sum[0], sum[1]), low, high, left - FC_VL);
        } else if (stride == 4) {
            const vec even[] = {v_zip_low(sum[0], sum[2]), v_zip_high(sum[0], sum[2])};
            const vec odd[] = {v_zip_low(sum[1], sum[3]), v_zip_high(sum[1], sum[3])};
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                const int64_t to = 2 * i * FC_VL;
                FC_NAME(weave_store)(dst, residual, at + to, v_zip_low(even[i], odd[i]), low, high, left - to);
                FC_NAME(weave_store)
                (dst, residual, at + to + FC_VL, v_zip_high(even[i], odd[i]), low, high, left - to - FC_VL);
            }
        } else
            for (int64_t r = 0; r < w->stride && r < left; r++) {
                const int64_t rest = (left - r - 1) / w->stride + 1, n = rest < FC_VL ? rest : FC_VL;
                vec one = FC_NAME(weave_sum)(w, src, bias, r, j);
                if (residual) one = v_add(one, FC_NAME(load_apart)(residual + at + r, n, w->stride));
                FC_NAME(store_apart)(dst + at + r, FC_NAME(clamp)(one, low, high), n, w->stride);
            }
    }
}

void FC_NAME(weave)(const fc_weave *w) {
    const T *src = w->src, *bias = w->bias, *residual = w->residual;
    T *dst = w->dst;
    for (int64_t c = 0; c < w->channels; c++, src += w->src_channel, dst += w->dst_channel) {
        const vec from = v_set1(0 + bias[c]); // as an empty sum has it
        if (w->stride == 2) FC_NAME(weave_row)(w, src, from, residual, dst, 2);
        else if (w->stride == 4) FC_NAME(weave_row)(w, src, from, residual, dst, 4);
        else FC_NAME(weave_row)(w, src, from, residual, dst, 0);
        if (residual) residual += w->dst_channel;
    }
}
