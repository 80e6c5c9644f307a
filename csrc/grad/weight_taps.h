// SPDX-License-Identifier: BSD-3-Clause
//
// weight_taps.h - the end of weight gradients: sums of slices of the pixels, and where they are written.
#ifndef FC_GRAD_WEIGHT_TAPS_H
#define FC_GRAD_WEIGHT_TAPS_H

#include "core/plan.h"

// Some taps of some input channels of one output channel: the channels lie side by side, `step` from tap to tap.
typedef struct fc_tap_box {
    const void *sums;
    int64_t channel, channels;
    int64_t first[FC_AXES], count[FC_AXES], step[FC_AXES];
} fc_tap_box;

// d_wei: of the output channel.
void fc_store_taps(const fc_kernels *kernels, const fc_problem *problem, const fc_tap_box *box, void *d_wei);

// Sums over slices, which lie `slice` elements apart, by a tree that depends on their number alone; the first gets them.
void fc_add_slices(int32_t dtype, void *sums, int64_t slices, int64_t slice, int64_t count);
// Every NaN becomes the same one.
void fc_one_nan(int32_t dtype, void *sums, int64_t count);

#endif
