// SPDX-License-Identifier: BSD-3-Clause
//
// fold.tmpl.c - many numbers become one: what sums, extremes, norms and softmax are made of.
//
// Four accumulators hide the latency of an addition.  The caller cuts long rows into pieces, so that no accumulator takes
// more than a few thousand terms, whatever the length.

// Lanes that do not exist hold what changes nothing.
FC_INLINE vec FC_NAME(fold_neutral)(const fc_fold_kind kind, vec centre) {
    switch (kind) {
    case FC_FOLD_CENTRED:
    case FC_FOLD_SQUARES:
        return centre;
    case FC_FOLD_EXP:
    case FC_FOLD_MAX:
        return v_set1((T)-INFINITY);
    case FC_FOLD_MIN:
        return v_set1((T)INFINITY);
    case FC_FOLD_PRODUCT:
        return v_set1(1);
    default:
        return v_set1(0);
    }
}

// What an accumulator begins with; that of a minimum is the largest of the negated numbers.
FC_INLINE vec FC_NAME(fold_begin)(const fc_fold_kind kind) {
    if (kind == FC_FOLD_MAX || kind == FC_FOLD_MIN) return v_set1((T)-INFINITY);
    return v_set1(kind == FC_FOLD_PRODUCT ? 1 : 0);
}

// An accumulator and one vector more; *kept takes the exponential.
FC_INLINE vec FC_NAME(fold_in)(const fc_fold_kind kind, vec sum, vec x, vec centre, vec *kept) {
    switch (kind) {
    case FC_FOLD_CENTRED:
        return v_add(sum, v_sub(x, centre));
    case FC_FOLD_SQUARES:
        x = v_sub(x, centre);
        return v_fma(x, x, sum);
    case FC_FOLD_ABS:
        return v_add(sum, v_max(v_sub(v_set1(0), x), x));
    case FC_FOLD_EXP:
        *kept = FC_NAME(exp)(v_sub(x, centre));
        return v_add(sum, *kept);
    case FC_FOLD_THROUGH:
        *kept = x;
        return v_add(sum, x);
    case FC_FOLD_PRODUCT:
        return v_mul(sum, x);
    case FC_FOLD_MAX:
        return v_peak(sum, x);
    case FC_FOLD_MIN:
        return v_peak(sum, v_sub(v_set1(0), x));
    default:
        return v_add(sum, x);
    }
}

FC_INLINE vec FC_NAME(fold_join)(const fc_fold_kind kind, vec a, vec b) {
    if (kind == FC_FOLD_MAX || kind == FC_FOLD_MIN) return v_peak(a, b);
    return kind == FC_FOLD_PRODUCT ? v_mul(a, b) : v_add(a, b);
}

// The first n elements that are `step` apart; the other lanes are neutral.
FC_INLINE vec FC_NAME(fold_part)(const T *p, int64_t n, int64_t step, vec neutral) {
    if (step == 1) return v_load_where(v_lanes(0, n), p, neutral);
    return v_select(v_lanes(0, n), FC_NAME(load_apart)(p, n, step), neutral);
}

// x where its mask lets it through.
FC_INLINE vec FC_NAME(fold_through)(const fc_fold *work, vec x, vec mask) {
    const vec zero = v_set1(0);
    if (work->high < INFINITY) x = v_select(v_above(v_sub(zero, mask), v_set1((T)-work->high)), x, zero);
    return v_select(v_above(mask, v_set1((T)work->low)), x, zero);
}

FC_INLINE int FC_NAME(fold_keeps)(const fc_fold *work, const fc_fold_kind kind) {
    return kind == FC_FOLD_THROUGH || (kind == FC_FOLD_EXP && work->dst);
}

