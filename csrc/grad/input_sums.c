// SPDX-License-Identifier: BSD-3-Clause
//
// input_sums.c - what input_spread.c and input_columns.c have in common.
#include "grad/input_sums.h"

double fc_sums_written(const fc_problem *p) {
    return (double)p->batch * (double)p->groups * (double)p->in_channels * (double)p->axis[0].in *
           (double)p->axis[1].in * (double)p->axis[2].in;
}

static size_t bias_bytes(const fc_problem *p) {
    return fc_align((size_t)(p->groups * p->in_channels * fc_bytes(p->types.source)));
}

fc_status fc_sums_layout(fc_plan *plan, const fc_problem *sums, const fc_request *r, char message[FC_MESSAGE]) {
    const size_t bias = bias_bytes(&plan->problem);
    plan->parts = calloc(1, sizeof *plan->parts);
    if (!plan->parts) return FC_NO_MEMORY;
    fc_plan *part;
    const fc_status status = r->planner->plan(&(fc_op){FC_CONV, sums}, r->options, &part, message);
    if (status != FC_OK) return status;
    plan->part_count = 1;
    plan->id = part->id;
    *plan->parts = (fc_part){part, bias};
    plan->packed_bytes = bias + part->packed_bytes;
    return FC_OK;
}

fc_status fc_sums_pack(const fc_plan *plan, const void *wei, const void *bias, int summed, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const fc_part *part = plan->parts;
    if (bias) memcpy(packed, bias, (size_t)(p->groups * p->in_channels * fc_bytes(p->types.source)));
    else memset(packed, 0, bias_bytes(p));
    return fc_plan_pack(part->plan, wei, summed ? bias : NULL, (char *)packed + part->packed, threads);
}

void fc_sums_stages(const fc_plan *plan, size_t bytes, size_t own, int threads, fc_list *list) {
    const fc_part *part = plan->parts;
    const fc_places at = list->at;
    fc_list_scratch(list, bytes, own);
    list->at.wei = fc_behind(at.wei, (int64_t)part->packed);
    list->at.dst = at.shared;
    list->at.residual = (fc_place){.base = FC_BASE_NONE};
    list->at.shared = fc_behind(at.shared, (int64_t)bytes);
    part->plan->kind->stages(part->plan, threads, list);
    list->at = at;
}

const char *fc_sums_form(const fc_plan *plan) { return fc_plan_form(plan->parts->plan); }
