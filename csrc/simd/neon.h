// SPDX-License-Identifier: BSD-3-Clause
//
// AArch64 Advanced SIMD, four floats or two doubles; the contract stands in scalar.h.
#ifndef FC_SIMD_H
#define FC_SIMD_H

#if !defined(__aarch64__)
#error "neon.h is for AArch64"
#endif

#include <arm_neon.h>
#include <math.h>
#include <stdint.h>

// Holds a value in a vector register and hides it from the optimiser (the FMA ceiling of burn.tmpl.c).
#define FC_KEEP(v) __asm__ volatile("" : "+w"(v))

enum { FC_VL_f32 = 4, FC_VL_f64 = 2 };

// U is the mask's type and O its a | ~b.
#define FC_NEON_OPS(T, S, R, U, O)                                                                                     \
    typedef R v_##S;                                                                                                   \
    static inline v_##S v_load_##S(const T *p) { return vld1q_##S(p); }                                                \
    static inline void v_store_##S(T *p, v_##S a) { vst1q_##S(p, a); }                                                 \
    static inline v_##S v_load_part_##S(const T *p, int64_t n) {                                                       \
        T t[FC_VL_##S] = {0};                                                                                          \
        for (int64_t i = 0; i < n; i++) t[i] = p[i];                                                                   \
        return vld1q_##S(t);                                                                                           \
    }                                                                                                                  \
    static inline void v_store_part_##S(T *p, v_##S a, int64_t n) {                                                    \
        T t[FC_VL_##S];                                                                                                \
        vst1q_##S(t, a);                                                                                               \
        for (int64_t i = 0; i < n; i++) p[i] = t[i];                                                                   \
    }                                                                                                                  \
    static inline v_##S v_set1_##S(T a) { return vdupq_n_##S(a); }                                                     \
    static inline v_##S v_add_##S(v_##S a, v_##S b) { return vaddq_##S(a, b); }                                        \
    static inline v_##S v_sub_##S(v_##S a, v_##S b) { return vsubq_##S(a, b); }                                        \
    static inline v_##S v_mul_##S(v_##S a, v_##S b) { return vmulq_##S(a, b); }                                        \
    static inline v_##S v_fma_##S(v_##S a, v_##S b, v_##S c) { return vfmaq_##S(c, a, b); }                            \
    static inline v_##S v_fnma_##S(v_##S a, v_##S b, v_##S c) { return vfmsq_##S(c, a, b); }                           \
    static inline v_##S v_max_##S(v_##S a, v_##S b) { return vbslq_##S(vcgtq_##S(a, b), a, b); }                       \
    static inline v_##S v_min_##S(v_##S a, v_##S b) { return vbslq_##S(vcltq_##S(a, b), a, b); }                       \
    static inline v_##S v_load2_part_##S(const T *p, int64_t n) {                                                      \
        T t[FC_VL_##S] = {0};                                                                                          \
        for (int64_t i = 0; i < n; i++) t[i] = p[2 * i];                                                               \
        return vld1q_##S(t);                                                                                           \
    }                                                                                                                  \
    static inline v_##S v_even_##S(v_##S a, v_##S b) { return vuzp1q_##S(a, b); }                                      \
    static inline v_##S v_odd_##S(v_##S a, v_##S b) { return vuzp2q_##S(a, b); }                                       \
    static inline v_##S v_zip_low_##S(v_##S a, v_##S b) { return vzip1q_##S(a, b); }                                   \
    static inline v_##S v_zip_high_##S(v_##S a, v_##S b) { return vzip2q_##S(a, b); }                                  \
    static inline v_##S v_div_##S(v_##S a, v_##S b) { return vdivq_##S(a, b); }                                        \
    static inline v_##S v_sqrt_##S(v_##S a) { return vsqrtq_##S(a); }                                                  \
    static inline v_##S v_round_##S(v_##S a) { return vrndnq_##S(a); }                                                 \
    static inline v_##S v_floor_##S(v_##S a) { return vrndmq_##S(a); }                                                 \
    static inline v_##S v_ceil_##S(v_##S a) { return vrndpq_##S(a); }                                                  \
    static inline v_##S v_one_nan_##S(v_##S a) { return vbslq_##S(vceqq_##S(a, a), a, vdupq_n_##S((T)NAN)); }          \
    static inline int v_finite_##S(v_##S a) {                                                                          \
        const v_##S zero = vsubq_##S(a, a);                                                                            \
        return vminvq_u32((uint32x4_t)vceqq_##S(zero, zero)) != 0;                                                     \
    }                                                                                                                  \
    typedef U m_##S;                                                                                                   \
    static inline m_##S v_above_##S(v_##S x, v_##S a) { return O(vcgtq_##S(x, a), vceqq_##S(x, x)); }                  \
    static inline v_##S v_select_##S(m_##S m, v_##S x, v_##S a) { return vbslq_##S(m, x, a); }                         \
    static inline m_##S v_same_##S(v_##S a, v_##S b) { return vceqq_##S(a, b); }                                       \
    static inline v_##S v_load_indices_##S(const int64_t *p, int64_t i, int64_t n) {                                   \
        T t[FC_VL_##S] = {0};                                                                                          \
        for (int64_t l = 0; l < n && l < FC_VL_##S; l++) t[l] = (T)(int64_t)((uint64_t)p[l] - (uint64_t)i);            \
        return vld1q_##S(t);                                                                                           \
    }                                                                                                                  \
    static inline v_##S v_peak_##S(v_##S a, v_##S x) { return v_select_##S(v_above_##S(x, a), x, a); }                 \
    static inline m_##S v_lanes_##S(int64_t from, int64_t to) {                                                        \
        T t[FC_VL_##S];                                                                                                \
        for (int64_t i = 0; i < FC_VL_##S; i++) t[i] = from <= i && i < to;                                            \
        return vcgtq_##S(vld1q_##S(t), vdupq_n_##S(0));                                                                \
    }                                                                                                                  \
    static inline v_##S v_load_where_##S(m_##S m, const T *p, v_##S a) {                                               \
        T t[FC_VL_##S];                                                                                                \
        vst1q_##S(t, a);                                                                                               \
        for (int64_t i = 0; i < FC_VL_##S; i++)                                                                        \
            if (m[i]) t[i] = p[i];                                                                                     \
        return vld1q_##S(t);                                                                                           \
    }                                                                                                                  \
    static inline v_##S v_load_lanes_##S(m_##S m, const T *p) { return v_load_where_##S(m, p, vdupq_n_##S(0)); }       \
    static inline void v_store_indices_##S(int64_t *p, v_##S a, int64_t i, int64_t s, int64_t n) {                     \
        T t[FC_VL_##S];                                                                                                \
        vst1q_##S(t, a);                                                                                               \
        for (int64_t l = 0; l < n; l++) p[l] = i + l * s + (int32_t)t[l];                                              \
    }

FC_NEON_OPS(float, f32, float32x4_t, uint32x4_t, vornq_u32)
FC_NEON_OPS(double, f64, float64x2_t, uint64x2_t, vornq_u64)
#undef FC_NEON_OPS

// By two powers of two, and those by their exponents' bits.
#define FC_NEON_SCALE(S, I, R, bits, bias)                                                                             \
    static inline v_##S fc_power_##S(R n) {                                                                            \
        return vreinterpretq_##S##_##I(vshlq_n_##I(vaddq_##I(n, vdupq_n_##I(bias)), bits));                            \
    }                                                                                                                  \
    static inline v_##S v_scale_##S(v_##S a, v_##S n) {                                                                \
        const R whole = vcvtnq_##I##_##S(n), half = vshrq_n_##I(whole, 1);                                             \
        return vmulq_##S(vmulq_##S(a, fc_power_##S(half)), fc_power_##S(vsubq_##I(whole, half)));                      \
    }                                                                                                                  \
    static inline v_##S v_exponent_##S(v_##S a) {                                                                      \
        const R word = vreinterpretq_##I##_##S(vabsq_##S(a));                                                          \
        return vcvtq_##S##_##I(vsubq_##I(vshrq_n_##I(word, bits), vdupq_n_##I(bias)));                                 \
    }

