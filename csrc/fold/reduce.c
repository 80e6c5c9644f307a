// SPDX-License-Identifier: BSD-3-Clause
//
// reduce.c - sums, means, extremes and their like along any axes; and the gradient below a clamp with its sums.
#include "fold/fold.h"

fc_status fc_check_reduce(const void *problem, char message[FC_MESSAGE]) {
    const fc_reduce *r = problem;
    FC_CHECK(r->kind >= 0 && r->kind < FC_REDUCES, "kind %d is unknown", (int)r->kind);
    FC_CHECK(r->second >= -fc_largest && r->second <= fc_largest, "the second result is more than 2^48 elements away");
    const fc_status status = fc_fold_check(r->axis, r->rank, r->dtype, message);
    int64_t results = 1, count = 1;
    int kept = 0;
    for (int i = 0; i < r->rank && status == FC_OK; i++) {
        *(r->axis[i].folded ? &count : &results) *= r->axis[i].count;
        kept += !r->axis[i].folded;
    }
    FC_CHECK(r->kind != FC_REDUCE_THROUGH || kept == 1, "%d axes of channels", kept);
    FC_CHECK(r->kind != FC_REDUCE_THROUGH || r->low <= r->high, "the bounds are not ordered");
    FC_CHECK(count > 0 || results == 0 || (r->kind != FC_REDUCE_MAX && r->kind != FC_REDUCE_MIN),
             "nothing has no extreme");
    return status;
}

static const fc_fold_kind first_fold[FC_REDUCES] = {
    [FC_REDUCE_SUM] = FC_FOLD_SUM,         [FC_REDUCE_MEAN] = FC_FOLD_SUM,        [FC_REDUCE_MAX] = FC_FOLD_MAX,
    [FC_REDUCE_MIN] = FC_FOLD_MIN,         [FC_REDUCE_PRODUCT] = FC_FOLD_PRODUCT, [FC_REDUCE_SQUARES] = FC_FOLD_SQUARES,
    [FC_REDUCE_L1] = FC_FOLD_ABS,          [FC_REDUCE_L2] = FC_FOLD_SQUARES,      [FC_REDUCE_LOG_SUM_EXP] = FC_FOLD_MAX,
    [FC_REDUCE_MOMENTS] = FC_FOLD_CENTRED, [FC_REDUCE_THROUGH] = FC_FOLD_THROUGH,
};

// The result is left in `centre`.
static void conclude(const fc_plan *plan, int step, const double *total, int64_t width, double *centre,
                     double *factor) {
    const fc_reduce *r = &plan->reduce;
    const double count = (double)((const fc_fold_plan *)plan->state)->folding.count;
    for (int64_t i = 0; i < width; i++) {
        const double x = total[i];
        if (step == 0) factor[i] = 0;
        switch (r->kind) {
        case FC_REDUCE_MEAN:
            centre[i] = x / count;
            break;
        case FC_REDUCE_L2:
            centre[i] = sqrt(x);
            break;
        case FC_REDUCE_LOG_SUM_EXP: // exp(inf - inf) is not wanted: an infinite maximum is the result
            centre[i] = step == 0 ? (isinf(x) ? 0 : x) : centre[i] + log(x);
            break;
        case FC_REDUCE_MOMENTS:
            if (step == 0) centre[i] += x / count;
            else factor[i] = x / count;
            break;
        default:
            centre[i] = x;
        }
    }
}

static int steps_of(const fc_reduce *r) {
    return r->kind == FC_REDUCE_LOG_SUM_EXP || r->kind == FC_REDUCE_MOMENTS ? 2 : 1;
}

static double cost(const fc_request *request) {
    const fc_reduce *r = request->op->problem;
    const fc_folding f = fc_folding_of(r->axis, r->rank, request->kernels->vl, steps_of(r));
    const int passes = r->kind == FC_REDUCE_THROUGH ? 3 : steps_of(r);
    return fc_fold_cost(&f, request->kernels, passes, r->kind == FC_REDUCE_LOG_SUM_EXP);
}

static fc_status layout(fc_plan *plan, const fc_request *request, char message[FC_MESSAGE]) {
    (void)message;
    fc_reduce *r = &plan->reduce;
    fc_fold_plan *folds = plan->state = calloc(1, sizeof *folds);
    if (!folds) return FC_NO_MEMORY;
    const int through = r->kind == FC_REDUCE_THROUGH;
    for (int i = 0; i < r->rank && !through; i++) {
        r->axis[i].wei = 0; // which is not read
        if (r->axis[i].folded) r->axis[i].dst = 0;
    }
    folds->folding = fc_folding_of(r->axis, r->rank, request->kernels->vl, steps_of(r));
    folds->steps = steps_of(r);
    folds->step[0].kind = first_fold[r->kind];
    folds->step[0].keeps = folds->apart = through;
    folds->step[1].kind = r->kind == FC_REDUCE_LOG_SUM_EXP ? FC_FOLD_EXP : FC_FOLD_SQUARES;
    folds->results = r->kind == FC_REDUCE_MOMENTS ? 2 : 1;
    folds->second = r->second;
    folds->low = r->low;
    folds->high = r->high;
    folds->conclude = conclude;
    return FC_OK;
}

static const fc_kind kind = {
    .name = "reduce",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .cost = cost,
    .layout = layout,
    .stages = fc_fold_stages,
};

const fc_kind *const fc_kinds_reduce[] = {&kind, NULL};
