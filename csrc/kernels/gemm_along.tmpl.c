// SPDX-License-Identifier: BSD-3-Clause
//
// gemm_along.tmpl.c - the product of pixels and one output channel: C[m] = sum over k of A[m][k] * B[k], vectors along k.
//
// Where output channels are few, vectors over them would be mostly empty.  Each pixel has a vector of sums of its own, the
// lanes of which are added in pairs at the end, by the same operations whatever its neighbours.

// The sums of the lanes of each of FC_VL vectors, in their order.
FC_INLINE vec FC_NAME(along_lanes)(const vec *sum) {
    vec v[FC_VL]; // has an address, while sums lie in registers
#pragma GCC unroll 16
    for (int i = 0; i < FC_VL; i++) v[i] = sum[i];
#pragma GCC unroll 4
    for (int n = FC_VL / 2; n > 0; n /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) v[i] = v_add(v_even(v[2 * i], v[2 * i + 1]), v_odd(v[2 * i], v[2 * i + 1]));
    return v[0];
}

// `n` pixels from `row` on.
FC_INLINE void FC_NAME(along_end)(const fc_gemm_tile *t, int64_t row, int64_t n, vec sum) {
    T *sums = (T *)t->sums + row;
    if (!t->first) sum = v_add(v_load_part(sums, n), sum);
    if (!t->last) {
        v_store_part(sums, sum, n);
        return;
    }
    const int64_t *offset = t->row_offset + row;
    const int64_t step = n > 1 ? offset[1] - offset[0] : 1;
    int even = 1;
    for (int64_t i = 1; i < n; i++) even &= offset[i] - offset[i - 1] == step;
    T *dst = (T *)t->dst + t->runs[0].offset;
    const T *residual = t->residual ? (const T *)t->residual + t->runs[0].offset : NULL;
    const vec bias = v_set1(*(const T *)t->bias), low = v_set1((T)t->low), high = v_set1((T)t->high);
    if (even && step > 0) {
        const vec r = residual ? FC_NAME(load_row)(residual + offset[0], n, step) : v_set1(0);
        FC_NAME(store_row)(dst + offset[0], FC_NAME(finish)(sum, bias, r, low, high), n, step);
        return;
    }
    T lane[FC_VL] = {0};
    for (int64_t i = 0; residual && i < n; i++) lane[i] = residual[offset[i]];
    v_store(lane, FC_NAME(finish)(sum, bias, v_load(lane), low, high));
    for (int64_t i = 0; i < n; i++) dst[offset[i]] = lane[i];
}

FC_INLINE void FC_NAME(along_body)(const fc_gemm_tile *t, int64_t row, const int rows) {
    vec sum[FC_ALONG_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < FC_ALONG_ROWS; i++) sum[i] = v_set1(0);
    const T *b = t->b;
    const int64_t step = t->a_row, whole = t->depth / FC_VL * FC_VL, rest = t->depth - whole;
    for (int64_t s = 0; s < t->segments; s++, b += t->depth) {
        // Every third row has a pointer; the two after it are reached through the index register.
        const T *a = (const T *)t->a + t->a_segment[s] + row * step, *base[(FC_ALONG_ROWS + 2) / 3];
#pragma GCC unroll 6
        for (int i = 0; i < (rows + 2) / 3; i++) base[i] = a + 3 * i * step;
        for (int64_t k = 0; k < whole; k += FC_VL) {
            const vec w = v_load(b + k);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) sum[i] = v_fma(w, v_load(base[i / 3] + (i % 3) * step + k), sum[i]);
        }
        if (!rest) continue;
        const vec w = v_load_part(b + whole, rest);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
            sum[i] = v_fma(w, v_load_part(base[i / 3] + (i % 3) * step + whole, rest), sum[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i += FC_VL)
        FC_NAME(along_end)(t, row + i, FC_NAME(lanes_of)(rows - i), FC_NAME(along_lanes)(sum + i));
}

void FC_NAME(gemm_along)(const fc_gemm_tile *t) {
    int64_t row = 0, left = t->m;
    if (left == FC_ALONG_ROWS) {
        FC_NAME(along_body)(t, 0, FC_ALONG_ROWS);
        return;
    }
    if (left >= 8) FC_NAME(along_body)(t, 0, 8), row += 8, left -= 8;
    if (left >= 4) FC_NAME(along_body)(t, row, 4), row += 4, left -= 4;
    if (left >= 2) FC_NAME(along_body)(t, row, 2), row += 2, left -= 2;
    if (left) FC_NAME(along_body)(t, row, 1);
}
