// SPDX-License-Identifier: BSD-3-Clause
//
// Sixteen floats or eight doubles; the contract stands in scalar.h.
#ifndef FC_SIMD_H
#define FC_SIMD_H

#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) || !defined(__FMA__)
#error "avx512.h needs -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma"
#endif

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

// Holds a value in a vector register and hides it from the optimiser (the FMA ceiling of burn.tmpl.c).
#define FC_KEEP(v) __asm__ volatile("" : "+v"(v))

enum { FC_VL_f32 = 16, FC_VL_f64 = 8 };

// M is the mask type's width, I the intrinsics' suffix.
#define FC_AVX512_OPS(T, S, R, M, I)                                                                                   \
    typedef R v_##S;                                                                                                   \
    static inline v_##S v_load_##S(const T *p) { return _mm512_loadu_##I(p); }                                         \
    static inline void v_store_##S(T *p, v_##S a) { _mm512_storeu_##I(p, a); }                                         \
    static inline v_##S v_load_part_##S(const T *p, int64_t n) {                                                       \
        return _mm512_maskz_loadu_##I((__mmask##M)((1u << n) - 1), p);                                                 \
    }                                                                                                                  \
    static inline void v_store_part_##S(T *p, v_##S a, int64_t n) {                                                    \
        _mm512_mask_storeu_##I(p, (__mmask##M)((1u << n) - 1), a);                                                     \
    }                                                                                                                  \
    static inline v_##S v_set1_##S(T a) { return _mm512_set1_##I(a); }                                                 \
    static inline v_##S v_add_##S(v_##S a, v_##S b) { return _mm512_add_##I(a, b); }                                   \
    static inline v_##S v_sub_##S(v_##S a, v_##S b) { return _mm512_sub_##I(a, b); }                                   \
    static inline v_##S v_mul_##S(v_##S a, v_##S b) { return _mm512_mul_##I(a, b); }                                   \
    static inline v_##S v_fma_##S(v_##S a, v_##S b, v_##S c) { return _mm512_fmadd_##I(a, b, c); }                     \
    static inline v_##S v_fnma_##S(v_##S a, v_##S b, v_##S c) { return _mm512_fnmadd_##I(a, b, c); }                   \
    static inline v_##S v_max_##S(v_##S a, v_##S b) { return _mm512_max_##I(a, b); }                                   \
    static inline v_##S v_min_##S(v_##S a, v_##S b) { return _mm512_min_##I(a, b); }                                   \
    static inline v_##S v_div_##S(v_##S a, v_##S b) { return _mm512_div_##I(a, b); }                                   \
    static inline v_##S v_sqrt_##S(v_##S a) { return _mm512_sqrt_##I(a); }                                             \
    static inline v_##S v_round_##S(v_##S a) { return _mm512_roundscale_##I(a, _MM_FROUND_TO_NEAREST_INT); }           \
    static inline v_##S v_floor_##S(v_##S a) { return _mm512_roundscale_##I(a, _MM_FROUND_TO_NEG_INF); }               \
    static inline v_##S v_ceil_##S(v_##S a) { return _mm512_roundscale_##I(a, _MM_FROUND_TO_POS_INF); }                \
    static inline v_##S v_exponent_##S(v_##S a) { return _mm512_getexp_##I(a); }                                       \
    static inline v_##S v_one_nan_##S(v_##S a) {                                                                       \
        return _mm512_mask_mov_##I(a, _mm512_cmp_##I##_mask(a, a, _CMP_UNORD_Q), _mm512_set1_##I((T)NAN));             \
    }                                                                                                                  \
    static inline int v_finite_##S(v_##S a) { return _mm512_fpclass_##I##_mask(a, 0x99) == 0; }                        \
    static inline v_##S v_scale_##S(v_##S a, v_##S n) { return _mm512_scalef_##I(a, n); }                              \
    typedef __mmask##M m_##S;                                                                                          \
    static inline m_##S v_above_##S(v_##S x, v_##S a) {                                                                \
        return _mm512_cmp_##I##_mask(x, a, _CMP_GT_OQ) | _mm512_cmp_##I##_mask(x, x, _CMP_UNORD_Q);                    \
    }                                                                                                                  \
    static inline v_##S v_select_##S(m_##S m, v_##S x, v_##S a) { return _mm512_mask_mov_##I(a, m, x); }               \
    static inline m_##S v_same_##S(v_##S a, v_##S b) { return _mm512_cmp_##I##_mask(a, b, _CMP_EQ_OQ); }               \
    static inline v_##S v_peak_##S(v_##S a, v_##S x) {                                                                 \
        return _mm512_mask_max_##I(x, _mm512_cmp_##I##_mask(x, x, _CMP_ORD_Q), x, a);                                  \
    }

