// SPDX-License-Identifier: BSD-3-Clause
//
// batch_norm.tmpl.c - batch norm with a clamp behind it, forward and backward: whether the clamp let a gradient through is
// found from x again, by the same operations as forward and so to the bit, which saves reading the result.
//
// Spreading rows of planes of 4x4 without a division for each, a fifth of the instructions less by AVX2, takes as long.

enum { FC_UNCLAMPED = 0, FC_CLAMPED_BELOW, FC_CLAMPED };

// What is of a channel, in all lanes or of one in each.
typedef struct FC_NAME(batch_channel) {
    vec mean, scale, shift, a, b, c;
} FC_NAME(batch_channel);

// n numbers from element i on, or its number in all lanes.
FC_INLINE vec FC_NAME(of_channel)(const void *vector, int64_t i, int64_t n, const int each) {
    const T *p = (const T *)vector + i;
    if (!each) return v_set1(*p);
    return n == FC_VL ? v_load(p) : v_load_part(p, n);
}

FC_INLINE FC_NAME(batch_channel)
    FC_NAME(batch_channel_at)(const fc_batch_norm_work *w, int64_t i, int64_t n, const int each, const int backward) {
    FC_NAME(batch_channel) v;
    v.mean = FC_NAME(of_channel)(w->mean, i, n, each);
    v.scale = FC_NAME(of_channel)(w->scale, i, n, each);
    v.shift = FC_NAME(of_channel)(w->shift, i, n, each);
    v.a = backward ? FC_NAME(of_channel)(w->a, i, n, each) : v.mean;
    v.b = backward ? FC_NAME(of_channel)(w->b, i, n, each) : v.mean;
    v.c = backward ? FC_NAME(of_channel)(w->c, i, n, each) : v.mean;
    return v;
}

// m of fc_batch_norm: as of a ReLU, a result that is NaN lets the gradient through.
FC_INLINE vec FC_NAME(batch_through)(const fc_batch_norm_work *w, const FC_NAME(batch_channel) * v, vec d, vec g,
                                     const int clamp) {
    const vec zero = v_set1(0), there = v_fma(d, v->scale, v->shift);
    if (clamp == FC_UNCLAMPED) return g;
    if (clamp == FC_CLAMPED) g = v_select(v_above(v_sub(zero, there), v_set1((T)-w->high)), g, zero);
    return v_select(v_above(there, v_set1((T)w->low)), g, zero);
}

FC_INLINE int FC_NAME(batch_clamp)(const fc_batch_norm_work *w) {
    return w->high < INFINITY ? FC_CLAMPED : w->low > -INFINITY ? FC_CLAMPED_BELOW : FC_UNCLAMPED;
}

// ---------------------------------------------------------------------------------------------------------------- sums

typedef struct FC_NAME(batch_sums) {
    vec m, md;
} FC_NAME(batch_sums);

FC_INLINE void FC_NAME(batch_add)(FC_NAME(batch_sums) * s, const fc_batch_norm_work *w,
                                  const FC_NAME(batch_channel) * v, vec x, vec g, const int clamp) {
    const vec d = v_sub(x, v->mean), m = FC_NAME(batch_through)(w, v, d, g, clamp);
    s->m = v_add(s->m, m);
    s->md = v_fma(m, d, s->md);
}

// Lanes that do not exist have no gradient, and so add nothing.
FC_INLINE void FC_NAME(batch_sums_all)(const fc_batch_norm_work *w, const int clamp) {
    const int dense = w->x_column == 1 && w->g_column == 1;
    for (int64_t c = 0; c < w->groups; c++) {
        const FC_NAME(batch_channel) v = FC_NAME(batch_channel_at)(w, c, 1, 0, 0);
        FC_NAME(batch_sums) sum[2];
        for (int i = 0; i < 2; i++) sum[i].m = sum[i].md = v_set1(0);
        for (int64_t r = 0; r < w->rows; r++) {
            const T *x = (const T *)w->x + c * w->x_group + r * w->x_row;
            const T *g = (const T *)w->g + c * w->g_group + r * w->g_row;
            int64_t i = 0;
            for (; dense && i + 2 * FC_VL <= w->columns; i += 2 * FC_VL) {
                FC_NAME(batch_add)(&sum[0], w, &v, v_load(x + i), v_load(g + i), clamp);
                FC_NAME(batch_add)(&sum[1], w, &v, v_load(x + i + FC_VL), v_load(g + i + FC_VL), clamp);
            }
            for (; i < w->columns; i += FC_VL) {
                const int64_t n = FC_NAME(lanes_of)(w->columns - i);
                FC_NAME(batch_add)(&sum[0], w, &v, FC_NAME(load_row)(x + i * w->x_column, n, w->x_column),
                                   FC_NAME(load_row)(g + i * w->g_column, n, w->g_column), clamp);
            }
        }
        ((T *)w->total[0])[c] = FC_NAME(fold_lanes)(FC_FOLD_SUM, v_add(sum[0].m, sum[1].m));
        ((T *)w->total[1])[c] = FC_NAME(fold_lanes)(FC_FOLD_SUM, v_add(sum[0].md, sum[1].md));
    }
}

