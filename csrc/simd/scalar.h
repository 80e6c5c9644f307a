// SPDX-License-Identifier: BSD-3-Clause
//
// The vector operations of one lane: the contract that avx2.h, avx512.h and neon.h fulfil with more lanes.
//
//   v_load v_store              FC_VL contiguous elements, any alignment
//   v_load_part v_store_part    the first n (0 <= n <= FC_VL) elements; the rest read as zero, are not written
//   v_set1 v_add v_sub v_mul    elementwise
//   v_fma(a, b, c)              a * b + c, rounded once
//   v_fnma(a, b, c)             c - a * b, rounded once
//   v_max(a, b) v_min(a, b)     b where either is NaN, so v_max(limit, x) lets NaN through
//   v_one_nan(a)                a, in which every NaN is the same one
//   v_finite(a)                 whether no lane is NaN or infinite
//   v_load2(p)                  elements 0, 2, 4, ... of 2 * FC_VL - 1 contiguous ones
//   v_load2_part(p, n)          the first n of them, as v_load_part
//   v_even(a, b) v_odd(a, b)    elements 0, 2, 4, ... or 1, 3, 5, ... of a and b in a row
//   v_zip_low(a, b) v_zip_high(a, b)
//                               the lower or the upper half of a[0], b[0], a[1], b[1], ...
//   v_pick(a, v, step, j)       element l * step of those that v holds from j * FC_VL on, where it has it, else a
//                               (2 < step <= FC_VL)
//   v_load_apart(p, n, step)    lane l: p[l * step] for the first n lanes, the rest zero
//   v_store_apart(p, a, n, step)
//                               p[l * step] = a[l] for the first n lanes; nothing in between is touched
//   v_div v_sqrt                elementwise
//   v_round v_floor v_ceil      to a whole number: the nearest, of two the even one; the one below; the one above
//   v_exponent(a)               the largest whole n for which 2^n <= |a|, of a normal number
//   v_scale(a, n)               a * 2^n, n whole and no further from zero than twice the exponents of normal numbers
//   v_above(x, a)               mask: x > a or x is NaN, the rule by which x becomes the new maximum
//   v_select(mask, x, a)        x where the mask is set, else a
//   v_same(a, b)                mask: a == b
//   v_peak(a, x)                v_select(v_above(x, a), x, a): the maximum that NaN wins, the first among equals
//   v_spread(v, size, i)        element i of each run of `size` lanes, in all lanes of that run; size a power of two
//   v_load_half(p)              v_f32 of float16 numbers, exactly, whatever the floating-point mode says of denormals
//   v_store_half(p, a)          rounded to nearest even, subnormals kept, infinite from 65520 on, NaN quiet
//   v_transpose(v[FC_VL])       the FC_VL x FC_VL transpose in place
//   v_lanes(from, to)           mask: the lanes from <= l < to, which may lie outside of the vector
//   v_load_where(mask, p, a)    the elements of p where the mask is set, else a; no others are touched
//   v_load_lanes(mask, p)       the same with zeros for a, which takes an instruction less
//   v_store_indices(p, a, i, s, n)
//                               p[l] = i + l * s + a[l] for lanes l < n; a holds whole numbers of 31 bits
//   v_load_indices(p, i, n)     p[l] - i for lanes l < n, the rest zero; what takes more than 24 bits becomes some other
//                               number that does, or NaN
#ifndef FC_SIMD_H
#define FC_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

// Holds a value in a register and hides it from the optimiser (the FMA ceiling of burn.tmpl.c).
#if defined(__x86_64__)
#define FC_KEEP(v) __asm__ volatile("" : "+x"(v))
#elif defined(__aarch64__)
#define FC_KEEP(v) __asm__ volatile("" : "+w"(v))
#else
#define FC_KEEP(v) __asm__ volatile("" : "+m"(v))
#endif

enum { FC_VL_f32 = 1, FC_VL_f64 = 1 };

