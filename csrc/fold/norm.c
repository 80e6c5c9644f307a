// SPDX-License-Identifier: BSD-3-Clause
//
// norm.c - layer, instance, group and RMS norm, and softmax: what is found of some axes is spread over them.
//
// The variance is that of centred numbers, in a second pass over what lies in the cache: the difference of two large sums,
// of one pass, would lose the digits in which x differs from a large mean.
#include "fold/fold.h"

fc_status fc_check_norm(const void *problem, char message[FC_MESSAGE]) {
    const fc_norm *n = problem;
    FC_CHECK(n->kind >= 0 && n->kind < FC_NORMS, "kind %d is unknown", (int)n->kind);
    return fc_fold_check(n->axis, n->rank, n->dtype, message);
}

static void conclude(const fc_plan *plan, int step, const double *total, int64_t width, double *centre,
                     double *factor) {
    const fc_norm *n = &plan->norm;
    const double count = (double)((const fc_fold_plan *)plan->state)->folding.count;
    for (int64_t i = 0; i < width; i++) {
        const double x = total[i];
        switch (n->kind) {
        case FC_NORM_SOFTMAX: // what is spread has been centred already
            centre[i] = step == 0 ? x : 0;
            factor[i] = step == 0 ? 0 : 1 / x;
            break;
        case FC_NORM_LOG_SOFTMAX:
            if (step == 0) centre[i] = x;
            factor[i] = step == 0 ? 0 : log(x);
            break;
        case FC_NORM_RMS:
            centre[i] = 0;
            factor[i] = 1 / sqrt(x / count + n->eps);
            break;
        default:
            if (step == 0) centre[i] += x / count;
            factor[i] = step == 0 ? 0 : 1 / sqrt(x / count + n->eps);
        }
    }
}

static int is_softmax(const fc_norm *n) { return n->kind == FC_NORM_SOFTMAX || n->kind == FC_NORM_LOG_SOFTMAX; }
static int steps_of(const fc_norm *n) { return n->kind == FC_NORM_RMS ? 1 : 2; }
static int passes_of(const fc_norm *n) { return 2 + steps_of(n); }

static double cost(const fc_request *request) {
    const fc_norm *n = request->op->problem;
    const fc_folding f = fc_folding_of(n->axis, n->rank, request->kernels->vl, passes_of(n));
    return fc_fold_cost(&f, request->kernels, passes_of(n), is_softmax(n));
}

static fc_status layout(fc_plan *plan, const fc_request *request, char message[FC_MESSAGE]) {
    (void)message;
    fc_norm *n = &plan->norm;
    fc_fold_plan *folds = plan->state = calloc(1, sizeof *folds);
    if (!folds) return FC_NO_MEMORY;
    for (int i = 0; i < n->rank && is_softmax(n); i++) n->axis[i].wei = 0; // which is not read
    folds->folding = fc_folding_of(n->axis, n->rank, request->kernels->vl, passes_of(n));
    folds->steps = steps_of(n);
    folds->step[0].kind = is_softmax(n) ? FC_FOLD_MAX : n->kind == FC_NORM_RMS ? FC_FOLD_SQUARES : FC_FOLD_CENTRED;
    folds->step[1].kind = is_softmax(n) ? FC_FOLD_EXP : FC_FOLD_SQUARES;
    folds->step[1].keeps = n->kind == FC_NORM_SOFTMAX;
    folds->spreads = 1;
    folds->scales = !is_softmax(n);
    folds->subtract = n->kind == FC_NORM_LOG_SOFTMAX;
    folds->conclude = conclude;
    return FC_OK;
}

static const fc_kind kind = {
    .name = "norm",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .cost = cost,
    .layout = layout,
    .stages = fc_fold_stages,
};

const fc_kind *const fc_kinds_norm[] = {&kind, NULL};