// One group, as far as a vector of which the lanes are still to be joined.
FC_INLINE vec FC_NAME(fold_group)(const fc_fold *work, int64_t g, const fc_fold_kind kind) {
    const int keeps = FC_NAME(fold_keeps)(work, kind), masked = kind == FC_FOLD_THROUGH;
    const int64_t step = work->column, out = work->dst_column, side = work->mask_column;
    const vec centre = v_set1(work->centre ? ((const T *)work->centre)[g] : 0);
    const vec neutral = FC_NAME(fold_neutral)(kind, centre);
    vec sum[4], kept = v_set1(0);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) sum[v] = FC_NAME(fold_begin)(kind);
    for (int64_t r = 0; r < work->rows; r++) {
        const T *src = (const T *)work->src + g * work->group + r * work->row;
        const T *mask = masked ? (const T *)work->mask + g * work->mask_group + r * work->mask_row : NULL;
        T *dst = keeps ? (T *)work->dst + g * work->dst_group + r * work->dst_row : NULL;
        int64_t i = 0;
        if (step == 1 && (!keeps || out == 1) && (!masked || side == 1)) {
            for (; i + 4 * FC_VL <= work->columns; i += 4 * FC_VL) {
#pragma GCC unroll 4
                for (int v = 0; v < 4; v++) {
                    vec x = v_load(src + i + v * FC_VL);
                    if (masked) x = FC_NAME(fold_through)(work, x, v_load(mask + i + v * FC_VL));
                    sum[v] = FC_NAME(fold_in)(kind, sum[v], x, centre, &kept);
                    if (keeps) v_store(dst + i + v * FC_VL, kept);
                }
            }
        }
        for (int v = 0; i < work->columns; i += FC_VL, v++) {
            const int64_t n = FC_NAME(lanes_of)(work->columns - i);
            vec x = FC_NAME(fold_part)(src + i * step, n, step, neutral);
            if (masked) x = FC_NAME(fold_through)(work, x, FC_NAME(load_row)(mask + i * side, n, side));
            if (v & 1) sum[1] = FC_NAME(fold_in)(kind, sum[1], x, centre, &kept);
            else sum[0] = FC_NAME(fold_in)(kind, sum[0], x, centre, &kept);
            if (keeps) FC_NAME(store_row)(dst + i * out, kept, n, out);
        }
    }
    sum[0] = FC_NAME(fold_join)(kind, sum[0], sum[1]);
    sum[2] = FC_NAME(fold_join)(kind, sum[2], sum[3]);
    return FC_NAME(fold_join)(kind, sum[0], sum[2]);
}

// The lanes of n groups' vectors, joined by turning all of them, in the order of fold_lanes.
FC_INLINE void FC_NAME(fold_turned)(vec *v, T *total, int64_t n, const fc_fold_kind kind) {
    if (n == 1) {
        *total = FC_NAME(fold_lanes)(kind, v[0]);
        return;
    }
    v_transpose(v);
#pragma GCC unroll 4
    for (int half = FC_VL / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++) v[i] = FC_NAME(fold_join)(kind, v[i], v[i + half]);
    v_store_part(total, kind == FC_FOLD_MIN ? v_sub(v_set1(0), v[0]) : v[0], n);
}

static __attribute__((noinline)) void FC_NAME(fold_joined)(vec *v, T *total, int64_t n, fc_fold_kind kind) {
    if (kind == FC_FOLD_MAX) FC_NAME(fold_turned)(v, total, n, FC_FOLD_MAX);
    else if (kind == FC_FOLD_MIN) FC_NAME(fold_turned)(v, total, n, FC_FOLD_MIN);
    else if (kind == FC_FOLD_PRODUCT) FC_NAME(fold_turned)(v, total, n, FC_FOLD_PRODUCT);
    else FC_NAME(fold_turned)(v, total, n, FC_FOLD_SUM);
}

// Several groups, as many as a vector has lanes at a time.
FC_INLINE void FC_NAME(fold_all_of)(const fc_fold *work, const fc_fold_kind kind) {
    for (int64_t g = 0; g < work->groups; g += FC_VL) {
        const int64_t n = FC_NAME(lanes_of)(work->groups - g);
        vec v[FC_VL];
        for (int i = 0; i < FC_VL; i++) v[i] = i < n ? FC_NAME(fold_group)(work, g + i, kind) : v_set1(0);
        FC_NAME(fold_joined)(v, (T *)work->total + g, n, kind);
    }
}