// A plain multiply and add: without a fused instruction in the baseline, fma() would be a library call per element.
#define FC_SCALAR_OPS(T, S, F)                                                                                         \
    typedef T v_##S;                                                                                                   \
    static inline v_##S v_load_##S(const T *p) { return *p; }                                                          \
    static inline void v_store_##S(T *p, v_##S a) { *p = a; }                                                          \
    static inline v_##S v_load_part_##S(const T *p, int64_t n) { return n > 0 ? *p : (T)0; }                           \
    static inline void v_store_part_##S(T *p, v_##S a, int64_t n) {                                                    \
        if (n > 0) *p = a;                                                                                             \
    }                                                                                                                  \
    static inline v_##S v_set1_##S(T a) { return a; }                                                                  \
    static inline v_##S v_add_##S(v_##S a, v_##S b) { return a + b; }                                                  \
    static inline v_##S v_sub_##S(v_##S a, v_##S b) { return a - b; }                                                  \
    static inline v_##S v_mul_##S(v_##S a, v_##S b) { return a * b; }                                                  \
    static inline v_##S v_fma_##S(v_##S a, v_##S b, v_##S c) { return a * b + c; }                                     \
    static inline v_##S v_fnma_##S(v_##S a, v_##S b, v_##S c) { return c - a * b; }                                    \
    static inline v_##S v_max_##S(v_##S a, v_##S b) { return a > b ? a : b; }                                          \
    static inline v_##S v_min_##S(v_##S a, v_##S b) { return a < b ? a : b; }                                          \
    static inline v_##S v_one_nan_##S(v_##S a) { return a == a ? a : (T)NAN; }                                         \
    static inline int v_finite_##S(v_##S a) { return a - a == 0; }                                                     \
    static inline v_##S v_load2_##S(const T *p) { return *p; }                                                         \
    static inline v_##S v_load2_part_##S(const T *p, int64_t n) { return n > 0 ? *p : (T)0; }                          \
    static inline v_##S v_load_apart_##S(const T *p, int64_t n, int64_t step) {                                        \
        return (void)step, n > 0 ? *p : (T)0;                                                                          \
    }                                                                                                                  \
    static inline void v_store_apart_##S(T *p, v_##S a, int64_t n, int64_t step) {                                     \
        (void)step;                                                                                                    \
        if (n > 0) *p = a;                                                                                             \
    }                                                                                                                  \
    static inline v_##S v_even_##S(v_##S a, v_##S b) { return (void)b, a; }                                            \
    static inline v_##S v_odd_##S(v_##S a, v_##S b) { return (void)a, b; }                                             \
    static inline v_##S v_pick_##S(v_##S a, v_##S v, int64_t step, int64_t j) { return (void)step, j == 0 ? v : a; }   \
    static inline v_##S v_zip_low_##S(v_##S a, v_##S b) { return (void)b, a; }                                         \
    static inline v_##S v_zip_high_##S(v_##S a, v_##S b) { return (void)a, b; }                                        \
    static inline v_##S v_div_##S(v_##S a, v_##S b) { return a / b; }                                                  \
    static inline v_##S v_sqrt_##S(v_##S a) { return sqrt##F(a); }                                                     \
    static inline v_##S v_round_##S(v_##S a) { return rint##F(a); }                                                    \
    static inline v_##S v_floor_##S(v_##S a) { return floor##F(a); }                                                   \
    static inline v_##S v_ceil_##S(v_##S a) { return ceil##F(a); }                                                     \
    typedef int m_##S;                                                                                                 \
    static inline m_##S v_above_##S(v_##S x, v_##S a) { return x > a || x != x; }                                      \
    static inline v_##S v_select_##S(m_##S m, v_##S x, v_##S a) { return m ? x : a; }                                  \
    static inline m_##S v_same_##S(v_##S a, v_##S b) { return a == b; }                                                \
    static inline v_##S v_load_indices_##S(const int64_t *p, int64_t i, int64_t n) {                                   \
        return n > 0 ? (T)(int64_t)((uint64_t)*p - (uint64_t)i) : (T)0;                                                \
    }                                                                                                                  \
    static inline v_##S v_peak_##S(v_##S a, v_##S x) { return x > a || x != x ? x : a; }                               \
    static inline v_##S v_spread_##S(v_##S v, int size, int i) { return (void)size, (void)i, v; }                      \
    static inline void v_transpose_##S(v_##S v[1]) { (void)v; }                                                        \
    static inline m_##S v_lanes_##S(int64_t from, int64_t to) { return from <= 0 && to > 0; }                          \
    static inline v_##S v_load_where_##S(m_##S m, const T *p, v_##S a) { return m ? *p : a; }                          \
    static inline v_##S v_load_lanes_##S(m_##S m, const T *p) { return m ? *p : (T)0; }                                \
    static inline void v_store_indices_##S(int64_t *p, v_##S a, int64_t i, int64_t s, int64_t n) {                     \
        (void)s;                                                                                                       \
        if (n > 0) *p = i + (int32_t)a;                                                                                \
    }

