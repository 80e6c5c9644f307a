// SPDX-License-Identifier: BSD-3-Clause
//
// kind.h - what can solve a problem: a name and verbs, in this order in every file that has one.  Those of convolutions are
// listed in algorithms.c, those of other problems in their own file (family.h).
#ifndef FC_KIND_H
#define FC_KIND_H

#include "core/schedule.h"
#include "core/team.h"
#include "kernels/kernels.h"

// A problem that is to be solved, and how; `options->algorithm` is the one in question.  Whoever solves it by other
// problems asks the planner for those.
typedef struct fc_planner fc_planner;
typedef struct fc_request {
    const fc_op *op;
    const fc_kernels *kernels;
    const fc_options *options; // with the machine, the algorithm in question and the costs
    const fc_planner *planner;
} fc_request;

struct fc_planner {
    // What the algorithm in question says of a problem that has been checked, or derived from such a one.
    fc_verdict (*ask)(const fc_op *op, const fc_options *options);
    fc_verdict (*ask_own)(const fc_op *op, const fc_options *options); // and by that algorithm's own kind
    fc_status (*plan)(const fc_op *op, const fc_options *options, fc_plan **plan, char message[FC_MESSAGE]);
    const struct fc_kind *(*kind)(fc_algo_id algorithm); // of problems that need no other
};

// What counts in a choice.
static inline double fc_total(const fc_verdict *verdict, const fc_options *options) {
    return verdict->cost + (options->once ? verdict->packing : 0);
}

// What a kind can do, and how it does it.
enum {
    FC_SERVES_FORWARD = 1 << FC_FORWARD,
    FC_SERVES_INPUT = 1 << FC_BACKWARD_INPUT,
    FC_SERVES_WEIGHT = 1 << FC_BACKWARD_WEIGHT,
    FC_CONVERTS = 1 << 3,   // serves tensors that are not of the type of their sums, and only those
    FC_INEXACT = 1 << 4,    // beyond the error bound of direct summation
    FC_BY_NAME = 1 << 5,    // only when asked for
    FC_WIDE_TASKS = 1 << 6, // a task takes many pixels, to read its weights seldom
    FC_BY_PARTS = 1 << 7,   // serves FC_AUTO itself, by an algorithm of its own or of each of its parts
    FC_POOLS = 1 << 8,      // serves convolutions whose outputs are pooled, too
};

typedef struct fc_kind {
    const char *name;
    unsigned traits;
    int64_t rows; // of a tile of outputs: where an image is cut, it is cut between tiles
    // The reason why it cannot serve the problem, or NULL; NULL itself where it serves all.
    const char *(*refuse)(const fc_request *request);
    // Predicted seconds of one thread, and of packing the weights before, if there are any.
    double (*cost)(const fc_request *request);
    double (*packing)(const fc_request *request);
    // All three at once, of a kind that has to ask for other problems; NULL where those above answer.
    fc_verdict (*ask)(const fc_request *request);
    // Fills the plan's state, packed_bytes, packing and children.
    fc_status (*layout)(fc_plan *plan, const fc_request *request, char message[FC_MESSAGE]);
    // NULL where no plan has packed bytes: the weights of a call are then as they are.
    fc_status (*pack)(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads);
    // Appends the stages that so many threads go through, and says what scratch they need.
    void (*stages)(const fc_plan *plan, int threads, fc_list *list);
    // Which of its forms a plan takes, in words; NULL where it has but one.
    const char *(*form)(const fc_plan *plan);
} fc_kind;

#endif
