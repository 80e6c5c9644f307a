// SPDX-License-Identifier: BSD-3-Clause
//
// Eight floats or four doubles; the contract stands in scalar.h.
#ifndef FC_SIMD_H
#define FC_SIMD_H

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__) || defined(__AVX512F__)
#error "avx2.h needs -mavx2 -mfma -mf16c and nothing wider"
#endif

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

// Holds a value in a vector register and hides it from the optimiser (the FMA ceiling of burn.tmpl.c).
#define FC_KEEP(v) __asm__ volatile("" : "+x"(v))

enum { FC_VL_f32 = 8, FC_VL_f64 = 4 };

static inline int64_t fc_clip(int64_t n, int64_t most) { return n < 0 ? 0 : n < most ? n : most; }

static inline __m256i fc_first_f32(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256i fc_first_f64(int64_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

#define FC_AVX2_OPS(T, S, R, I)                                                                                        \
    typedef R v_##S;                                                                                                   \
    static inline v_##S v_load_##S(const T *p) { return _mm256_loadu_##I(p); }                                         \
    static inline void v_store_##S(T *p, v_##S a) { _mm256_storeu_##I(p, a); }                                         \
    static inline v_##S v_load_part_##S(const T *p, int64_t n) { return _mm256_maskload_##I(p, fc_first_##S(n)); }     \
    static inline v_##S v_set1_##S(T a) { return _mm256_set1_##I(a); }                                                 \
    static inline v_##S v_add_##S(v_##S a, v_##S b) { return _mm256_add_##I(a, b); }                                   \
    static inline v_##S v_sub_##S(v_##S a, v_##S b) { return _mm256_sub_##I(a, b); }                                   \
    static inline v_##S v_mul_##S(v_##S a, v_##S b) { return _mm256_mul_##I(a, b); }                                   \
    static inline v_##S v_fma_##S(v_##S a, v_##S b, v_##S c) { return _mm256_fmadd_##I(a, b, c); }                     \
    static inline v_##S v_fnma_##S(v_##S a, v_##S b, v_##S c) { return _mm256_fnmadd_##I(a, b, c); }                   \
    static inline v_##S v_max_##S(v_##S a, v_##S b) { return _mm256_max_##I(a, b); }                                   \
    static inline v_##S v_min_##S(v_##S a, v_##S b) { return _mm256_min_##I(a, b); }                                   \
    static inline v_##S v_div_##S(v_##S a, v_##S b) { return _mm256_div_##I(a, b); }                                   \
    static inline v_##S v_sqrt_##S(v_##S a) { return _mm256_sqrt_##I(a); }                                             \
    static inline v_##S v_round_##S(v_##S a) { return _mm256_round_##I(a, _MM_FROUND_TO_NEAREST_INT); }                \
    static inline v_##S v_floor_##S(v_##S a) { return _mm256_floor_##I(a); }                                           \
    static inline v_##S v_ceil_##S(v_##S a) { return _mm256_ceil_##I(a); }                                             \
    static inline v_##S v_one_nan_##S(v_##S a) {                                                                       \
        return _mm256_blendv_##I(a, _mm256_set1_##I((T)NAN), _mm256_cmp_##I(a, a, _CMP_UNORD_Q));                      \
    }                                                                                                                  \
    static inline int v_finite_##S(v_##S a) {                                                                          \
        const v_##S zero = _mm256_sub_##I(a, a);                                                                       \
        return _mm256_movemask_##I(_mm256_cmp_##I(zero, zero, _CMP_UNORD_Q)) == 0;                                     \
    }                                                                                                                  \
    typedef R m_##S;                                                                                                   \
    static inline m_##S v_above_##S(v_##S x, v_##S a) {                                                                \
        return _mm256_or_##I(_mm256_cmp_##I(x, a, _CMP_GT_OQ), _mm256_cmp_##I(x, x, _CMP_UNORD_Q));                    \
    }                                                                                                                  \
    static inline v_##S v_select_##S(m_##S m, v_##S x, v_##S a) { return _mm256_blendv_##I(a, x, m); }                 \
    static inline m_##S v_same_##S(v_##S a, v_##S b) { return _mm256_cmp_##I(a, b, _CMP_EQ_OQ); }                      \
    static inline v_##S v_peak_##S(v_##S a, v_##S x) {                                                                 \
        return _mm256_blendv_##I(_mm256_max_##I(x, a), x, _mm256_cmp_##I(x, x, _CMP_UNORD_Q));                         \
    }                                                                                                                  \
    static inline m_##S v_lanes_##S(int64_t from, int64_t to) {                                                        \
        return (m_##S)_mm256_andnot_si256(fc_first_##S(fc_clip(from, FC_VL_##S)),                                      \
                                          fc_first_##S(fc_clip(to, FC_VL_##S)));                                       \
    }                                                                                                                  \
    static inline v_##S v_load_where_##S(m_##S m, const T *p, v_##S a) {                                               \
        return _mm256_blendv_##I(a, _mm256_maskload_##I(p, (__m256i)m), m);                                            \
    }                                                                                                                  \
    static inline v_##S v_load_lanes_##S(m_##S m, const T *p) { return _mm256_maskload_##I(p, (__m256i)m); }