FC_SCALAR_OPS(float, f32, f)
FC_SCALAR_OPS(double, f64, )
#undef FC_SCALAR_OPS

static inline float fc_float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t fc_bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// By two powers of two, and those by their bits: the sum with a large number has n in its last bits.
#define FC_SCALAR_SCALE(T, S, U, I, bits, bias, round)                                                                 \
    static inline T fc_power_##S(I n) {                                                                                \
        const U power = (U)(n + bias) << bits;                                                                         \
        T value;                                                                                                       \
        memcpy(&value, &power, sizeof value);                                                                          \
        return value;                                                                                                  \
    }                                                                                                                  \
    static inline v_##S v_scale_##S(v_##S a, v_##S n) {                                                                \
        const T sum = n + (T)round, zero = (T)round;                                                                   \
        I whole, none;                                                                                                 \
        memcpy(&whole, &sum, sizeof whole);                                                                            \
        memcpy(&none, &zero, sizeof none);                                                                             \
        whole = (I)((U)whole - (U)none);                                                                               \
        return a * fc_power_##S(whole / 2) * fc_power_##S(whole - whole / 2);                                          \
    }                                                                                                                  \
    static inline v_##S v_exponent_##S(v_##S a) {                                                                      \
        U word;                                                                                                        \
        memcpy(&word, &a, sizeof word);                                                                                \
        return (T)((I)(word << 1 >> (bits + 1)) - bias);                                                               \
    }

FC_SCALAR_SCALE(float, f32, uint32_t, int32_t, 23, 127, 0x1.8p23)
FC_SCALAR_SCALE(double, f64, uint64_t, int64_t, 52, 1023, 0x1.8p52)
#undef FC_SCALAR_SCALE

static inline v_f32 v_load_half(const uint16_t *p) {
    const uint32_t sign = (*p & 0x8000u) << 16, rest = *p & 0x7fffu;
    if (rest < 0x400) return fc_float_of(sign | fc_bits_of((float)rest * 0x1p-24f)); // zero and subnormal
    if (rest < 0x7c00) return fc_float_of(sign | (rest + (112u << 10)) << 13);
    return fc_float_of(sign | 0x7f800000 | (rest & 0x3ff) << 13 | (rest > 0x7c00 ? 0x400000 : 0));
}

static inline void v_store_half(uint16_t *p, v_f32 a) {
    const uint32_t bits = fc_bits_of(a), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    uint32_t half;
    if (rest > 0x7f800000) half = 0x7e00 | (rest >> 13 & 0x3ff);
    else if (rest >= 0x477ff000) half = 0x7c00;                                                 // from 65520 on
    else if (rest >= 0x38800000) half = (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13; // from 2^-14 on
    else half = fc_bits_of(fc_float_of(rest) * 0x1p24f + 0x1p23f) - fc_bits_of(0x1p23f);        // multiples of 2^-24
    *p = (uint16_t)(sign | half);
}

#endif
