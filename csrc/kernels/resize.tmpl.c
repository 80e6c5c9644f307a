// SPDX-License-Identifier: BSD-3-Clause
//
// resize.tmpl.c - rows of images of another size, from tables of where to read and by what to multiply.
//
// A weight of zero leaves out its term: tables of unequal rows are filled up with zeros, and what such an entry points to
// may be infinite.

void FC_NAME(resize_line)(const fc_resize_line *work) {
    const T *src = work->src, *weight = work->weight;
    const int64_t columns = work->columns, step = work->src_step;
    const int32_t *index = work->index;
    T *dst = work->dst;
    if (!weight) {
        for (int64_t i = 0; i < columns; i++) dst[i] = src[index[i] * step];
        return;
    }
    for (int64_t i = 0; i < columns; i += FC_VL) {
        const int64_t n = FC_NAME(lanes_of)(columns - i);
        vec sum = v_set1(0);
        for (int64_t t = 0; t < work->taps; t++) {
            const int32_t *at = index + t * columns + i;
            const T *by = weight + t * columns + i;
            T lane[FC_VL];
            if (n == FC_VL) {
#pragma GCC unroll 16
                for (int l = 0; l < FC_VL; l++) lane[l] = src[at[l] * step];
            } else {
                for (int l = 0; l < FC_VL; l++) lane[l] = l < n ? src[at[l] * step] : 0;
            }
            const vec w = n == FC_VL ? v_load(by) : v_load_part(by, n), zero = v_set1(0);
            // Where the weight is above or below zero; no weight is NaN.
            const vec x = v_load(lane), low = v_select(v_above(zero, w), x, zero);
            sum = v_fma(w, v_select(v_above(w, zero), x, low), sum);
        }
        v_store_part(dst + i, sum, n);
    }
}

FC_INLINE void FC_NAME(resize_blend_of)(const fc_resize_blend *work, const int count) {
    const T *weight = work->weight;
    const int64_t many = count ? count : work->count, step = work->dst_step;
    T *dst = work->dst;
    for (int64_t i = 0; i < work->columns; i += FC_VL) {
        const int64_t n = FC_NAME(lanes_of)(work->columns - i);
        vec sum = v_set1(0);
        for (int64_t r = 0; r < many; r++) {
            const T *row = (const T *)work->rows[r] + i;
            const vec x = n == FC_VL ? v_load(row) : v_load_part(row, n), w = v_set1(weight[r]);
            sum = r == 0 ? v_mul(w, x) : v_fma(w, x, sum);
        }
        if (n == FC_VL && step == 1) v_store(dst + i, sum);
        else FC_NAME(store_row)(dst + i * step, sum, n, step);
    }
}

void FC_NAME(resize_blend)(const fc_resize_blend *work) {
    if (work->count == 1) FC_NAME(resize_blend_of)(work, 1);
    else if (work->count == 2) FC_NAME(resize_blend_of)(work, 2);
    else FC_NAME(resize_blend_of)(work, 0);
}

// `count` vectors of channels from c on, the only one of a part having n.
FC_INLINE void FC_NAME(resize_pixel)(const fc_resize_pixels *work, int64_t i, int64_t c, int64_t n, const int count) {
    const fc_resize_line *line = &work->line;
    const T *weight = line->weight, *row_weight = work->row_weight;
    T *dst = (T *)line->dst + i * work->dst_step + c;
    vec sum[4];
    int first = 1;
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) sum[v] = v_set1(0);
    for (int64_t r = 0; r < work->count; r++)
        for (int64_t t = 0; t < line->taps; t++) {
            const T w = row_weight[r] * (weight ? weight[t * line->columns + i] : 1);
            if (w == 0) continue;
            const vec by = v_set1(w);
            const T *src = (const T *)work->rows[r] + line->index[t * line->columns + i] * line->src_step + c;
#pragma GCC unroll 4
            for (int v = 0; v < count; v++) {
                const vec x = n == FC_VL ? v_load(src + v * FC_VL) : v_load_part(src, n);
                sum[v] = first ? v_mul(by, x) : v_fma(by, x, sum[v]);
            }
            first = 0;
        }
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        if (n == FC_VL) v_store(dst + v * FC_VL, sum[v]);
        else v_store_part(dst, sum[v], n);
    }
}

void FC_NAME(resize_channels)(const fc_resize_pixels *work) {
    const int64_t channels = work->channels;
    for (int64_t i = 0; i < work->line.columns; i++) {
        int64_t c = 0;
        for (; c + 4 * FC_VL <= channels; c += 4 * FC_VL) FC_NAME(resize_pixel)(work, i, c, FC_VL, 4);
        for (; c < channels; c += FC_VL) FC_NAME(resize_pixel)(work, i, c, FC_NAME(lanes_of)(channels - c), 1);
    }
}
