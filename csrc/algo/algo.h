// SPDX-License-Identifier: BSD-3-Clause
//
// algo.h - what an algorithm is: a name and verbs in the same order in every file of this folder, listed once in plan.c.
#ifndef FC_ALGO_H
#define FC_ALGO_H

#include "fastconv.h"
#include "kernels/kernels.h"
#include "parallel.h"

typedef struct fc_algorithm {
    const char *name;
    // The reason why it cannot serve the problem, or NULL.
    const char *(*refuse)(const fc_problem *problem, const fc_kernels *kernels);
    // Predicted seconds of one thread.
    double (*cost)(const fc_problem *problem, const fc_kernels *kernels, const fc_costs *costs);
    // Packed weights for each pair of an input and an output channel; NULL: its taps.
    int64_t (*points)(const fc_problem *problem);
    // Fills the plan's layout; FC_UNSUPPORTED when sizes overflow.
    fc_status (*layout)(fc_plan *plan);
    size_t (*scratch)(const fc_plan *plan, int threads);
    void (*pack)(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads);
    void (*execute)(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                    void *scratch, int threads);
    // The tasks that execute runs, all independent; NULL where there are stages that wait for each other.
    void (*tasks)(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                  void *scratch, int threads, fc_tasks *tasks);
} fc_algorithm;

#endif