FC_NEON_SCALE(f32, s32, int32x4_t, 23, 127)
FC_NEON_SCALE(f64, s64, int64x2_t, 52, 1023)
#undef FC_NEON_SCALE

// The second load starts one element early and so ends on the last element wanted, not behind it.
static inline v_f32 v_load2_f32(const float *p) {
    float32x4_t low = vld1q_f32(p), high = vld1q_f32(p + 3);
    return vcombine_f32(vget_low_f32(vuzp1q_f32(low, low)), vget_low_f32(vuzp2q_f32(high, high)));
}

static inline v_f64 v_load2_f64(const double *p) { return vcombine_f64(vld1_f64(p), vld1_f64(p + 2)); }

static inline v_f32 v_load_half(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }

static inline void v_store_half(uint16_t *p, v_f32 a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a))); }

static inline __attribute__((always_inline)) void v_transpose_f32(v_f32 v[4]) {
    float32x4_t a = vtrn1q_f32(v[0], v[1]), b = vtrn2q_f32(v[0], v[1]);
    float32x4_t c = vtrn1q_f32(v[2], v[3]), d = vtrn2q_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    v[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    v[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    v[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
}

static inline __attribute__((always_inline)) void v_transpose_f64(v_f64 v[2]) {
    v_f64 a = vzip1q_f64(v[0], v[1]);
    v[1] = vzip2q_f64(v[0], v[1]);
    v[0] = a;
}

// Bytes (lane & -size) * width + i * width + byte of the lane.
static inline uint8x16_t fc_spread(uint8x16_t v, int width, int size, int i) {
    static const uint8_t iota[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const uint8x16_t at = vld1q_u8(iota), byte = vandq_u8(at, vdupq_n_u8((uint8_t)(width - 1)));
    const uint8x16_t run = vandq_u8(at, vdupq_n_u8((uint8_t)(-size * width)));
    return vqtbl1q_u8(v, vaddq_u8(vaddq_u8(run, byte), vdupq_n_u8((uint8_t)(i * width))));
}

static inline v_f32 v_spread_f32(v_f32 v, int size, int i) {
    return vreinterpretq_f32_u8(fc_spread(vreinterpretq_u8_f32(v), 4, size, i));
}

static inline v_f64 v_spread_f64(v_f64 v, int size, int i) {
    return vreinterpretq_f64_u8(fc_spread(vreinterpretq_u8_f64(v), 8, size, i));
}

// Bytes beyond the table keep what was there.
static inline v_f32 v_pick_f32(v_f32 a, v_f32 v, int64_t step, int64_t j) {
    static const uint8_t lanes[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    static const uint8_t bytes[16] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    const uint8x16_t at = vmlaq_u8(vld1q_u8(bytes), vld1q_u8(lanes), vdupq_n_u8((uint8_t)(4 * step)));
    const uint8x16_t from = vsubq_u8(at, vdupq_n_u8((uint8_t)(16 * j)));
    return vreinterpretq_f32_u8(vqtbx1q_u8(vreinterpretq_u8_f32(a), vreinterpretq_u8_f32(v), from));
}

static inline v_f64 v_pick_f64(v_f64 a, v_f64 v, int64_t step, int64_t j) {
    return (void)step, j == 0 ? v : a; // no step fits
}

#include "simd/apart.h"

#define v_store_apart_f32 fc_store_each_f32
#define v_store_apart_f64 fc_store_each_f64

#endif