// `count` vectors of columns from column i on; only one of them may be a part.
FC_INLINE void FC_NAME(fold_columns_block)(const fc_fold *work, int64_t i, const int count, int64_t n,
                                           const fc_fold_kind kind) {
    const int keeps = FC_NAME(fold_keeps)(work, kind), masked = kind == FC_FOLD_THROUGH,
              centred = kind == FC_FOLD_EXP || kind == FC_FOLD_SQUARES || kind == FC_FOLD_CENTRED;
    const int64_t step = work->column, out = work->dst_column, side = work->mask_column;
    const T *src = (const T *)work->src + i * step;
    const T *mask = masked ? (const T *)work->mask + i * side : NULL;
    T *dst = keeps ? (T *)work->dst + i * out : NULL;
    vec sum[4], centre[4], kept = v_set1(0);
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        const T *at = (const T *)work->centre + i + v * FC_VL;
        sum[v] = FC_NAME(fold_begin)(kind);
        centre[v] = !centred || !work->centre ? v_set1(0) : count > 1 ? v_load(at) : v_load_part(at, n);
    }
    for (int64_t r = 0; r < work->rows; r++, src += work->row) {
#pragma GCC unroll 4
        for (int v = 0; v < count; v++) {
            vec x = count > 1 ? v_load(src + v * FC_VL) : FC_NAME(load_row)(src, n, step);
            if (masked) {
                const vec at = count > 1 ? v_load(mask + v * FC_VL) : FC_NAME(load_row)(mask, n, side);
                x = FC_NAME(fold_through)(work, x, at);
            }
            sum[v] = FC_NAME(fold_in)(kind, sum[v], x, centre[v], &kept);
            if (keeps && count > 1) v_store(dst + v * FC_VL, kept);
            else if (keeps) FC_NAME(store_row)(dst, kept, n, out);
        }
        if (keeps) dst += work->dst_row;
        if (masked) mask += work->mask_row;
    }
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) {
        if (kind == FC_FOLD_MIN) sum[v] = v_sub(v_set1(0), sum[v]);
        if (count > 1) v_store((T *)work->total + i + v * FC_VL, sum[v]);
        else v_store_part((T *)work->total + i, sum[v], n);
    }
}

FC_INLINE void FC_NAME(fold_columns_of)(const fc_fold *work, const fc_fold_kind kind) {
    const int64_t columns = work->columns;
    int64_t i = 0;
    if (work->column == 1 && (!FC_NAME(fold_keeps)(work, kind) || work->dst_column == 1) &&
        (kind != FC_FOLD_THROUGH || work->mask_column == 1))
        for (; i + 4 * FC_VL <= columns; i += 4 * FC_VL) FC_NAME(fold_columns_block)(work, i, 4, FC_VL, kind);
    for (; i < columns; i += FC_VL) FC_NAME(fold_columns_block)(work, i, 1, FC_NAME(lanes_of)(columns - i), kind);
}

#define FC_FOLD_KERNEL(name)                                                                                           \
    void FC_NAME(name)(const fc_fold *work) {                                                                          \
        switch (work->kind) {                                                                                          \
        case FC_FOLD_CENTRED:                                                                                          \
            FC_NAME(name##_of)(work, FC_FOLD_CENTRED);                                                                 \
            break;                                                                                                     \
        case FC_FOLD_SQUARES:                                                                                          \
            FC_NAME(name##_of)(work, FC_FOLD_SQUARES);                                                                 \
            break;                                                                                                     \
        case FC_FOLD_ABS:                                                                                              \
            FC_NAME(name##_of)(work, FC_FOLD_ABS);                                                                     \
            break;                                                                                                     \
        case FC_FOLD_EXP:                                                                                              \
            FC_NAME(name##_of)(work, FC_FOLD_EXP);                                                                     \
            break;                                                                                                     \
        case FC_FOLD_THROUGH:                                                                                          \
            FC_NAME(name##_of)(work, FC_FOLD_THROUGH);                                                                 \
            break;                                                                                                     \
        case FC_FOLD_PRODUCT:                                                                                          \
            FC_NAME(name##_of)(work, FC_FOLD_PRODUCT);                                                                 \
            break;                                                                                                     \
        case FC_FOLD_MAX:                                                                                              \
            FC_NAME(name##_of)(work, FC_FOLD_MAX);                                                                     \
            break;                                                                                                     \
        case FC_FOLD_MIN:                                                                                              \
            FC_NAME(name##_of)(work, FC_FOLD_MIN);                                                                     \
            break;                                                                                                     \
        default:                                                                                                       \
            FC_NAME(name##_of)(work, FC_FOLD_SUM);                                                                     \
        }                                                                                                              \
    }

FC_FOLD_KERNEL(fold_all)
FC_FOLD_KERNEL(fold_columns)
#undef FC_FOLD_KERNEL
