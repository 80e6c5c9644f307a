// SPDX-License-Identifier: BSD-3-Clause
//
// map_functions.tmpl.c - functions of one vector.  Powers of two come last, so that the smallest results have all of their
// digits, and nothing overflows on the way.
//
//   exp(t) = 2^n * p    n = t / ln 2 to the nearest, p the Taylor sum of exp at r = t - n * ln 2, which is 0.35 at most: the
//                       first term left out is below a tenth of the last bit
//   log(x) = e * ln 2 + log(1 + f)    x = 2^e * (1 + f) with 1 + f between sqrt(1/2) and sqrt(2); the latter by the series
//                       of 2 * atanh(s) in s = f / (2 + f), which is 0.18 at most
//   erfc(x) = exp(-x^2) * P(q) / (1 + 2 * x)    for x >= 0, q = (x - 3) / (x + 3): P interpolates (1 + 2 * x) *
//                       exp(x^2) * erfc(x) at Chebyshev's points of the x where exp(-x^2) is a number

#if FC_BITS == 32
#define FC_EXP_TERMS 8
#define FC_EXP_LEAST -110 // x * exp(x) is zero from here on
#define FC_EXP_MOST 90
#define FC_EXP_ROUND 0x1.8p23f
#define FC_LOG2_E 0x1.715476p+0f
#define FC_LN2_HIGH 0x1.62e4p-1f // its product with any n is exact
#define FC_LN2_LOW 0x1.7f7d1cp-20f
#define FC_LOG_TERMS 4
#define FC_ERF_TERMS 8
#define FC_ERFC_MOST 10.2f
#define FC_SPLIT 0x1.001p12f // of a number in halves
#define FC_NORMAL 0x1p-126f
#define FC_LARGEST 0x1.fffffep127f
#else
#define FC_EXP_TERMS 14
#define FC_EXP_LEAST -760
#define FC_EXP_MOST 710
#define FC_EXP_ROUND 0x1.8p52
#define FC_LOG2_E 0x1.71547652b82fep+0
#define FC_LN2_HIGH 0x1.62e42fefa3p-1
#define FC_LN2_LOW 0x1.3de6af278ece6p-42
#define FC_LOG_TERMS 10
#define FC_ERF_TERMS 14
#define FC_ERFC_MOST 27.4
#define FC_SPLIT 0x1.0000002p27
#define FC_NORMAL 0x1p-1022
#define FC_LARGEST 0x1.fffffffffffffp1023
#endif