FC_AVX512_OPS(float, f32, __m512, 16, ps)
FC_AVX512_OPS(double, f64, __m512d, 8, pd)
#undef FC_AVX512_OPS

// Half a vector of floats, and half of a whole one; v_half_whole fills the rest with zeros.
typedef __m256 v_half_f32;
static inline v_half_f32 v_half_load_f32(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_half_store_f32(float *p, v_half_f32 a) { _mm256_storeu_ps(p, a); }
static inline v_half_f32 v_half_set1_f32(float a) { return _mm256_set1_ps(a); }
static inline v_half_f32 v_half_add_f32(v_half_f32 a, v_half_f32 b) { return _mm256_add_ps(a, b); }
static inline v_half_f32 v_half_fma_f32(v_half_f32 a, v_half_f32 b, v_half_f32 c) { return _mm256_fmadd_ps(a, b, c); }
static inline v_half_f32 v_half_max_f32(v_half_f32 a, v_half_f32 b) { return _mm256_max_ps(a, b); }
static inline v_half_f32 v_half_min_f32(v_half_f32 a, v_half_f32 b) { return _mm256_min_ps(a, b); }
static inline v_half_f32 v_half_load_lanes_f32(uint32_t lanes, const float *p) {
    return _mm256_maskz_loadu_ps((__mmask8)lanes, p);
}
static inline void v_half_store_part_f32(float *p, v_half_f32 a, int64_t n) {
    _mm256_mask_storeu_ps(p, (__mmask8)((1u << n) - 1), a);
}
static inline v_half_f32 v_half_of_f32(v_f32 a) { return _mm512_castps512_ps256(a); }
static inline v_f32 v_half_whole_f32(v_half_f32 a) { return _mm512_zextps256_ps512(a); }

#define FC_AVX512_PICK(name, S, I, setr, ...)                                                                          \
    static inline v_##S name##_##S(v_##S a, v_##S b) { return _mm512_permutex2var_##I(a, setr(__VA_ARGS__), b); }

FC_AVX512_PICK(v_even, f32, ps, _mm512_setr_epi32, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
FC_AVX512_PICK(v_even, f64, pd, _mm512_setr_epi64, 0, 2, 4, 6, 8, 10, 12, 14)
FC_AVX512_PICK(v_odd, f32, ps, _mm512_setr_epi32, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
FC_AVX512_PICK(v_odd, f64, pd, _mm512_setr_epi64, 1, 3, 5, 7, 9, 11, 13, 15)
FC_AVX512_PICK(v_zip_low, f32, ps, _mm512_setr_epi32, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
FC_AVX512_PICK(v_zip_low, f64, pd, _mm512_setr_epi64, 0, 8, 1, 9, 2, 10, 3, 11)
FC_AVX512_PICK(v_zip_high, f32, ps, _mm512_setr_epi32, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
FC_AVX512_PICK(v_zip_high, f64, pd, _mm512_setr_epi64, 4, 12, 5, 13, 6, 14, 7, 15)
// Even elements of a, then odd elements of b.
FC_AVX512_PICK(fc_even_odd, f32, ps, _mm512_setr_epi32, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31)
FC_AVX512_PICK(fc_even_odd, f64, pd, _mm512_setr_epi64, 0, 2, 4, 6, 9, 11, 13, 15)
#undef FC_AVX512_PICK

#define FC_AVX512_STEPS(S, I, E, bits, ...)                                                                            \
    static inline v_##S v_pick_##S(v_##S a, v_##S v, int64_t step, int64_t j) {                                        \
        const __m512i at = _mm512_mullo_##E(_mm512_setr_##E(__VA_ARGS__), _mm512_set1_##E((int)step));                 \
        const __m512i from = _mm512_srli_##E(at, bits);                                                                \
        return _mm512_mask_permutexvar_##I(a, _mm512_cmpeq_##E##_mask(from, _mm512_set1_##E((int)j)), at, v);          \
    }

FC_AVX512_STEPS(f32, ps, epi32, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
FC_AVX512_STEPS(f64, pd, epi64, 3, 0, 1, 2, 3, 4, 5, 6, 7)
#undef FC_AVX512_STEPS

static inline v_f32 v_spread_f32(v_f32 v, int size, int i) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i run = _mm512_and_si512(lane, _mm512_set1_epi32(-size));
    return _mm512_permutexvar_ps(_mm512_add_epi32(run, _mm512_set1_epi32(i)), v);
}

static inline v_f64 v_spread_f64(v_f64 v, int size, int i) {
    const __m512i run = _mm512_and_si512(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_epi64(-size));
    return _mm512_permutexvar_pd(_mm512_add_epi64(run, _mm512_set1_epi64(i)), v);
}

static inline int64_t fc_clip(int64_t n, int64_t most) { return n < 0 ? 0 : n < most ? n : most; }

#define FC_AVX512_WHERE(T, S, I, N)                                                                                    \
    static inline m_##S v_lanes_##S(int64_t from, int64_t to) {                                                        \
        return (m_##S)(((1u << fc_clip(to, N)) - 1) & ~((1u << fc_clip(from, N)) - 1));                                \
    }                                                                                                                  \
    static inline v_##S v_load_where_##S(m_##S m, const T *p, v_##S a) { return _mm512_mask_loadu_##I(a, m, p); }      \
    static inline v_##S v_load_lanes_##S(m_##S m, const T *p) { return _mm512_maskz_loadu_##I(m, p); }

FC_AVX512_WHERE(float, f32, ps, 16)
FC_AVX512_WHERE(double, f64, pd, 8)
#undef FC_AVX512_WHERE

// Eight of them, from the lane on whose index is i.
static inline void fc_store_indices(int64_t *p, __m256i a, int64_t i, int64_t s, int64_t n) {
    const __m512i lanes = _mm512_setr_epi64(0, s, 2 * s, 3 * s, 4 * s, 5 * s, 6 * s, 7 * s);
    const __m512i index = _mm512_add_epi64(_mm512_add_epi64(_mm512_set1_epi64(i), lanes), _mm512_cvtepi32_epi64(a));
    _mm512_mask_storeu_epi64(p, v_lanes_f64(0, n), index);
}

static inline void v_store_indices_f32(int64_t *p, v_f32 a, int64_t i, int64_t s, int64_t n) {
    const __m512i whole = _mm512_cvttps_epi32(a);
    fc_store_indices(p, _mm512_castsi512_si256(whole), i, s, n);
    fc_store_indices(p + 8, _mm512_extracti64x4_epi64(whole, 1), i + 8 * s, s, n - 8);
}

static inline void v_store_indices_f64(int64_t *p, v_f64 a, int64_t i, int64_t s, int64_t n) {
    fc_store_indices(p, _mm512_cvttpd_epi32(a), i, s, n);
}

// Eight of them, less i.
static inline __m512i fc_load_indices(const int64_t *p, int64_t i, int64_t n) {
    const m_f64 lanes = v_lanes_f64(0, n);
    return _mm512_maskz_sub_epi64(lanes, _mm512_maskz_loadu_epi64(lanes, p), _mm512_set1_epi64(i));
}

static inline v_f32 v_load_indices_f32(const int64_t *p, int64_t i, int64_t n) {
    const __m256 low = _mm512_cvtepi64_ps(fc_load_indices(p, i, n));
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), _mm512_cvtepi64_ps(fc_load_indices(p + 8, i, n - 8)), 1);
}

static inline v_f64 v_load_indices_f64(const int64_t *p, int64_t i, int64_t n) {
    return _mm512_cvtepi64_pd(fc_load_indices(p, i, n));
}

// The second load starts one element early and so ends on the last element wanted, not behind it.
#define FC_AVX512_LOAD2(T, S, N)                                                                                       \
    static inline v_##S v_load2_##S(const T *p) { return fc_even_odd_##S(v_load_##S(p), v_load_##S(p + N - 1)); }      \
    static inline v_##S v_load2_part_##S(const T *p, int64_t n) {                                                      \
        const v_##S low = v_load_part_##S(p, fc_clip(2 * n - 1, N));                                                   \
        return fc_even_odd_##S(low, v_load_part_##S(p + N - 1, fc_clip(2 * n - N, N)));                                \
    }

FC_AVX512_LOAD2(float, f32, 16)
FC_AVX512_LOAD2(double, f64, 8)
#undef FC_AVX512_LOAD2

static inline v_f32 v_load_half(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

static inline void v_store_half(uint16_t *p, v_f32 a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// Pairs, then quads within 128-bit lanes, then the lanes themselves twice.
static inline __attribute__((always_inline)) void v_transpose_f32(v_f32 v[16]) {
    v_f32 t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        v[4 * i] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        v[4 * i + 1] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        v[4 * i + 2] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        v[4 * i + 3] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(v[i], v[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(v[i], v[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(v[i + 8], v[i + 12], 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 8; i++) {
        v[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        v[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    }
}

static inline __attribute__((always_inline)) void v_transpose_f64(v_f64 v[8]) {
    v_f64 t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm512_unpacklo_pd(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_pd(v[2 * i], v[2 * i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2; i++) {
        v[i] = _mm512_shuffle_f64x2(t[i], t[i + 2], 0x88);
        v[i + 2] = _mm512_shuffle_f64x2(t[i], t[i + 2], 0xdd);
        v[i + 4] = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0x88);
        v[i + 6] = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f64x2(v[i], v[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f64x2(v[i], v[i + 4], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) v[i] = t[i];
}

#include "simd/apart.h"

// Every second element by two masked stores, which leave those in between alone; other steps one by one.
#define FC_AVX512_APART(T, S, M, N, I, permute, low, high)                                                             \
    static inline void v_store_apart_##S(T *p, v_##S a, int64_t n, int64_t step) {                                     \
        if (step != 2) {                                                                                               \
            fc_store_each_##S(p, a, n, step);                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        const uint32_t lanes = (uint32_t)((UINT64_C(1) << 2 * n) - 1) & 0x55555555u;                                   \
        _mm512_mask_storeu_##I(p, (__mmask##M)lanes, permute(low, a));                                                 \
        _mm512_mask_storeu_##I(p + N, (__mmask##M)(lanes >> N), permute(high, a));                                     \
    }

FC_AVX512_APART(float, f32, 16, 16, ps, _mm512_permutexvar_ps,
                _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                _mm512_setr_epi32(8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15))
FC_AVX512_APART(double, f64, 8, 8, pd, _mm512_permutexvar_pd, _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3),
                _mm512_setr_epi64(4, 4, 5, 5, 6, 6, 7, 7))
#undef FC_AVX512_APART

#endif
