// SPDX-License-Identifier: BSD-3-Clause
//
// map.tmpl.c - activations that are no clamp, in place:
//
//   sigmoid(x) = 1 / (1 + exp(-x))       silu(x) = x * sigmoid(x)       hardswish(x) = x * min(max(x + 3, 0), 6) / 6
//
// With t = -|x| and n = t / ln 2 to the nearest, exp(t) = 2^n * p, where p is the Taylor sum of exp at t - n * ln 2: that
// is 0.35 at most, and the first term left out is below a tenth of the last bit.  Then
//
//   sigmoid(x) = 1 / (1 + exp(t)) for x > 0, else p / (1 + exp(t)) * 2^n
//
// in which nothing overflows, and as the power of two comes last, the smallest results have all of their digits.

#if FC_BITS == 32
#define FC_EXP_TERMS 8
#define FC_EXP_LEAST -110 // x * exp(x) is zero from here on
#define FC_EXP_ROUND 0x1.8p23f
#define FC_LOG2_E 0x1.715476p+0f
#define FC_LN2_HIGH 0x1.62e4p-1f // its product with any n is exact
#define FC_LN2_LOW 0x1.7f7d1cp-20f
#else
#define FC_EXP_TERMS 14
#define FC_EXP_LEAST -760
#define FC_EXP_ROUND 0x1.8p52
#define FC_LOG2_E 0x1.71547652b82fep+0
#define FC_LN2_HIGH 0x1.62e42fefa3p-1
#define FC_LN2_LOW 0x1.3de6af278ece6p-42
#endif

// factor * sigmoid(x)
FC_INLINE vec FC_NAME(gated)(vec x, vec factor) {
    static const T inverse_factorial[] = {
        (T)1,
        (T)1,
        (T)(1.0 / 2),
        (T)(1.0 / 6),
        (T)(1.0 / 24),
        (T)(1.0 / 120),
        (T)(1.0 / 720),
        (T)(1.0 / 5040),
        (T)(1.0 / 40320),
        (T)(1.0 / 362880),
        (T)(1.0 / 3628800),
        (T)(1.0 / 39916800),
        (T)(1.0 / 479001600),
        (T)(1.0 / 6227020800),
    };
    const vec zero = v_set1(0), one = v_set1(1), least = v_set1(FC_EXP_LEAST), round = v_set1(FC_EXP_ROUND);
    const vec t = v_max(least, v_min(v_sub(zero, x), x));
    const vec n = v_sub(v_fma(t, v_set1(FC_LOG2_E), round), round);
    const vec r = v_fnma(n, v_set1(FC_LN2_LOW), v_fnma(n, v_set1(FC_LN2_HIGH), t));
    vec p = v_set1(inverse_factorial[FC_EXP_TERMS - 1]);
#pragma GCC unroll 16
    for (int k = FC_EXP_TERMS - 2; k >= 0; k--) p = v_fma(p, r, v_set1(inverse_factorial[k]));
    const vec divisor = v_add(one, v_scale(p, n));
    const vmask positive = v_above(x, zero);
    // Zero rather than what belongs to `least`, which a factor of 1e30 would make something of.
    const vec top = v_select(positive, one, v_select(v_above(x, least), p, zero));
    return v_scale(v_div(v_mul(factor, top), divisor), v_select(positive, zero, n));
}

FC_INLINE vec FC_NAME(mapped)(vec x, const fc_activation activation) {
    if (activation == FC_ACT_SILU) return FC_NAME(gated)(x, x);
    if (activation == FC_ACT_SIGMOID) return FC_NAME(gated)(x, v_set1(1));
    const vec gate = v_min(v_set1(6), v_max(v_set1(0), v_add(x, v_set1(3))));
    return v_mul(x, v_mul(gate, v_set1((T)(1.0 / 6))));
}

FC_INLINE void FC_NAME(map_run)(T *p, int64_t count, int64_t step, const fc_activation activation) {
    if (step == 1)
        for (; count >= FC_VL; p += FC_VL, count -= FC_VL) v_store(p, FC_NAME(mapped)(v_load(p), activation));
    for (int64_t n; count > 0; p += n * step, count -= n) {
        n = count < FC_VL ? count : FC_VL;
        FC_NAME(store_row)(p, FC_NAME(mapped)(FC_NAME(load_row)(p, n, step), activation), n, step);
    }
}

static void FC_NAME(map)(fc_activation activation, void *data, int64_t count, int64_t step) {
    if (activation == FC_ACT_SILU) FC_NAME(map_run)(data, count, step, FC_ACT_SILU);
    if (activation == FC_ACT_HARDSWISH) FC_NAME(map_run)(data, count, step, FC_ACT_HARDSWISH);
    if (activation == FC_ACT_SIGMOID) FC_NAME(map_run)(data, count, step, FC_ACT_SIGMOID);
}

#undef FC_EXP_TERMS
#undef FC_EXP_LEAST
#undef FC_EXP_ROUND
#undef FC_LOG2_E
#undef FC_LN2_HIGH
#undef FC_LN2_LOW
