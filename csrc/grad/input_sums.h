// SPDX-License-Identifier: BSD-3-Clause
//
// input_sums.h - input gradients whose sums another problem leaves in scratch memory, from where they are written: the one
// part of a plan.  Packed: the bias, which what is no sum gets, too, then the weights of the part.
#ifndef FC_GRAD_INPUT_SUMS_H
#define FC_GRAD_INPUT_SUMS_H

#include "core/plan.h"

// Elements of the result.
double fc_sums_written(const fc_problem *problem);
fc_status fc_sums_layout(fc_plan *plan, const fc_problem *sums, const fc_request *request, char message[FC_MESSAGE]);
// With the bias in the sums already, or without.
fc_status fc_sums_pack(const fc_plan *plan, const void *wei, const void *bias, int summed, void *packed, int threads);
// Stages that leave so many bytes of sums in `shared`, where the next stage finds them, whose threads have `own` bytes each.
void fc_sums_stages(const fc_plan *plan, size_t bytes, size_t own, int threads, fc_list *list);
const char *fc_sums_form(const fc_plan *plan);

#endif
