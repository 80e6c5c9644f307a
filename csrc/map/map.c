// SPDX-License-Identifier: BSD-3-Clause
//
// map.c - activations by themselves: a task copies a piece, which then lies in L1, and maps it in place.
#include "core/family.h"
#include "core/plan.h"

enum { FC_MAP_PIECE = 4096 }; // elements

fc_status fc_check_map(const void *problem, char message[FC_MESSAGE]) {
    const fc_map *m = problem;
    FC_CHECK(m->count >= 0 && m->count <= fc_largest, "%lld numbers", (long long)m->count);
    FC_CHECK(m->dtype == FC_F32 || m->dtype == FC_F64, "dtype %d is unknown", (int)m->dtype);
    FC_CHECK(m->activation > FC_ACT_CLAMP && m->activation < FC_ACTIVATIONS, "activation %d is unknown",
             (int)m->activation);
    return FC_OK;
}

// A vector takes some fifty instructions, and is read and written once.
static double cost(const fc_request *r) {
    const fc_map *m = r->op->problem;
    return 1e-7 + 5e-9 * (double)m->count / (double)r->kernels->vl;
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)plan, (void)r, (void)message;
    return FC_OK;
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const fc_map *m = &stage->plan->map;
    const fc_kernels *k = stage->plan->kernels;
    const int64_t first = index * FC_MAP_PIECE, count = fc_min(FC_MAP_PIECE, m->count - first);
    const char *src = fc_operand(call, stage->at.src);
    char *dst = fc_operand(call, stage->at.dst);
    if (src != dst) memcpy(dst + first * k->element, src + first * k->element, (size_t)(count * k->element));
    k->map((fc_activation)m->activation, dst + first * k->element, count, 1);
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    list->schedule->exact = 1; // sigmoid(-100) is there in float32
    fc_list_stage(list, plan, task, fc_ceil_div(plan->map.count, FC_MAP_PIECE), NULL);
}

static const fc_kind kind = {
    .name = "map",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .cost = cost,
    .layout = layout,
    .stages = stages,
};

const fc_kind *const fc_kinds_map[] = {&kind, NULL};
