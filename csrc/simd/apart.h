// SPDX-License-Identifier: BSD-3-Clause
//
// apart.h - lanes that are `step` elements apart in memory, one by one: included by each vector header behind its own
// operations.
#ifndef FC_APART_H
#define FC_APART_H

#define FC_APART(T, S)                                                                                                 \
    static inline v_##S v_load_apart_##S(const T *p, int64_t n, int64_t step) {                                        \
        if (step == 2) return v_load2_part_##S(p, n);                                                                  \
        T lane[FC_VL_##S] = {0};                                                                                       \
        for (int64_t l = 0; l < n; l++) lane[l] = p[l * step];                                                         \
        return v_load_##S(lane);                                                                                       \
    }                                                                                                                  \
    static inline void fc_store_each_##S(T *p, v_##S a, int64_t n, int64_t step) {                                     \
        T lane[FC_VL_##S];                                                                                             \
        v_store_##S(lane, a);                                                                                          \
        for (int64_t l = 0; l < n; l++) p[l * step] = lane[l];                                                         \
    }

FC_APART(float, f32)
FC_APART(double, f64)
#undef FC_APART

#endif