FC_AVX2_OPS(float, f32, __m256, ps)
FC_AVX2_OPS(double, f64, __m256d, pd)
#undef FC_AVX2_OPS

// The words of a from the one at `first` on.
static inline __m256i fc_words_from(__m256i a, int64_t first) {
    const __m256i words = _mm256_add_epi32(_mm256_set1_epi32((int)first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    return _mm256_permutevar8x32_epi32(a, words);
}

// The first n lanes, by stores that overlap: AMD's processors take some twenty cycles for a store by mask.
static inline void v_store_part_f32(float *p, v_f32 a, int64_t n) {
    const __m256i words = _mm256_castps_si256(a);
    if (n >= 8) _mm256_storeu_ps(p, a);
    else if (n >= 4) {
        _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(words));
        _mm_storeu_si128((__m128i *)(p + n - 4), _mm256_castsi256_si128(fc_words_from(words, n - 4)));
    } else if (n >= 2) {
        _mm_storel_epi64((__m128i *)p, _mm256_castsi256_si128(words));
        _mm_storel_epi64((__m128i *)(p + n - 2), _mm256_castsi256_si128(fc_words_from(words, n - 2)));
    } else if (n > 0) _mm_store_ss(p, _mm256_castps256_ps128(a));
}

// Pairs of 64 bits, then one.
static inline void fc_store_quads(void *p, __m256i a, int64_t n) {
    __m128i *to = p;
    if (n >= 4) _mm256_storeu_si256((__m256i *)p, a);
    else if (n >= 2) {
        _mm_storeu_si128(to, _mm256_castsi256_si128(a));
        if (n == 3) _mm_storel_epi64(to + 1, _mm256_extracti128_si256(a, 1));
    } else if (n == 1) _mm_storel_epi64(to, _mm256_castsi256_si128(a));
}

static inline void v_store_part_f64(double *p, v_f64 a, int64_t n) { fc_store_quads(p, _mm256_castpd_si256(a), n); }

// By two powers of two, and those by their exponents' bits.
static inline v_f32 fc_power_f32(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
static inline v_f32 v_scale_f32(v_f32 a, v_f32 n) {
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(a, fc_power_f32(half)), fc_power_f32(_mm256_sub_epi32(whole, half)));
}

static inline v_f64 fc_power_f64(__m128i n) {
    const __m256i exponent = _mm256_cvtepi32_epi64(_mm_add_epi32(n, _mm_set1_epi32(1023)));
    return _mm256_castsi256_pd(_mm256_slli_epi64(exponent, 52));
}
static inline v_f64 v_scale_f64(v_f64 a, v_f64 n) {
    const __m128i whole = _mm256_cvtpd_epi32(n), half = _mm_srai_epi32(whole, 1);
    return _mm256_mul_pd(_mm256_mul_pd(a, fc_power_f64(half)), fc_power_f64(_mm_sub_epi32(whole, half)));
}

static inline v_f32 v_exponent_f32(v_f32 a) {
    const __m256i biased = _mm256_srli_epi32(_mm256_slli_epi32(_mm256_castps_si256(a), 1), 24);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(biased, _mm256_set1_epi32(127)));
}

// The exponent becomes the last bits of 2^52.
static inline v_f64 v_exponent_f64(v_f64 a) {
    const __m256i biased = _mm256_srli_epi64(_mm256_slli_epi64(_mm256_castpd_si256(a), 1), 53);
    const __m256d power = _mm256_set1_pd(0x1p52);
    return _mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(biased), power), _mm256_add_pd(power, _mm256_set1_pd(1023)));
}

