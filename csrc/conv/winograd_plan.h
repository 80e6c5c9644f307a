// SPDX-License-Identifier: BSD-3-Clause
//
// winograd_plan.h - what a plan of winograd.c has chosen, for winograd_stages.c.
#ifndef FC_WINOGRAD_PLAN_H
#define FC_WINOGRAD_PLAN_H

#include "conv/winograd.h"

// The state of a plan.
typedef struct fc_winograd {
    fc_winograd_form form;
    const fc_gemm_kernel *gemm; // over channels: tiles for rows
    int64_t depth;              // of the products: blocks of taps times input channels
    int64_t tiles_h, tiles_w, tiles;
    int64_t pitch;   // of V from tile to tile: depth, padded
    int64_t parts;   // blocks of nr output channels
    int64_t most;    // tiles per chunk at most
    int fused;       // a thread takes a chunk through all stages, or all threads share each stage
    int64_t passing; // input channels whose weights are transformed at a time, if that is done in passing, or 0
} fc_winograd;

static inline const fc_winograd *fc_winograd_of(const fc_plan *plan) { return plan->state; }

// U of so many input channels of one block of output channels, from point to point: a kernel's points are written together,
// and would throw each other out of caches at distances that are powers of two.
static inline int64_t fc_winograd_u_point(const fc_winograd *w, int64_t channels) {
    return fc_odd_lines(channels * w->gemm->nr);
}
// U of all of them.
static inline int64_t fc_winograd_u_part(const fc_winograd *w) {
    return w->form.points * fc_winograd_u_point(w, w->depth);
}
// The weights as they are, of one block of output channels.
static inline int64_t fc_winograd_taps_part(const fc_plan *plan) {
    return plan->problem.in_channels * fc_taps(&plan->problem) * fc_winograd_of(plan)->gemm->nr;
}

// Some weights of a group on their way to U and, as they are, to [in channel][tap][nr].
typedef struct fc_winograd_packing {
    const float *wei; // of the group
    int64_t part, channel, channels;
    float *points, *taps; // of that channel
    int64_t point;        // from point to point
} fc_winograd_packing;

// ---------------------------------------------------------------------------------------------- conv/winograd_weights.c

// 1 or -1 where the kernel is one block without zeros, whose taps adjoin forwards or, as in gradients, backwards.
int fc_winograd_whole(const fc_problem *problem, const fc_winograd_form *form);
fc_status fc_winograd_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads);
void fc_winograd_pack_part(const fc_plan *plan, const fc_winograd_packing *packing);

// ----------------------------------------------------------------------------------------------- conv/winograd_stages.c

void fc_winograd_stages(const fc_plan *plan, int threads, fc_list *list);

#endif
