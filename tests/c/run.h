// SPDX-License-Identifier: BSD-3-Clause
//
// run.h - plans a problem, packs its weights and runs it, as the programs of this folder need it.
#ifndef RUN_H
#define RUN_H

#include "fastconv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Packed weights and scratch start as what memory that nobody has written could be: bytes of 0xff are NaN.
static inline void *poisoned(size_t bytes) {
    void *memory = fc_memory_acquire(bytes);
    if (!memory) exit(2);
    memset(memory, 0xff, bytes);
    return memory;
}

// How to plan for this machine.
static inline fc_options options_for(fc_isa isa, fc_algo_id algorithm) {
    const fc_machine machine = fc_machine_here(isa);
    return (fc_options){.machine = machine, .algorithm = algorithm, .costs = fc_costs_default(&machine)};
}

// The algorithm that served, or FC_ALGOS for a problem that it cannot serve; *status gets that of the run.
static inline int run_op(const fc_op *op, fc_isa isa, fc_algo_id algorithm, const void *wei, const void *bias,
                         fc_operands operands, int threads, fc_status *status) {
    const fc_options options = options_for(isa, algorithm);
    char message[FC_MESSAGE];
    const fc_schedule *schedule, *again;
    fc_plan *plan;
    *status = fc_plan_create(op, &options, &plan, message);
    if (*status == FC_UNSUPPORTED) return FC_ALGOS;
    if (*status != FC_OK || fc_plan_schedule(plan, threads, &schedule) != FC_OK) {
        printf("no plan: status %d: %s\n", (int)*status, message);
        exit(2);
    }
    if (fc_plan_schedule(plan, threads, &again) != FC_OK || again != schedule) {
        printf("how work is shared out is not kept in the plan\n");
        exit(2);
    }
    const int served = fc_plan_algorithm(plan);
    void *packed = poisoned(fc_plan_packed_bytes(plan)), *scratch = poisoned(fc_schedule_scratch_bytes(schedule));
    if (fc_plan_packed_bytes(plan) && fc_plan_pack(plan, wei, bias, packed, threads) != FC_OK) exit(2);
    operands.wei = fc_plan_packed_bytes(plan) ? packed : wei;
    *status = fc_schedule_run(schedule, &operands, scratch);
    fc_memory_release(packed, fc_plan_packed_bytes(plan));
    fc_memory_release(scratch, fc_schedule_scratch_bytes(schedule));
    fc_plan_destroy(plan);
    return served;
}

#endif
