// SPDX-License-Identifier: BSD-3-Clause
//
// weight_depthwise.h - how the weight gradient between single channels is cut into tasks, for those who do more with what a task
// has read (layer.c).
#ifndef FC_GRAD_WEIGHT_DEPTHWISE_H
#define FC_GRAD_WEIGHT_DEPTHWISE_H

#include "core/plan.h"

enum { FC_BLOCK_VECTORS = 8 }; // of channels, of a task over them

// Task i is part i / blocks of the output rows and block i % blocks of the units.  The sums of a part are [pair][tap] over
// pixels, and as kernels have them over channels.
typedef struct fc_grad_cut {
    const fc_problem *problem; // of the plan
    int over_channels;
    int64_t rows, parts; // output rows of all images
    int64_t sums;        // of a part
    int64_t own;         // over pixels: of a pair, with its lanes
    int64_t vector;      // over channels: sums of a vector of channels
    int64_t units;       // pairs of channels, or vectors of them
    int64_t blocks;      // tasks that share the units
    int64_t call;        // rows of a kernel's call
} fc_grad_cut;

fc_grad_cut fc_grad_cut_of(const fc_problem *problem, const fc_kernels *kernels);
// The scratch of both stages: the sums of all parts are shared.
int64_t fc_grad_shared_bytes(const fc_grad_cut *cut, const fc_kernels *kernels);
int64_t fc_grad_own_bytes(const fc_grad_cut *cut, const fc_kernels *kernels);
// The tasks, and behind them as many as there are blocks that add up the parts.  `cut` lives as long as the schedule;
// list->at has the operands of a weight gradient.
void fc_grad_sum_stage(const fc_plan *plan, const fc_grad_cut *cut, fc_list *list);
void fc_grad_part_stage(const fc_plan *plan, const fc_grad_cut *cut, fc_list *list);

#endif