// `count` vectors of channels from channel i on; only one of them may be a part.
FC_INLINE void FC_NAME(batch_sums_columns)(const fc_batch_norm_work *w, int64_t i, const int count, int64_t n,
                                           const int clamp) {
    FC_NAME(batch_channel) v[2];
    FC_NAME(batch_sums) sum[2];
#pragma GCC unroll 2
    for (int k = 0; k < count; k++) {
        v[k] = FC_NAME(batch_channel_at)(w, i + k * FC_VL, n, 1, 0);
        sum[k].m = sum[k].md = v_set1(0);
    }
    const T *x = (const T *)w->x + i * w->x_column, *g = (const T *)w->g + i * w->g_column;
    for (int64_t r = 0; r < w->rows; r++, x += w->x_row, g += w->g_row) {
#pragma GCC unroll 2
        for (int k = 0; k < count; k++) {
            const vec at = count > 1 ? v_load(x + k * FC_VL) : FC_NAME(load_row)(x, n, w->x_column);
            const vec grad = count > 1 ? v_load(g + k * FC_VL) : FC_NAME(load_row)(g, n, w->g_column);
            FC_NAME(batch_add)(&sum[k], w, &v[k], at, grad, clamp);
        }
    }
#pragma GCC unroll 2
    for (int k = 0; k < count; k++) {
        T *m = (T *)w->total[0] + i + k * FC_VL, *md = (T *)w->total[1] + i + k * FC_VL;
        if (n == FC_VL) {
            v_store(m, sum[k].m);
            v_store(md, sum[k].md);
        } else {
            v_store_part(m, sum[k].m, n);
            v_store_part(md, sum[k].md, n);
        }
    }
}

FC_INLINE void FC_NAME(batch_sums_as)(const fc_batch_norm_work *w, const int clamp) {
    if (!w->each) {
        FC_NAME(batch_sums_all)(w, clamp);
        return;
    }
    int64_t i = 0;
    if (w->x_column == 1 && w->g_column == 1)
        for (; i + 2 * FC_VL <= w->columns; i += 2 * FC_VL) FC_NAME(batch_sums_columns)(w, i, 2, FC_VL, clamp);
    for (; i < w->columns; i += FC_VL) FC_NAME(batch_sums_columns)(w, i, 1, FC_NAME(lanes_of)(w->columns - i), clamp);
}

void FC_NAME(batch_norm_sums)(const fc_batch_norm_work *w) {
    const int clamp = FC_NAME(batch_clamp)(w);
    if (clamp == FC_CLAMPED) FC_NAME(batch_sums_as)(w, FC_CLAMPED);
    else if (clamp == FC_CLAMPED_BELOW) FC_NAME(batch_sums_as)(w, FC_CLAMPED_BELOW);
    else FC_NAME(batch_sums_as)(w, FC_UNCLAMPED);
}

// ------------------------------------------------------------------------------------------------------------ spreading

FC_INLINE vec FC_NAME(batch_one)(const fc_batch_norm_work *w, const FC_NAME(batch_channel) * v, vec x, vec g,
                                 const int backward, const int clamp) {
    const vec d = v_sub(x, v->mean);
    if (backward) return v_fma(v->a, FC_NAME(batch_through)(w, v, d, g, clamp), v_fma(v->b, d, v->c));
    const vec there = v_add(v_fma(d, v->scale, v->shift), g);
    return clamp ? FC_NAME(bound)(there, v_set1((T)w->low), v_set1((T)w->high)) : there;
}

FC_INLINE void FC_NAME(batch_spread_as)(const fc_batch_norm_work *w, const int each, const int backward,
                                        const int clamp) {
    const int dense = w->x_column == 1 && w->dst_column == 1 && (!w->g || w->g_column == 1);
    FC_NAME(batch_channel) v;
    for (int64_t line = 0; line < w->groups * w->rows; line++) {
        const int64_t c = w->groups == 1 ? 0 : line / w->rows, r = line - c * w->rows;
        const T *x = (const T *)w->x + c * w->x_group + r * w->x_row;
        const T *g = w->g ? (const T *)w->g + c * w->g_group + r * w->g_row : NULL;
        T *dst = (T *)w->dst + c * w->dst_group + r * w->dst_row;
        v = FC_NAME(batch_channel_at)(w, c, 1, 0, backward);
        int64_t i = 0;
        for (; dense && i + FC_VL <= w->columns; i += FC_VL) {
            if (each) v = FC_NAME(batch_channel_at)(w, i, FC_VL, 1, backward);
            const vec y = g ? v_load(g + i) : v_set1(0);
            v_store(dst + i, FC_NAME(batch_one)(w, &v, v_load(x + i), y, backward, clamp));
        }
        for (; i < w->columns; i += FC_VL) {
            const int64_t n = FC_NAME(lanes_of)(w->columns - i);
            if (each) v = FC_NAME(batch_channel_at)(w, i, n, 1, backward);
            const vec y = g ? FC_NAME(load_row)(g + i * w->g_column, n, w->g_column) : v_set1(0);
            const vec at = FC_NAME(load_row)(x + i * w->x_column, n, w->x_column);
            FC_NAME(store_row)(dst + i * w->dst_column, FC_NAME(batch_one)(w, &v, at, y, backward, clamp), n,
                               w->dst_column);
        }
    }
}

FC_INLINE void FC_NAME(batch_spread_each)(const fc_batch_norm_work *w, const int backward, const int clamp) {
    if (w->each) FC_NAME(batch_spread_as)(w, 1, backward, clamp);
    else FC_NAME(batch_spread_as)(w, 0, backward, clamp);
}

void FC_NAME(batch_norm_spread)(const fc_batch_norm_work *w) {
    const int clamp = FC_NAME(batch_clamp)(w);
    if (w->backward && clamp == FC_CLAMPED) FC_NAME(batch_spread_each)(w, 1, FC_CLAMPED);
    else if (w->backward && clamp) FC_NAME(batch_spread_each)(w, 1, FC_CLAMPED_BELOW);
    else if (w->backward) FC_NAME(batch_spread_each)(w, 1, FC_UNCLAMPED);
    else if (clamp) FC_NAME(batch_spread_each)(w, 0, FC_CLAMPED);
    else FC_NAME(batch_spread_each)(w, 0, FC_UNCLAMPED);
}
