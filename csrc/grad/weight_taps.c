// SPDX-License-Identifier: BSD-3-Clause
#include "grad/weight_taps.h"

// In as few steps as the strides allow.
void fc_store_taps(const fc_kernels *kernels, const fc_problem *p, const fc_tap_box *box, void *d_wei) {
    const fc_view *view = &p->wei;
    int64_t taps[FC_AXES] = {box->count[0], box->count[1], box->count[2]};
    for (int i = 1; i >= 0; i--) { // axes join from the innermost outwards
        if (box->step[i] != taps[2] * box->step[2] || view->axis[i] != taps[2] * view->axis[2]) break;
        taps[2] *= taps[i];
        taps[i] = 1;
    }
    const int64_t at = box->channel * view->channel + box->first[0] * view->axis[0] + box->first[1] * view->axis[1] +
                       box->first[2] * view->axis[2];
    for (int64_t z = 0; z < taps[0]; z++)
        for (int64_t y = 0; y < taps[1]; y++) {
            const fc_rectangle work = {
                .src = (const char *)box->sums + (z * box->step[0] + y * box->step[1]) * kernels->element,
                .dst = (char *)d_wei + (at + z * view->axis[0] + y * view->axis[1]) * kernels->element,
                .rows = taps[2],
                .columns = box->channels,
                .src_row = box->step[2],
                .src_column = 1,
                .dst_row = view->axis[2],
                .dst_column = view->channel,
            };
            kernels->rectangle(&work);
        }
}

#define FC_SLICES_OF(T, S)                                                                                             \
    static void add_slices_##S(T *sums, int64_t slices, int64_t slice, int64_t count) {                                \
        for (int64_t step = 1; step < slices; step *= 2)                                                               \
            for (int64_t i = 0; i + step < slices; i += 2 * step)                                                      \
                for (int64_t j = 0; j < count; j++) sums[i * slice + j] += sums[(i + step) * slice + j];               \
    }                                                                                                                  \
    static void one_nan_##S(T *sums, int64_t count) {                                                                  \
        for (int64_t j = 0; j < count; j++) sums[j] = sums[j] == sums[j] ? sums[j] : (T)NAN;                           \
    }

FC_SLICES_OF(float, f32)
FC_SLICES_OF(double, f64)
#undef FC_SLICES_OF

void fc_add_slices(int32_t dtype, void *sums, int64_t slices, int64_t slice, int64_t count) {
    if (dtype == FC_F32) add_slices_f32(sums, slices, slice, count);
    else add_slices_f64(sums, slices, slice, count);
}

void fc_one_nan(int32_t dtype, void *sums, int64_t count) {
    if (dtype == FC_F32) one_nan_f32(sums, count);
    else one_nan_f64(sums, count);
}
