// SPDX-License-Identifier: BSD-3-Clause
//
// plan.c - the ordered list of algorithms, the choice among them, and the plan that holds it.
#include "algo/plan.h"

#include <stdio.h>

extern const fc_algorithm fc_algorithm_direct, fc_algorithm_im2col, fc_algorithm_winograd_f2, fc_algorithm_winograd_f3,
    fc_algorithm_winograd_f4, fc_algorithm_winograd_f6, fc_algorithm_pointwise, fc_algorithm_depthwise,
    fc_algorithm_reference;

static const fc_algorithm *const algorithms[FC_ALGOS] = {
    [FC_DIRECT] = &fc_algorithm_direct,           [FC_IM2COL] = &fc_algorithm_im2col,
    [FC_WINOGRAD_F2] = &fc_algorithm_winograd_f2, [FC_WINOGRAD_F3] = &fc_algorithm_winograd_f3,
    [FC_WINOGRAD_F4] = &fc_algorithm_winograd_f4, [FC_WINOGRAD_F6] = &fc_algorithm_winograd_f6,
    [FC_POINTWISE] = &fc_algorithm_pointwise,     [FC_DEPTHWISE] = &fc_algorithm_depthwise,
    [FC_REFERENCE] = &fc_algorithm_reference,
};

static int is_winograd(int id) { return id >= FC_WINOGRAD_F2 && id <= FC_WINOGRAD_F6; }

static const char *refusal_of(const fc_problem *problem, const fc_kernels *kernels, int id, int strict) {
    if (problem->in_channels * fc_taps(problem) == 0 && id != FC_IM2COL) return "the kernel is empty";
    if (is_winograd(id) && strict)
        return "precision='strict' and weight gradients keep the error bound of direct summation";
    return algorithms[id]->refuse(problem, kernels);
}

// Every constant is a time.  One that is not positive or not finite would make a choice without meaning.
static int costs_make_sense(const fc_costs *costs) {
#define FC_COST(name) &&isfinite(costs->name) && costs->name > 0
    return 1 FC_COSTS(FC_COST);
#undef FC_COST
}

fc_status fc_plan_create(const fc_problem *problem, const fc_options *options, fc_plan **out,
                         char message[FC_MESSAGE]) {
    *out = NULL;
    fc_status status = fc_problem_check(problem, message);
    if (status != FC_OK) return status;
    if (!fc_isa_supported(options->isa) || options->algorithm < FC_AUTO || options->algorithm >= FC_ALGOS) {
        snprintf(message, FC_MESSAGE, "no such instruction set or algorithm on this machine");
        return FC_INVALID;
    }
    if (!costs_make_sense(&options->costs)) {
        snprintf(message, FC_MESSAGE, "a cost is not a positive number of seconds");
        return FC_INVALID;
    }
    return fc_plan_make(problem, options, out, message);
}

static int is_pointwise(const fc_axis *a) { return a->kernel == 1 && a->stride == 1 && a->pad == 0 && a->in == a->out; }

// Whether steps of `outer` continue where `count` inner steps end; a single inner step can be any.
static int continues(int64_t outer, int64_t inner, int64_t count) { return count == 1 || outer == inner * count; }

// The same problem in fewer, longer rows: where the kernel has one tap along an axis, rows that follow each other in
// memory are one row, and the images of a linear layer, of one pixel each, are the pixels of one image.
static fc_problem in_long_rows(fc_problem p) {
    fc_axis *w = &p.axis[2];
    for (int i = 1; i >= -1 && is_pointwise(w); i--) { // height, depth, image
        const int64_t *src = i < 0 ? &p.src.outer : &p.src.axis[i], *dst = i < 0 ? &p.dst.outer : &p.dst.axis[i];
        const int64_t count = i < 0 ? p.batch : p.axis[i].in;
        if (i >= 0 && !is_pointwise(&p.axis[i])) break;
        if (count == 1) continue;
        if (count == 0 || !continues(*src, p.src.axis[2], w->in) || !continues(*dst, p.dst.axis[2], w->in)) break;
        if (w->in == 1) {
            p.src.axis[2] = *src;
            p.dst.axis[2] = *dst;
        }
        w->in = w->out = w->in * count;
        if (i < 0) p.batch = 1;
        else p.axis[i].in = p.axis[i].out = 1;
    }
    return p;
}

// Each pair of an input and an output channel is packed by itself, for Winograd in all points of a tile.
static double packing(const fc_problem *p, const fc_algorithm *algorithm, const fc_costs *c) {
    const double pairs = (double)p->groups * (double)p->in_channels * (double)p->out_channels;
    return algorithm->points ? pairs * (double)algorithm->points(p) * c->pack_point
                             : pairs * (double)fc_taps(p) * c->pack;
}

