// SPDX-License-Identifier: BSD-3-Clause
//
// activate.h - activations that are no clamp, on outputs that a kernel has just stored without one: they are still in L1
// or L2, and kernels whose sums are in registers neither branch nor spill for a function that takes many of those.
#ifndef FC_ACTIVATE_H
#define FC_ACTIVATE_H

#include "core/plan.h"

// An output's channels, rows and columns: how many, and elements from one to the next.
typedef struct fc_box {
    int64_t size[3], stride[3];
} fc_box;

static inline int fc_activates(const fc_plan *plan) { return plan->problem.activation != FC_MAP_CLAMP; }

void fc_activate_run(const fc_kernels *k, const fc_problem *p, void *data, int64_t count, int64_t step);
void fc_activate_box(const fc_plan *plan, void *data, const fc_box *box);
// So many channels of a run of pixels.
void fc_activate_channels(const fc_plan *plan, void *data, int64_t channels, fc_run pixels);
// What the last block of k has stored.
void fc_activate_tile(const fc_plan *plan, const fc_gemm_tile *tile);

#endif
