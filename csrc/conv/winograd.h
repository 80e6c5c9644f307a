// SPDX-License-Identifier: BSD-3-Clause
//
// winograd.h - what convolutions and weight gradients by Winograd have in common.
#ifndef FC_WINOGRAD_H
#define FC_WINOGRAD_H

#include "core/plan.h"

enum { FC_INPUT_CHANNELS = 64 }; // that a task transforms

// Whole cache lines, an odd number of them: planes at such distances spread over the sets of a cache.
static inline int64_t fc_odd_lines(int64_t elements) {
    const int64_t line = 16, rounded = fc_round_up(elements, line);
    return rounded / line % 2 ? rounded : rounded + line;
}
// Of tiles of m: r is 3, but where two or four taps to a side of a phase are made of 2, or five are 5.
fc_winograd_form fc_winograd_form_of(const fc_problem *problem, int64_t m);
static inline int64_t fc_winograd_blocks(const fc_winograd_form *form) {
    return form->blocks[0] * form->blocks[1] * form->blocks[2];
}
// Of block `block` of taps: from the first tap of the kernel to its own, in taps.
static inline void fc_winograd_block_at(const fc_winograd_form *form, int64_t block, int64_t at[FC_AXES]) {
    at[0] = block / form->blocks[2] / form->blocks[1];
    at[1] = block / form->blocks[2] % form->blocks[1];
    if (form->sides == 2) at[1] = fc_winograd_tap(form, at[1]);
    at[2] = fc_winograd_tap(form, block % form->blocks[2]);
}
const double *fc_winograd_g(const fc_winograd_form *form); // G, [alpha][r]
// Why F(m, r) cannot serve, whatever the direction, for outputs that are up to `stride` columns apart, or NULL.
const char *fc_winograd_refuses(const fc_problem *problem, int64_t stride);

#endif