// Four of them, from the lane on whose index is i.
static inline void fc_store_indices(int64_t *p, __m128i a, int64_t i, int64_t s, int64_t n) {
    const __m256i first = _mm256_add_epi64(_mm256_set1_epi64x(i), _mm256_setr_epi64x(0, s, 2 * s, 3 * s));
    fc_store_quads(p, _mm256_add_epi64(first, _mm256_cvtepi32_epi64(a)), n);
}

static inline void v_store_indices_f32(int64_t *p, v_f32 a, int64_t i, int64_t s, int64_t n) {
    const __m256i whole = _mm256_cvttps_epi32(a);
    fc_store_indices(p, _mm256_castsi256_si128(whole), i, s, n);
    fc_store_indices(p + 4, _mm256_extracti128_si256(whole, 1), i + 4 * s, s, n - 4);
}

static inline void v_store_indices_f64(int64_t *p, v_f64 a, int64_t i, int64_t s, int64_t n) {
    fc_store_indices(p, _mm256_cvttpd_epi32(a), i, s, n);
}

// Four of them, less i.
static inline __m256i fc_load_indices(const int64_t *p, int64_t i, int64_t n) {
    const __m256i lanes = fc_first_f64(fc_clip(n, 4));
    const __m256i index = _mm256_maskload_epi64((const long long *)p, lanes);
    return _mm256_and_si256(_mm256_sub_epi64(index, _mm256_set1_epi64x(i)), lanes);
}

// NaN for what 32 bits do not hold.
static inline v_f32 v_load_indices_f32(const int64_t *p, int64_t i, int64_t n) {
    const __m256 a = _mm256_castsi256_ps(fc_load_indices(p, i, n));
    const __m256 b = _mm256_castsi256_ps(fc_load_indices(p + 4, i, n - 4));
    const __m256i low = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), 0xd8);
    const __m256i high = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd)), 0xd8);
    const __m256i fits = _mm256_cmpeq_epi32(_mm256_srai_epi32(low, 31), high);
    const __m256i all = _mm256_set1_epi32(-1);
    return _mm256_or_ps(_mm256_cvtepi32_ps(low), _mm256_castsi256_ps(_mm256_andnot_si256(fits, all)));
}

static inline v_f64 v_load_indices_f64(const int64_t *p, int64_t i, int64_t n) {
    const __m256i a = fc_load_indices(p, i, n), evens = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    const __m128i low = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(a, evens));
    const __m256i fits = _mm256_cmpeq_epi64(_mm256_cvtepi32_epi64(low), a);
    const __m256i all = _mm256_set1_epi32(-1);
    return _mm256_or_pd(_mm256_cvtepi32_pd(low), _mm256_castsi256_pd(_mm256_andnot_si256(fits, all)));
}

// `in order` undoes what shuffles within 128-bit lanes do to pairs.
static inline v_f32 fc_in_order_f32(v_f32 v) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), _MM_SHUFFLE(3, 1, 2, 0)));
}
static inline v_f64 fc_in_order_f64(v_f64 v) { return _mm256_permute4x64_pd(v, _MM_SHUFFLE(3, 1, 2, 0)); }

#define FC_AVX2_PICK(name, S, I, how)                                                                                  \
    static inline v_##S name##_##S(v_##S a, v_##S b) { return fc_in_order_##S(_mm256_shuffle_##I(a, b, how)); }

FC_AVX2_PICK(v_even, f32, ps, _MM_SHUFFLE(2, 0, 2, 0))
FC_AVX2_PICK(v_even, f64, pd, 0x0)
FC_AVX2_PICK(v_odd, f32, ps, _MM_SHUFFLE(3, 1, 3, 1))
FC_AVX2_PICK(v_odd, f64, pd, 0xf)
FC_AVX2_PICK(fc_even_odd, f32, ps, _MM_SHUFFLE(3, 1, 2, 0)) // even elements of a, then odd elements of b
FC_AVX2_PICK(fc_even_odd, f64, pd, 0xa)
#undef FC_AVX2_PICK

#define FC_AVX2_ZIP(S, I)                                                                                              \
    static inline v_##S v_zip_low_##S(v_##S a, v_##S b) {                                                              \
        return _mm256_permute2f128_##I(_mm256_unpacklo_##I(a, b), _mm256_unpackhi_##I(a, b), 0x20);                    \
    }                                                                                                                  \
    static inline v_##S v_zip_high_##S(v_##S a, v_##S b) {                                                             \
        return _mm256_permute2f128_##I(_mm256_unpacklo_##I(a, b), _mm256_unpackhi_##I(a, b), 0x31);                    \
    }

