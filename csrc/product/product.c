// SPDX-License-Identifier: BSD-3-Clause
//
// product.c - products of matrices that a call hands over: the convolution of 1x1 that they are, the pairs being groups, the
// rows pixels and the columns output channels, whose weights are packed in the call.
#include "conv/gemm/gemm.h"
#include "core/family.h"

fc_status fc_check_product(const void *problem, char message[FC_MESSAGE]) {
    const fc_product *p = problem;
    const int64_t sizes[] = {p->pairs, p->rows, p->depth, p->columns};
    FC_CHECK(p->dtype == FC_F32 || p->dtype == FC_F64, "dtype %d is unknown", (int)p->dtype);
    int64_t elements = 1;
    for (int i = 0; i < 4; i++)
        FC_CHECK(sizes[i] > 0 && fc_product_fits(&elements, sizes[i]), "%lld pairs of %lld x %lld x %lld",
                 (long long)sizes[0], (long long)sizes[1], (long long)sizes[2], (long long)sizes[3]);
    for (int i = 0; i < 3; i++) {
        const int64_t strides[] = {p->src[i], p->other[i], p->dst[i]};
        for (int k = 0; k < 3; k++)
            FC_CHECK(strides[k] >= -fc_largest && strides[k] <= fc_largest, "axis %d: stride %lld", i,
                     (long long)strides[k]);
    }
    return FC_OK;
}

static fc_problem convolution_of(const fc_product *p) {
    fc_problem c = {.batch = 1, .groups = p->pairs, .in_channels = p->depth, .out_channels = p->columns};
    for (int i = 0; i < FC_AXES; i++) c.axis[i] = (fc_axis){.in = 1, .out = 1, .kernel = 1, .stride = 1, .dilation = 1};
    c.axis[2].in = c.axis[2].out = p->rows;
    c.src = (fc_view){.group = p->src[0], .channel = p->src[2], .axis = {[2] = p->src[1]}};
    c.wei = (fc_view){.group = p->other[0], .channel = p->other[1], .outer = p->other[2]};
    c.dst = (fc_view){.group = p->dst[0], .channel = p->dst[2], .axis = {[2] = p->dst[1]}};
    c.types = fc_types_of(p->dtype);
    c.low = -INFINITY, c.high = INFINITY;
    return c;
}

// Where rows can be read as they lie, and else copied; whoever else is asked packs weights in a way of its own.
static const fc_algo_id algorithms[] = {FC_POINTWISE, FC_IM2COL};

static double cost(const fc_request *r) {
    const fc_problem c = convolution_of(r->op->problem);
    double least = INFINITY;
    for (int i = 0; i < 2; i++) {
        fc_options options = *r->options;
        options.algorithm = algorithms[i];
        const fc_verdict v = r->planner->ask_own(&(fc_op){FC_CONV, &c}, &options);
        least = fmin(least, v.cost + v.packing);
    }
    return least;
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_problem c = convolution_of(&plan->product);
    plan->parts = calloc(1, sizeof *plan->parts);
    if (!plan->parts) return FC_NO_MEMORY;
    fc_status status = FC_UNSUPPORTED;
    for (int i = 0; i < 2 && status == FC_UNSUPPORTED; i++) {
        fc_options options = *r->options;
        options.algorithm = algorithms[i];
        status = r->planner->plan(&(fc_op){FC_CONV, &c}, &options, &plan->parts->plan, message);
        plan->part_count = status == FC_OK;
        if (status == FC_OK && plan->parts->plan->kind->stages != fc_gemm_stages) {
            fc_plan_destroy(plan->parts->plan);
            plan->part_count = 0;
            status = FC_UNSUPPORTED;
        }
    }
    return status;
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_plan *part = plan->parts->plan;
    const fc_places at = list->at;
    fc_list_scratch(list, part->packed_bytes, 0);
    list->at.wei = at.shared;
    list->at.residual = (fc_place){FC_BASE_NONE, FC_BASE_NONE, 0};
    list->at.shared = fc_behind(at.shared, (int64_t)fc_align(part->packed_bytes));
    fc_gemm_pack_stage(part, list);
    part->kind->stages(part, threads, list);
    list->at = at;
}

static const char *form(const fc_plan *plan) { return fc_gemm_form(plan->parts->plan); }

static const fc_kind kind = {
    .name = "product",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .cost = cost,
    .layout = layout,
    .stages = stages,
    .form = form,
};

const fc_kind *const fc_kinds_product[] = {&kind, NULL};
