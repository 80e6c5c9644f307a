// SPDX-License-Identifier: BSD-3-Clause
//
// rows.tmpl.c - what several kernels do with the elements that they load and store: bounds, one NaN, rows whose elements
// lie apart, the lanes of a vector joined, transposition.

// How many of `left` elements, one or more, a vector holds: known where it has one lane, so that partial ones vanish.
FC_INLINE int64_t FC_NAME(lanes_of)(int64_t left) { return FC_VL == 1 || left >= FC_VL ? FC_VL : left; }

// NaN passes, and so does everything when the bounds are infinite.
FC_INLINE vec FC_NAME(bound)(vec value, vec low, vec high) { return v_min(high, v_max(low, value)); }

// Which of several NaN a sum comes out as, their signs and payloads, depends on the order of an instruction's operands,
// which the compiler chooses body by body: whatever is stored has one NaN, so that its bits do not depend on where a pixel
// lies in a tile.  Either each vector is made so on its way,
FC_INLINE vec FC_NAME(clamp)(vec value, vec low, vec high) { return v_one_nan(FC_NAME(bound)(value, low, high)); }

// How an output element is finished, here and in every other kernel.
FC_INLINE vec FC_NAME(finish)(vec value, vec bias, vec residual, vec low, vec high) {
    return FC_NAME(clamp)(v_add(v_add(value, bias), residual), low, high);
}

// or, where that would be noticed, whatever a kernel stores is multiplied two by two and summed: half an instruction each
// instead of two.  The sum, from 1 on so that tiny products are lost in it, is not finite if anything is NaN (nor if
// anything is infinite or very large, which only costs), and then what has been stored is gone through once more.
FC_INLINE vec FC_NAME(look)(vec seen, vec a, vec b) { return v_fma(a, b, seen); }
FC_INLINE int FC_NAME(saw_nan)(vec seen) { return __builtin_expect(!v_finite(seen), 0); }

// Elements that lie apart take tens of instructions, of which there is one copy in each part.
static __attribute__((noinline, unused)) vec FC_NAME(load_apart)(const T *p, int64_t n, int64_t step) {
    return v_load_apart(p, n, step);
}

static __attribute__((noinline, unused)) void FC_NAME(store_apart)(T *p, vec value, int64_t n, int64_t step) {
    v_store_apart(p, value, n, step);
}

// n elements of a row of dst, or of the residual, `step` apart: 1, or more where it is a phase of something.
FC_INLINE vec FC_NAME(load_row)(const T *p, int64_t n, int64_t step) {
    return step == 1 ? v_load_part(p, n) : FC_NAME(load_apart)(p, n, step);
}

FC_INLINE void FC_NAME(store_row)(T *p, vec value, int64_t n, int64_t step) {
    if (step == 1) v_store_part(p, value, n);
    else FC_NAME(store_apart)(p, value, n, step);
}

// Over the lanes of a vector, in pairs, then pairs of pairs.
FC_INLINE T FC_NAME(fold_lanes)(const fc_fold_kind kind, vec a) {
    T lane[FC_VL];
    v_store(lane, a);
#pragma GCC unroll 4
    for (int half = FC_VL / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++) {
            const T x = lane[i + half];
            if (kind == FC_FOLD_MAX || kind == FC_FOLD_MIN) lane[i] = x > lane[i] || x != x ? x : lane[i];
            else lane[i] = kind == FC_FOLD_PRODUCT ? lane[i] * x : lane[i] + x;
        }
    return kind == FC_FOLD_MIN ? 0 - lane[0] : lane[0];
}

// `rows` rows of n elements, which are `step` apart, and the rows `down`.
static __attribute__((noinline, cold, unused)) void FC_NAME(one_nan)(T *dst, int64_t n, int64_t step, int64_t rows,
                                                                     int64_t down) {
    for (int64_t r = 0; r < rows; r++, dst += down)
        for (int64_t i = 0; i < n; i += FC_VL) {
            const int64_t lanes = FC_NAME(lanes_of)(n - i);
            T *at = dst + i * step;
            FC_NAME(store_row)(at, v_one_nan(FC_NAME(load_row)(at, lanes, step)), lanes, step);
        }
}

// out[j][i] = in[i][j] for columns j side by side; rows from `rows` to `pitch` are zeros.  With `places`, out[j] is
// out + places[j].
FC_INLINE void FC_NAME(transposed)(T *out, int64_t pitch, const int64_t *places, const T *in, int64_t outer,
                                   int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < pitch; i += FC_VL)
        for (int64_t j = 0; j < columns; j += FC_VL) {
            const int64_t width = FC_NAME(lanes_of)(columns - j), height = pitch - i;
            vec v[FC_VL];
            if (width == FC_VL && rows - i >= FC_VL) {
#pragma GCC unroll 16
                for (int64_t r = 0; r < FC_VL; r++) v[r] = v_load(in + (i + r) * outer + j);
            } else
                for (int64_t r = 0; r < FC_VL; r++)
                    v[r] = i + r < rows ? v_load_part(in + (i + r) * outer + j, width) : v_set1(0);
            v_transpose(v);
            if (width == FC_VL && height >= FC_VL) {
#pragma GCC unroll 16
                for (int64_t c = 0; c < FC_VL; c++) v_store(out + (places ? places[j + c] : (j + c) * pitch) + i, v[c]);
            } else
                for (int64_t c = 0; c < width; c++)
                    v_store_part(out + (places ? places[j + c] : (j + c) * pitch) + i, v[c], FC_NAME(lanes_of)(height));
        }
}