static double total(const fc_verdict *verdict, const fc_options *options) {
    return verdict->cost + (options->once ? verdict->packing : 0);
}

void fc_plan_explain(const fc_problem *problem, const fc_options *options, fc_verdict verdicts[FC_ALGOS]) {
    if (problem->direction != FC_FORWARD) {
        fc_backward_explain(problem, options, verdicts);
        return;
    }
    const fc_problem p = in_long_rows(*problem);
    const fc_kernels *kernels = fc_kernels_for(options->isa, (fc_dtype)p.dtype);
    for (int id = 0; id < FC_ALGOS; id++) {
        verdicts[id].name = algorithms[id]->name;
        verdicts[id].refusal = refusal_of(&p, kernels, id, options->strict);
        verdicts[id].cost = verdicts[id].refusal ? INFINITY : algorithms[id]->cost(&p, kernels, &options->costs);
        verdicts[id].packing = packing(&p, algorithms[id], &options->costs);
    }
}

fc_status fc_plan_make(const fc_problem *problem, const fc_options *options, fc_plan **out, char message[FC_MESSAGE]) {
    snprintf(message, FC_MESSAGE, "not enough memory for the plan");
    fc_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return FC_NO_MEMORY;
    plan->problem = *problem;
    plan->kernels = fc_kernels_for(options->isa, (fc_dtype)problem->dtype);
    plan->costs = options->costs;
    fc_status status = FC_OK;
    if (problem->direction != FC_FORWARD) {
        status = fc_backward_layout(plan, options, message);
    } else {
        fc_verdict verdicts[FC_ALGOS];
        plan->problem = in_long_rows(*problem);
        fc_plan_explain(&plan->problem, options, verdicts);
        int best = options->algorithm;
        if (best == FC_AUTO) {
            best = FC_REFERENCE;
            for (int id = 0; id < FC_ALGOS; id++)
                if (id != FC_WINOGRAD_F6 && total(&verdicts[id], options) < total(&verdicts[best], options)) best = id;
        }
        plan->id = (fc_algo_id)best;
        plan->algorithm = algorithms[best];
        plan->seconds = verdicts[best].cost;
        if (verdicts[best].refusal) {
            snprintf(message, FC_MESSAGE, "%s", verdicts[best].refusal);
            status = FC_UNSUPPORTED;
        } else if (problem->half) {
            plan->problem = *problem;
            status = fc_half_layout(plan, options, message);
        } else status = plan->algorithm->layout(plan);
    }
    if (status != FC_OK) {
        fc_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return FC_OK;
}

void fc_plan_destroy(fc_plan *plan) {
    if (!plan) return;
    for (int64_t i = 0; i < plan->part_count; i++) fc_plan_destroy(plan->parts[i].plan);
    free(plan->parts);
    free(plan->table);
    free(plan);
}

fc_algo_id fc_plan_algorithm(const fc_plan *plan) { return plan->id; }

size_t fc_plan_packed_bytes(const fc_plan *plan) { return plan->packed_bytes; }

double fc_plan_flops(const fc_plan *plan) { return 2 * fc_macs(&plan->problem); }

static int threads_for(const fc_plan *plan, int threads) { return fc_worthwhile_threads(plan->seconds, threads); }

size_t fc_plan_scratch_bytes(const fc_plan *plan, int threads) {
    return plan->algorithm->scratch(plan, threads_for(plan, threads));
}

fc_status fc_plan_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    if (!p->half) {
        plan->algorithm->pack(plan, wei, bias, packed, threads);
        return FC_OK;
    }
    const int64_t weights = p->groups * fc_weights(p), out = p->groups * p->out_channels;
    float *wide = fc_scratch_acquire((size_t)(weights + out) * sizeof(float));
    if (!wide) return FC_NO_MEMORY;
    fc_half_widen(plan->kernels, wei, wide, weights, threads);
    if (bias) fc_half_widen(plan->kernels, bias, wide + weights, out, 1);
    plan->algorithm->pack(plan, wide, bias ? wide + weights : NULL, packed, threads);
    fc_scratch_release(wide);
    return FC_OK;
}

void fc_plan_execute(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                     void *scratch, int threads) {
    if (plan->problem.batch == 0 && plan->problem.direction != FC_BACKWARD_WEIGHT) return;
    plan->algorithm->execute(plan, src, packed, residual, dst, scratch, threads_for(plan, threads));
}
