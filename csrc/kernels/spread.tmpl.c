// SPDX-License-Identifier: BSD-3-Clause
//
// spread.tmpl.c - what was folded is spread over the numbers again: norms, softmax and their gradients.

FC_INLINE vec FC_NAME(spread_one)(vec x, vec centre, vec factor, vec scale, vec shift, const int subtract,
                                  const int scaled) {
    x = v_sub(x, centre);
    if (subtract) return v_sub(x, factor);
    x = v_mul(x, factor);
    return scaled ? v_fma(x, scale, shift) : x;
}

// scaled: 0 no scale, 1 one for a row, 2 one for each element.
FC_INLINE void FC_NAME(spread_as)(const fc_spread_work *work, const int subtract, const int each, const int scaled) {
    const int64_t in = work->src_column, out = work->dst_column, wei = work->wei_column, columns = work->columns;
    const T *centre = work->centre, *factor = work->factor;
    vec c = v_set1(0), f = v_set1(1), a = v_set1(1), b = v_set1(0);
    for (int64_t line = 0; line < work->groups * work->rows; line++) {
        const int64_t g = work->groups == 1 ? 0 : line / work->rows, r = line - g * work->rows;
        const T *src = (const T *)work->src + g * work->src_group + r * work->src_row;
        T *dst = (T *)work->dst + g * work->dst_group + r * work->dst_row;
        const T *scale = (const T *)work->scale, *shift = (const T *)work->shift;
        int64_t i = 0;
        if (!each) {
            c = v_set1(centre[g]);
            f = v_set1(factor[g]);
        }
        if (scaled) {
            scale += g * work->wei_group + r * work->wei_row;
            shift += g * work->wei_group + r * work->wei_row;
        }
        if (scaled == 1) {
            a = v_set1(*scale);
            b = v_set1(*shift);
        }
        if (in == 1 && out == 1 && (scaled < 2 || wei == 1))
            for (; i + FC_VL <= columns; i += FC_VL) {
                if (each) {
                    c = v_load(centre + i);
                    f = v_load(factor + i);
                }
                if (scaled == 2) {
                    a = v_load(scale + i);
                    b = v_load(shift + i);
                }
                v_store(dst + i, FC_NAME(spread_one)(v_load(src + i), c, f, a, b, subtract, scaled));
            }
        for (; i < columns; i += FC_VL) {
            const int64_t n = FC_NAME(lanes_of)(columns - i);
            if (each) {
                c = v_load_part(centre + i, n);
                f = v_load_part(factor + i, n);
            }
            if (scaled == 2) {
                a = FC_NAME(load_row)(scale + i * wei, n, wei);
                b = FC_NAME(load_row)(shift + i * wei, n, wei);
            }
            const vec x = FC_NAME(load_row)(src + i * in, n, in);
            FC_NAME(store_row)(dst + i * out, FC_NAME(spread_one)(x, c, f, a, b, subtract, scaled), n, out);
        }
    }
}

void FC_NAME(spread)(const fc_spread_work *work) {
    const int scaled = !work->scale ? 0 : work->wei_column == 0 ? 1 : 2;
    if (work->subtract && work->each) FC_NAME(spread_as)(work, 1, 1, 0);
    else if (work->subtract) FC_NAME(spread_as)(work, 1, 0, 0);
    else if (work->each && scaled == 0) FC_NAME(spread_as)(work, 0, 1, 0);
    else if (work->each && scaled == 1) FC_NAME(spread_as)(work, 0, 1, 1);
    else if (work->each) FC_NAME(spread_as)(work, 0, 1, 2);
    else if (scaled == 0) FC_NAME(spread_as)(work, 0, 0, 0);
    else if (scaled == 1) FC_NAME(spread_as)(work, 0, 0, 1);
    else FC_NAME(spread_as)(work, 0, 0, 2);
}
