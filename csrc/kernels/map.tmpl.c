// SPDX-License-Identifier: BSD-3-Clause
//
// map.tmpl.c - activations that are no clamp, in place.

FC_INLINE vec FC_NAME(mapped)(vec x, const fc_activation activation) {
    if (activation == FC_ACT_SILU) return FC_NAME(gated)(x, x);
    if (activation == FC_ACT_SIGMOID) return FC_NAME(gated)(x, v_set1(1));
    return FC_NAME(hardswish)(x);
}

FC_INLINE void FC_NAME(map_run)(T *p, int64_t count, int64_t step, const fc_activation activation) {
    if (step == 1)
        for (; count >= FC_VL; p += FC_VL, count -= FC_VL) v_store(p, FC_NAME(mapped)(v_load(p), activation));
    for (int64_t n; count > 0; p += n * step, count -= n) {
        n = count < FC_VL ? count : FC_VL;
        FC_NAME(store_row)(p, FC_NAME(mapped)(FC_NAME(load_row)(p, n, step), activation), n, step);
    }
}

void FC_NAME(map)(fc_activation activation, void *data, int64_t count, int64_t step) {
    if (activation == FC_ACT_SILU) FC_NAME(map_run)(data, count, step, FC_ACT_SILU);
    if (activation == FC_ACT_HARDSWISH) FC_NAME(map_run)(data, count, step, FC_ACT_HARDSWISH);
    if (activation == FC_ACT_SIGMOID) FC_NAME(map_run)(data, count, step, FC_ACT_SIGMOID);
}
