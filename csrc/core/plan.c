// SPDX-License-Identifier: BSD-3-Clause
//
// plan.c - what can be done with a plan, whoever made it: kinds ask this of their parts, and so stand below planner.c and
// above this.
#include "core/plan.h"

void fc_plan_destroy(fc_plan *plan) {
    if (!plan) return;
    for (fc_schedule *s = atomic_load(&plan->schedules), *next; s; s = next) {
        next = s->next;
        fc_schedule_destroy(s);
    }
    for (int64_t i = 0; i < plan->part_count; i++) fc_plan_destroy(plan->parts[i].plan);
    free(plan->parts);
    free(plan->state);
    free(plan);
}

fc_algo_id fc_plan_algorithm(const fc_plan *plan) { return plan->id; }

const char *fc_plan_form(const fc_plan *plan) { return plan->kind->form ? plan->kind->form(plan) : ""; }

size_t fc_plan_packed_bytes(const fc_plan *plan) { return plan->packed_bytes; }

uint64_t fc_plan_tag(const fc_plan *plan) { return plan->tag; }

double fc_plan_flops(const fc_plan *plan) {
    if (plan->family == FC_CONV) return 2 * fc_macs(&plan->problem);
    const fc_recurrent *r = &plan->recurrent;
    const double times = plan->family == FC_PRODUCT     ? 1
                         : plan->family == FC_RECURRENT ? (double)r->steps * (double)r->directions
                                                        : 0;
    return times > 0 ? times * fc_plan_flops(plan->parts->plan) : 0;
}

double fc_plan_seconds(const fc_plan *plan) { return plan->seconds; }

fc_status fc_plan_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    return plan->packed_bytes ? plan->kind->pack(plan, wei, bias, packed, threads) : FC_OK;
}

fc_status fc_borrow(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    (void)plan, (void)threads;
    memcpy(packed, &(fc_borrowed){wei, bias}, sizeof(fc_borrowed));
    return FC_OK;
}

fc_borrowed fc_borrowed_by(const fc_stage *stage, const fc_call *call) {
    fc_borrowed b;
    memcpy(&b, fc_operand(call, stage->at.wei), sizeof b);
    return b;
}

// Schedules are added at the head and stay as long as the plan, so that they are found without a lock.
fc_status fc_plan_schedule(const fc_plan *plan, int threads, const fc_schedule **out) {
    _Atomic(fc_schedule *) *head = &((fc_plan *)plan)->schedules; // what is remembered does not change the plan
    threads = fc_worthwhile_threads(plan->seconds, threads);
    for (const fc_schedule *s = atomic_load(head); s; s = s->next)
        if (s->threads == threads) {
            *out = s;
            return FC_OK;
        }
    fc_list list = {
        .schedule = fc_schedule_new(threads),
        .at = {.src = fc_place_in(FC_BASE_SRC),
               .wei = fc_place_in(FC_BASE_WEI),
               .residual = fc_place_in(FC_BASE_RESIDUAL),
               .other = {fc_place_in(FC_BASE_OTHER), fc_place_in(FC_BASE_OTHER + 1), fc_place_in(FC_BASE_OTHER + 2)},
               .dst = fc_place_in(FC_BASE_DST),
               .further = fc_place_in(FC_BASE_FURTHER),
               .index = fc_place_in(FC_BASE_INDEX),
               .shared = fc_place_in(FC_BASE_SHARED)}};
    if (!list.schedule) return FC_NO_MEMORY;
    plan->kind->stages(plan, threads, &list);
    const fc_status status = fc_schedule_finish(&list);
    if (status != FC_OK) {
        fc_schedule_destroy(list.schedule);
        return status;
    }
    list.schedule->next = atomic_load(head);
    while (!atomic_compare_exchange_weak(head, &list.schedule->next, list.schedule)) continue;
    *out = list.schedule;
    return FC_OK;
}