static const T FC_NAME(inverse_factorial)[] = {
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

// The sum of c[k] * x^k for k from `first` on, divided by x^first.
FC_INLINE vec FC_NAME(polynomial)(vec x, const T *c, const int first, const int terms) {
    vec p = v_set1(c[terms - 1]);
#pragma GCC unroll 32
    for (int k = terms - 2; k >= first; k--) p = v_fma(p, x, v_set1(c[k]));
    return p;
}

FC_INLINE vmask FC_NAME(is_nan)(vec x) { return v_above(x, v_set1((T)INFINITY)); }

FC_INLINE vec FC_NAME(magnitude)(vec x) {
    const vec zero = v_set1(0);
    return v_select(v_above(x, zero), x, v_sub(zero, x));
}

// `size` with the sign of x, which may be zero or NaN: then x.
FC_INLINE vec FC_NAME(signed_as)(vec size, vec x) {
    const vec zero = v_set1(0);
    return v_select(v_above(x, zero), size, v_select(v_above(zero, x), v_sub(zero, size), x));
}

// -------------------------------------------------------------------------------------------------------- exponentials

// t = n * ln 2 + r.
FC_INLINE vec FC_NAME(exp_reduced)(vec t, vec *n) {
    const vec round = v_set1(FC_EXP_ROUND);
    *n = v_sub(v_fma(t, v_set1(FC_LOG2_E), round), round);
    return v_fnma(*n, v_set1(FC_LN2_LOW), v_fnma(*n, v_set1(FC_LN2_HIGH), t));
}

// p, of exp(t) = p * 2^n; t is in bounds.
FC_INLINE vec FC_NAME(exp_parts)(vec t, vec *n) {
    const vec r = FC_NAME(exp_reduced)(t, n);
    return FC_NAME(polynomial)(r, FC_NAME(inverse_factorial), 0, FC_EXP_TERMS);
}

FC_INLINE vec FC_NAME(exp)(vec x) {
    vec n;
    const vec p = FC_NAME(exp_parts)(v_max(v_set1(FC_EXP_LEAST), v_min(v_set1(FC_EXP_MOST), x)), &n);
    return v_scale(p, n);
}

// exp(x) - 1 for x <= 0.
FC_INLINE vec FC_NAME(expm1)(vec x) {
    vec n;
    const vec r = FC_NAME(exp_reduced)(v_max(v_set1(FC_EXP_LEAST), x), &n), one = v_set1(1);
    const vec rest = FC_NAME(polynomial)(r, FC_NAME(inverse_factorial), 2, FC_EXP_TERMS);
    const vec p = v_fma(v_mul(r, r), rest, r);
    return v_add(v_scale(p, n), v_sub(v_scale(one, n), one));
}

// factor * sigmoid(x):  1 / (1 + exp(t)) for x > 0, else p / (1 + exp(t)) * 2^n, with t = -|x|.
FC_INLINE vec FC_NAME(gated)(vec x, vec factor) {
    const vec zero = v_set1(0), one = v_set1(1), least = v_set1(FC_EXP_LEAST);
    vec n;
    const vec p = FC_NAME(exp_parts)(v_max(least, v_min(v_sub(zero, x), x)), &n);
    const vec divisor = v_add(one, v_scale(p, n));
    const vmask positive = v_above(x, zero);
    // Zero rather than what belongs to `least`, which a factor of 1e30 would make something of.
    const vec top = v_select(positive, one, v_select(v_above(x, least), p, zero));
    return v_scale(v_div(v_mul(factor, top), divisor), v_select(positive, zero, n));
}

// By s = exp(-2 * |x|) - 1, of which it is -s / (s + 2).
FC_INLINE vec FC_NAME(tanh)(vec x) {
    const vec s = FC_NAME(expm1)(v_mul(v_set1(-2), FC_NAME(magnitude)(x)));
    return FC_NAME(signed_as)(v_sub(v_set1(0), v_div(s, v_add(s, v_set1(2)))), x);
}

// ---------------------------------------------------------------------------------------------------------- logarithms

// e * ln 2 + log(1 + f)
FC_INLINE vec FC_NAME(log_of)(vec f, vec e) {
    static const T two_over_odd[] = {
        (T)(2.0 / 3),  (T)(2.0 / 5),  (T)(2.0 / 7),  (T)(2.0 / 9),  (T)(2.0 / 11),
        (T)(2.0 / 13), (T)(2.0 / 15), (T)(2.0 / 17), (T)(2.0 / 19), (T)(2.0 / 21),
    };
    const vec s = v_div(f, v_add(v_set1(2), f)), z = v_mul(s, s);
    const vec series = v_mul(z, FC_NAME(polynomial)(z, two_over_odd, 0, FC_LOG_TERMS));
    const vec half = v_mul(v_mul(v_set1((T)0.5), f), f);
    const vec low = v_fma(e, v_set1(FC_LN2_LOW), v_mul(s, v_add(half, series)));
    return v_sub(v_mul(e, v_set1(FC_LN2_HIGH)), v_sub(v_sub(half, low), f));
}

FC_INLINE vec FC_NAME(log)(vec x) {
    const vec zero = v_set1(0), one = v_set1(1);
    const vmask small = v_above(v_set1(FC_NORMAL), x);
    const vec normal = v_select(small, v_mul(x, v_set1(FC_BITS == 32 ? (T)0x1p24 : (T)0x1p53)), x);
    const vec n = v_exponent(normal), m = v_scale(normal, v_sub(zero, n));
    const vmask above = v_above(m, v_set1((T)1.41421356237309504880));
    const vec f = v_sub(v_select(above, v_mul(m, v_set1((T)0.5)), m), one);
    const vec e = v_sub(v_add(n, v_select(above, one, zero)), v_select(small, v_set1(FC_BITS == 32 ? 24 : 53), zero));
    const vec nan = v_set1((T)NAN), pole = v_set1(-(T)INFINITY);
    const vec y = v_select(v_above(x, v_set1(FC_LARGEST)), x, FC_NAME(log_of)(f, e));
    return v_select(v_above(x, zero), y, v_select(v_above(zero, x), nan, pole));
}

// log(1 + u) for 0 <= u <= 1; where 1 + u is above sqrt(2) that is 2 * (1 + (u - 1) / 2).
FC_INLINE vec FC_NAME(log1p)(vec u) {
    const vec one = v_set1(1);
    const vmask above = v_above(u, v_set1((T)0.41421356237309504880));
    const vec f = v_select(above, v_mul(v_sub(u, one), v_set1((T)0.5)), u);
    return FC_NAME(log_of)(f, v_select(above, one, v_set1(0)));
}

FC_INLINE vec FC_NAME(softplus)(vec x) {
    const vec u = FC_NAME(exp)(v_sub(v_set1(0), FC_NAME(magnitude)(x)));
    return v_add(v_max(v_set1(0), x), FC_NAME(log1p)(u));
}

// x * tanh(softplus(x)) in u = exp(-|x|), without differences: x * (1 + 2 * u) / (1 + 2 * u + 2 * u^2) for x > 0, else
// x * u * (u + 2) / (u * (u + 2) + 2).
FC_INLINE vec FC_NAME(mish)(vec x) {
    const vec zero = v_set1(0), one = v_set1(1), two = v_set1(2), least = v_set1(FC_EXP_LEAST);
    vec n;
    const vec p = FC_NAME(exp_parts)(v_max(least, v_min(v_sub(zero, x), x)), &n), u = v_scale(p, n);
    const vmask positive = v_above(x, zero);
    const vec ahead = v_fma(two, u, one), behind = v_mul(u, v_add(u, two));
    const vec divisor = v_select(positive, v_fma(v_mul(two, u), u, ahead), v_add(behind, two));
    const vec least_or_p = v_select(v_above(x, least), p, zero);
    const vec top = v_mul(x, v_select(positive, ahead, v_mul(least_or_p, v_add(u, two))));
    return v_scale(v_div(top, divisor), v_select(positive, zero, n));
}

// ------------------------------------------------------------------------------------------------------ error functions

// What x * x lacks when it is rounded.
FC_INLINE vec FC_NAME(square_rest)(vec x, vec square) {
    if (FC_VL > 1) return v_fma(x, x, v_sub(v_set1(0), square));
    const vec big = v_mul(x, v_set1(FC_SPLIT)), high = v_sub(big, v_sub(big, x)), low = v_sub(x, high);
    return v_add(v_sub(v_mul(high, high), square), v_add(v_mul(v_mul(v_set1(2), high), low), v_mul(low, low)));
}

// factor * erfc(x) for 0 <= x <= FC_ERFC_MOST, whose square is `square` + `rest`.
FC_INLINE vec FC_NAME(erfc)(vec x, vec square, vec rest, vec factor) {
#if FC_BITS == 32
    static const T c[] = {0x1.40c522p+0f,  -0x1.15c08ap-3f,  -0x1.85a154p-5f, 0x1.098424p-3f,
                          -0x1.e88a70p-4f, 0x1.17baf0p-4f,   -0x1.85c77ap-6f, 0x1.521778p-9f,
                          0x1.056b76p-9f,  -0x1.a28f44p-11f, -0x1.22cc60p-12f};
#else
    static const T c[] = {0x1.40c522d7e4987p+0,  -0x1.15c084bb9e8e0p-3,  -0x1.85a15c58aa3a2p-5,  0x1.098366a5b3e76p-3,
                          -0x1.e88b803a4c9d5p-4, 0x1.17ca287813599p-4,   -0x1.8574c40abb1eap-6,  0x1.4b884e02fb2a3p-9,
                          0x1.ef1bdc9097e32p-10, -0x1.98db48895895ap-11, -0x1.b9122b30303fcp-14, 0x1.065989623e022p-13,
                          0x1.4c11dcc457900p-18, -0x1.5129c347acffbp-16, -0x1.86b2e29c56f55p-21, 0x1.d0e37c6579c08p-19,
                          0x1.76e0d1fde72e8p-22, -0x1.4497535bb4487p-21, -0x1.19a09eb46a2a6p-23, 0x1.8941f851689b1p-24,
                          0x1.1a33442e07ed3p-25, -0x1.20d182cb7cca6p-27, -0x1.1ea071178c0c7p-28};
#endif
    const vec three = v_set1(3), q = v_div(v_sub(x, three), v_add(x, three));
    const vec p = FC_NAME(polynomial)(q, c, 0, sizeof c / sizeof *c);
    vec n;
    const vec e = FC_NAME(exp_parts)(v_max(v_set1(FC_EXP_LEAST), v_sub(v_set1(0), square)), &n);
    const vec within = v_mul(v_fnma(e, rest, e), p), beyond = v_sub(x, x); // zero or NaN
    const vec top = v_mul(factor, v_select(v_above(v_set1(FC_ERFC_MOST), x), within, beyond));
    return v_scale(v_div(top, v_fma(v_set1(2), x, v_set1(1))), n);
}

// Its Taylor sum up to 1/2, 1 - erfc above.
FC_INLINE vec FC_NAME(erf)(vec x) {
    static const T c[] = {
        (T)1.1283791670955125739, // 2 / sqrt(pi) * (-1)^k / (k! * (2 * k + 1))
        (T)(-1.1283791670955125739 / 3),
        (T)(1.1283791670955125739 / (2 * 5)),
        (T)(-1.1283791670955125739 / (6 * 7)),
        (T)(1.1283791670955125739 / (24 * 9)),
        (T)(-1.1283791670955125739 / (120 * 11)),
        (T)(1.1283791670955125739 / (720 * 13)),
        (T)(-1.1283791670955125739 / (5040 * 15)),
        (T)(1.1283791670955125739 / (40320 * 17)),
        (T)(-1.1283791670955125739 / (362880 * 19)),
        (T)(1.1283791670955125739 / (3628800.0 * 21)),
        (T)(-1.1283791670955125739 / (39916800.0 * 23)),
        (T)(1.1283791670955125739 / (479001600.0 * 25)),
        (T)(-1.1283791670955125739 / (6227020800.0 * 27)),
    };
    const vec one = v_set1(1), a = v_min(v_set1(FC_ERFC_MOST), FC_NAME(magnitude)(x)), square = v_mul(a, a);
    const vec large = v_sub(one, FC_NAME(erfc)(a, square, FC_NAME(square_rest)(a, square), one));
    const vec small = v_mul(x, FC_NAME(polynomial)(square, c, 0, FC_ERF_TERMS));
    return v_select(v_above(v_set1((T)0.5), a), small, FC_NAME(signed_as)(large, x));
}

// x times the normal distribution's sum up to x: erfc(|x| / sqrt(2)) / 2 of it lie beyond |x|, on either side.
FC_INLINE vec FC_NAME(gelu)(vec x) {
    const vec half = v_set1((T)0.5), most = v_set1(FC_ERFC_MOST * (T)1.41421356237309504880);
    const vec a = v_min(most, FC_NAME(magnitude)(x)), square = v_mul(a, a), rest = FC_NAME(square_rest)(a, square);
    const vec root = v_set1((T)0.70710678118654752440), end = v_set1(FC_ERFC_MOST);
    const vec scaled = v_select(v_above(most, a), v_mul(a, root), end);
    const vec beyond = FC_NAME(erfc)(scaled, v_mul(half, square), v_mul(half, rest), v_mul(half, v_min(most, x)));
    return v_select(v_above(x, v_set1(0)), v_sub(x, beyond), beyond);
}

// x * sigmoid(2 * z), z the argument of tanh.
FC_INLINE vec FC_NAME(gelu_tanh)(vec x) {
    const vec cubic = v_fma(v_mul(x, x), v_set1((T)0.044715), v_set1(1));
    return FC_NAME(gated)(v_mul(v_mul(x, v_set1((T)1.5957691216057307117)), cubic), x);
}

// ---------------------------------------------------------------------------------------------------------- activations

FC_INLINE vec FC_NAME(hardswish)(vec x) {
    const vec gate = v_min(v_set1(6), v_max(v_set1(0), v_add(x, v_set1(3))));
    return v_mul(x, v_mul(gate, v_set1((T)(1.0 / 6))));
}

#undef FC_EXP_TERMS
#undef FC_EXP_LEAST
#undef FC_EXP_MOST
#undef FC_EXP_ROUND
#undef FC_LOG2_E
#undef FC_LN2_HIGH
#undef FC_LN2_LOW
#undef FC_LOG_TERMS
#undef FC_ERF_TERMS
#undef FC_ERFC_MOST
#undef FC_SPLIT
#undef FC_NORMAL
#undef FC_LARGEST
