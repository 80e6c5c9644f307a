// SPDX-License-Identifier: BSD-3-Clause
//
// map_rows.tmpl.c - one operation of a map on rows, of which the compiler makes a loop for each.

// The operands, and the numbers of the operation in all lanes.
typedef struct FC_NAME(map_vectors) {
    vec x, y, z, a, b;
} FC_NAME(map_vectors);

#define FC_MAP_IS(name, ...)                                                                                           \
    FC_INLINE vec FC_NAME(map_##name)(const FC_NAME(map_vectors) v) { return __VA_ARGS__; }

FC_MAP_IS(clamp, v.x) // and the clamp of every operation is this one's own
FC_MAP_IS(affine, v_fma(v.x, v.a, v.b))
FC_MAP_IS(abs, FC_NAME(magnitude)(v.x))
FC_MAP_IS(neg, v_mul(v.x, v_set1(-1)))
FC_MAP_IS(square, v_mul(v.x, v.x))
FC_MAP_IS(sqrt, v_sqrt(v.x))
FC_MAP_IS(rsqrt, v_div(v_set1(1), v_sqrt(v.x)))
FC_MAP_IS(reciprocal, v_div(v_set1(1), v.x))
FC_MAP_IS(floor, v_floor(v.x))
FC_MAP_IS(ceil, v_ceil(v.x))
FC_MAP_IS(round, v_round(v.x))
FC_MAP_IS(sign, v_select(FC_NAME(is_nan)(v.x), v.x, FC_NAME(signed_as)(v_set1(1), v.x)))
FC_MAP_IS(exp, FC_NAME(exp)(v.x))
FC_MAP_IS(log, FC_NAME(log)(v.x))
FC_MAP_IS(erf, FC_NAME(erf)(v.x))
FC_MAP_IS(tanh, FC_NAME(tanh)(v.x))
FC_MAP_IS(sigmoid, FC_NAME(gated)(v.x, v_set1(1)))
FC_MAP_IS(silu, FC_NAME(gated)(v.x, v.x))
FC_MAP_IS(hardswish, FC_NAME(hardswish)(v.x))
FC_MAP_IS(gelu, FC_NAME(gelu)(v.x))
FC_MAP_IS(gelu_tanh, FC_NAME(gelu_tanh)(v.x))
FC_MAP_IS(softplus, FC_NAME(softplus)(v.x))
FC_MAP_IS(mish, FC_NAME(mish)(v.x))
FC_MAP_IS(leaky_relu, v_select(v_above(v.x, v_set1(0)), v.x, v_mul(v.a, v.x)))
FC_MAP_IS(elu, v_select(v_above(v.x, v_set1(0)), v.x, v_mul(v.a, FC_NAME(expm1)(v_min(v_set1(0), v.x)))))

// sigmoid(x) * (1 + x * sigmoid(-x))
FC_INLINE vec FC_NAME(map_silu_slope)(const FC_NAME(map_vectors) v) {
    const vec one = v_set1(1), rest = FC_NAME(gated)(v_sub(v_set1(0), v.x), one);
    return FC_NAME(gated)(v.x, v_fma(v.x, rest, one));
}

FC_INLINE vec FC_NAME(map_hardswish_slope)(const FC_NAME(map_vectors) v) {
    const vec zero = v_set1(0), within = v_fma(v.x, v_set1((T)(1.0 / 3)), v_set1((T)0.5));
    const vec below = v_select(v_above(v_set1(3), v.x), within, v_select(FC_NAME(is_nan)(v.x), v.x, v_set1(1)));
    return v_select(v_above(v.x, v_set1(-3)), below, zero);
}

FC_MAP_IS(add, v_add(v.x, v.y))
FC_MAP_IS(sub, v_sub(v.x, v.y))
FC_MAP_IS(rsub, v_sub(v.y, v.x))
FC_MAP_IS(mul, v_mul(v.x, v.y))
FC_MAP_IS(div, v_div(v.x, v.y))
FC_MAP_IS(rdiv, v_div(v.y, v.x))
FC_MAP_IS(min, v_select(FC_NAME(is_nan)(v.y), v.y, v_min(v.y, v.x)))
FC_MAP_IS(max, v_select(FC_NAME(is_nan)(v.y), v.y, v_max(v.y, v.x)))
FC_MAP_IS(prelu, v_select(v_above(v.x, v_set1(0)), v.x, v_mul(v.y, v.x)))
FC_MAP_IS(where_above, v_select(v_above(v.y, v.a), v.x, v_set1(0)))
FC_MAP_IS(where_below, v_select(v_above(v_sub(v_set1(0), v.y), v_sub(v_set1(0), v.a)), v.x, v_set1(0)))
FC_MAP_IS(leaky_slope, v_select(v_above(v.y, v_set1(0)), v.x, v_mul(v.a, v.x)))
FC_MAP_IS(fma, v_fma(v.x, v.y, v.z))
#undef FC_MAP_IS

// Where a row of an operand is read, and how far it moves on with each vector: an element that is the same for the whole
// row is spread to a vector, which stays.
FC_INLINE const T *FC_NAME(map_row)(const fc_map_operand *o, int64_t r, T spread[FC_VL], int64_t *step) {
    const T *p = (const T *)o->at + r * o->row;
    *step = o->column ? FC_VL : 0;
    if (o->column) return p;
    v_store(spread, v_set1(*p));
    return spread;
}

FC_INLINE const T *FC_NAME(map_rest)(T rest[FC_VL], const T *from, int64_t n) {
    v_store(rest, v_load_part(from, n));
    return rest;
}

typedef vec (*FC_NAME(map_function))(const FC_NAME(map_vectors) v);

// What is left of a row goes through the same loop in a vector of its own: the functions stand in the code but once.
FC_INLINE void FC_NAME(map_loop)(const fc_map_rows *w, const int operands, const FC_NAME(map_function) function) {
    const vec low = v_set1((T)w->low), high = v_set1((T)w->high);
    FC_NAME(map_vectors) v = {.a = v_set1((T)w->a), .b = v_set1((T)w->b)};
    v.x = v.y = v.z = low;
    for (int64_t r = 0; r < w->rows; r++) {
        T spread[3][FC_VL], rest[FC_VL];
        int64_t x_step, y_step = 0, z_step = 0, left = w->columns;
        T *dst = (T *)w->dst + r * w->dst_row;
        const T *x = FC_NAME(map_row)(&w->x, r, spread[0], &x_step), *y = x, *z = x;
        if (operands > 1) y = FC_NAME(map_row)(&w->y, r, spread[1], &y_step);
        if (operands > 2) z = FC_NAME(map_row)(&w->z, r, spread[2], &z_step);
        for (T *end = NULL;;) {
            for (; left >= FC_VL; left -= FC_VL, dst += FC_VL, x += x_step, y += y_step, z += z_step) {
                v.x = v_load(x);
                if (operands > 1) v.y = v_load(y);
                if (operands > 2) v.z = v_load(z);
                v_store(dst, v_min(high, v_max(low, function(v))));
            }
            if (end) v_store_part(end, v_load(rest), w->columns % FC_VL);
            if (left == 0) break;
            x = FC_NAME(map_rest)(spread[0], x, left);
            if (operands > 1) y = FC_NAME(map_rest)(spread[1], y, left);
            if (operands > 2) z = FC_NAME(map_rest)(spread[2], z, left);
            end = dst;
            dst = rest;
            left = FC_VL;
        }
    }
}

void FC_NAME(map_rows)(const fc_map_rows *w) {
    switch (w->code) {
#define FC_MAP(id, name, operands)                                                                                     \
    case FC_MAP_##id:                                                                                                  \
        FC_NAME(map_loop)(w, operands, FC_NAME(map_##name));                                                           \
        break;
        FC_MAP_LIST(FC_MAP)
#undef FC_MAP
    case FC_MAP_CODES:
        break;
    }
}
