// SPDX-License-Identifier: BSD-3-Clause
//
// dots.c - linear layers of a few rows whose weights are given with the call: each weight is used so seldom that packing it
// takes longer than all products. They are read once, where they lie.
#include "conv/activate.h"

enum { FC_DOT_PIXELS = 64, FC_DOT_OUTS = 64, FC_DOT_BYTES = 1 << 18 };

static int along(const fc_problem *p) { return p->wei.channel == 1 || p->in_channels == 1; }

// Sums are made in another order than those of `pointwise`, which takes any number of pixels: only where the algorithm is
// left open may it depend on theirs.
static const char *refusal(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    if (r->options->algorithm != FC_AUTO) return "another algorithm was asked for";
    if (!r->options->borrows) return "weights do not stay where they are";
    if (r->options->batch_invariant) return "a batch of any size would be read image by image";
    for (int i = 0; i < FC_AXES; i++)
        if (!fc_is_pointwise(&p->axis[i]) || (i + 1 < FC_AXES && p->axis[i].out != 1)) return "it is no linear layer";
    if (p->batch != 1 || p->axis[2].out > FC_DOT_PIXELS) return "too many pixels";
    if (p->src.channel != 1 && p->in_channels != 1) return "the channels of a pixel are not neighbours";
    if (!along(p) && p->wei.outer != 1) return "neither inputs nor outputs of the weights are neighbours";
    return NULL;
}

static fc_verdict ask(const fc_request *r) {
    fc_verdict v = {.refusal = refusal(r), .cost = INFINITY};
    if (v.refusal) return v;
    const fc_problem *p = r->op->problem;
    const double bytes = (double)(p->groups * fc_weights(p) * fc_bytes(p->types.weight));
    // Two loads for four multiplications.
    const double macs = 1.5 * fc_cost_macs(fc_macs(p), r->kernels, &r->options->costs);
    v.cost = r->options->costs.fixed + fmax(macs, fc_cost_weights(bytes, r->options));
    return v;
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)r, (void)message;
    plan->id = FC_POINTWISE;
    plan->packing[0] = -1; // unlike whatever is packed in earnest
    plan->packed_bytes = sizeof(fc_borrowed);
    return FC_OK;
}

// Some outputs of a group.
static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const int64_t element = plan->kernels->element, most = *(const int64_t *)stage->context;
    const int64_t first = fc_digit(&index, fc_ceil_div(p->out_channels, most)) * most, group = index;
    const fc_borrowed from = fc_borrowed_by(stage, call);
    const int64_t dst = group * p->dst.group + first * p->dst.channel;
    const char *residual = fc_operand(call, stage->at.residual);
    const fc_dot work = {
        .rows = p->axis[2].out,
        .outs = fc_min(most, p->out_channels - first),
        .depth = p->in_channels,
        .src = (const char *)fc_operand(call, stage->at.src) + group * p->src.group * element,
        .wei = (const char *)from.wei + (group * p->wei.group + first * p->wei.outer) * element,
        .bias = from.bias ? (const char *)from.bias + (group * p->out_channels + first) * element : NULL,
        .residual = residual ? residual + dst * element : NULL,
        .dst = (char *)fc_operand(call, stage->at.dst) + dst * element,
        .src_row = p->src.axis[2],
        .wei_out = p->wei.outer,
        .wei_in = p->wei.channel,
        .dst_row = p->dst.axis[2],
        .dst_out = p->dst.channel,
        .low = p->low,
        .high = p->high,
    };
    (along(p) ? plan->kernels->dot_along : plan->kernels->dot_across)(&work);
    if (fc_activates(plan))
        fc_activate_box(plan, work.dst, &(fc_box){{work.outs, 1, work.rows}, {work.dst_out, 0, work.dst_row}});
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const fc_problem *p = &plan->problem;
    if (p->out_channels == 0) return;
    const int64_t row = fc_max(1, p->in_channels * plan->kernels->element);
    const int64_t outs = fc_min(FC_DOT_OUTS * fc_max(1, FC_DOT_BYTES / (FC_DOT_OUTS * row)), p->out_channels);
    fc_list_stage(list, plan, task, p->groups * fc_ceil_div(p->out_channels, outs),
                  fc_list_keep(list, &outs, sizeof outs));
}

static const char *form(const fc_plan *plan) {
    return along(&plan->problem) ? "dot products, weights in place" : "sums of rows, weights in place";
}

const fc_kind fc_kind_dots = {
    .name = "dots",
    .traits = FC_SERVES_FORWARD | FC_BY_PARTS,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = fc_borrow,
    .stages = stages,
    .form = form,
};