FC_AVX2_ZIP(f32, ps)
FC_AVX2_ZIP(f64, pd)
#undef FC_AVX2_ZIP

static inline v_f32 v_pick_f32(v_f32 a, v_f32 v, int64_t step, int64_t j) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i at = _mm256_mullo_epi32(lane, _mm256_set1_epi32((int)step));
    const __m256i here = _mm256_cmpeq_epi32(_mm256_srli_epi32(at, 3), _mm256_set1_epi32((int)j));
    return _mm256_blendv_ps(a, _mm256_permutevar8x32_ps(v, at), _mm256_castsi256_ps(here));
}

// Halves of a lane go the same way.
static inline v_f64 v_pick_f64(v_f64 a, v_f64 v, int64_t step, int64_t j) {
    const __m256i lane = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3), half = _mm256_setr_epi32(0, 1, 0, 1, 0, 1, 0, 1);
    const __m256i at = _mm256_mullo_epi32(lane, _mm256_set1_epi32((int)step));
    const __m256i here = _mm256_cmpeq_epi32(_mm256_srli_epi32(at, 2), _mm256_set1_epi32((int)j));
    const __m256i from = _mm256_add_epi32(_mm256_add_epi32(at, at), half);
    const __m256 picked = _mm256_permutevar8x32_ps(_mm256_castpd_ps(v), from);
    return _mm256_blendv_pd(a, _mm256_castps_pd(picked), _mm256_castsi256_pd(here));
}

// The second load starts one element early and so ends on the last element wanted, not behind it.
#define FC_AVX2_LOAD2(T, S, N)                                                                                         \
    static inline v_##S v_load2_##S(const T *p) { return fc_even_odd_##S(v_load_##S(p), v_load_##S(p + N - 1)); }      \
    static inline v_##S v_load2_part_##S(const T *p, int64_t n) {                                                      \
        return fc_even_odd_##S(v_load_part_##S(p, 2 * n - 1), v_load_part_##S(p + N - 1, 2 * n - N));                  \
    }

FC_AVX2_LOAD2(float, f32, 8)
FC_AVX2_LOAD2(double, f64, 4)
#undef FC_AVX2_LOAD2

static inline v_f32 v_load_half(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

static inline void v_store_half(uint16_t *p, v_f32 a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

// Pairs, then quads within 128-bit lanes, then the lanes.
static inline __attribute__((always_inline)) void v_transpose_f32(v_f32 v[8]) {
    v_f32 t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 2; i++) {
        v[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        v[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        v[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        v[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) v[i] = t[i];
}

static inline __attribute__((always_inline)) void v_transpose_f64(v_f64 v[4]) {
    v_f64 a = _mm256_unpacklo_pd(v[0], v[1]), b = _mm256_unpackhi_pd(v[0], v[1]);
    v_f64 c = _mm256_unpacklo_pd(v[2], v[3]), d = _mm256_unpackhi_pd(v[2], v[3]);
    v[0] = _mm256_permute2f128_pd(a, c, 0x20);
    v[1] = _mm256_permute2f128_pd(b, d, 0x20);
    v[2] = _mm256_permute2f128_pd(a, c, 0x31);
    v[3] = _mm256_permute2f128_pd(b, d, 0x31);
}

static inline v_f32 v_spread_f32(v_f32 v, int size, int i) {
    const __m256i run = _mm256_and_si256(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(-size));
    return _mm256_permutevar8x32_ps(v, _mm256_add_epi32(run, _mm256_set1_epi32(i)));
}

// Doubles are moved as pairs of halves.
static inline v_f64 v_spread_f64(v_f64 v, int size, int i) {
    const __m256i run = _mm256_and_si256(_mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3), _mm256_set1_epi32(-size));
    const __m256i lane = _mm256_add_epi32(run, _mm256_set1_epi32(i));
    const __m256i half = _mm256_add_epi32(_mm256_slli_epi32(lane, 1), _mm256_setr_epi32(0, 1, 0, 1, 0, 1, 0, 1));
    return _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(v), half));
}

#include "simd/apart.h"

#define v_store_apart_f32 fc_store_each_f32
#define v_store_apart_f64 fc_store_each_f64

#endif
