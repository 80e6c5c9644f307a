// SPDX-License-Identifier: BSD-3-Clause
//
// views.c - the gradients as forward problems on other views of the same memory; no zeros are inserted, nothing is
// transposed or copied.
//
// Input gradient.  Output o and tap k touch input i = o * s - p + k * e.  The inputs of one phase r = i mod s see only
// the taps with k * e = r + p (mod s), every (s / g)-th from a first one k0 on, g = gcd(s, e).  With i = r + s * j and
// k = k0 + t * s / g this is, along j, a correlation of d_dst with the taps in reverse, of stride 1 and dilation e / g,
// written with stride s.  A phase without taps is a problem whose kernel is empty.  Every input belongs to one phase, so
// that a transposed convolution, which is this gradient with a bias, a residual and a clamp, is finished phase by phase.
//
// Weight gradient.  d_wei[o][c][k] = sum over images n and outputs j of d_dst[n][o][j] * src[n][c][j * s - p + k * e] is
// a convolution in which channels are images, images are channels, d_dst is the kernel, and stride and dilation change
// places.
#include "core/plan.h"

static int64_t gcd(int64_t a, int64_t b) {
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// The taps of phase r of an axis, and where they lie.
typedef struct phase_axis {
    fc_axis axis;
    int64_t first, step; // taps: last one used, distance (negative: reversed)
} phase_axis;

static phase_axis phase_of(const fc_axis *a, int64_t r) {
    const int64_t g = gcd(a->stride, a->dilation), period = a->stride / g;
    const int64_t candidates = fc_min(period, a->kernel);
    int64_t k0 = 0;
    while (k0 < candidates && (r + a->pad - k0 * a->dilation) % a->stride != 0) k0++;
    const int64_t taps = k0 < candidates ? (a->kernel - 1 - k0) / period + 1 : 0;
    phase_axis phase = {.first = k0 + (taps - 1) * period, .step = -period};
    phase.axis = (fc_axis){
        .in = a->out,
        .out = (a->in - r - 1) / a->stride + 1,
        .kernel = taps,
        .stride = 1,
        .dilation = a->dilation / g,
    };
    if (taps) phase.axis.pad = (taps - 1) * phase.axis.dilation - (r + a->pad - k0 * a->dilation) / a->stride;
    return phase;
}

typedef struct part_offsets {
    int64_t wei, dst;
} part_offsets;

// Phase `index` of the input gradient.
static void input_part(const fc_problem *p, int64_t index, fc_problem *part, part_offsets *at) {
    *part = *p;
    part->in_channels = p->out_channels;
    part->out_channels = p->in_channels;
    part->src = p->dst;
    part->dst = p->src;
    part->wei.outer = p->wei.channel;
    part->wei.channel = p->wei.outer;
    *at = (part_offsets){0, 0};
    for (int i = FC_AXES - 1; i >= 0; i--) {
        const int64_t s = p->axis[i].stride, phases = fc_min(s, p->axis[i].in), r = index % phases;
        index /= phases;
        const phase_axis phase = phase_of(&p->axis[i], r);
        part->axis[i] = phase.axis;
        part->wei.axis[i] = phase.step * p->wei.axis[i];
        part->dst.axis[i] = s * p->src.axis[i];
        if (phase.axis.kernel) at->wei += phase.first * p->wei.axis[i];
        at->dst += r * p->src.axis[i];
    }
}

static void weight_part(const fc_problem *p, fc_problem *part) {
    *part = *p;
    part->batch = p->in_channels;
    part->in_channels = p->batch;
    part->src.outer = p->src.channel;
    part->src.channel = p->src.outer;
    part->wei = (fc_view){p->dst.group, p->dst.channel, p->dst.outer, {p->dst.axis[0], p->dst.axis[1], p->dst.axis[2]}};
    part->dst = (fc_view){p->wei.group, p->wei.channel, p->wei.outer, {p->wei.axis[0], p->wei.axis[1], p->wei.axis[2]}};
    for (int i = 0; i < FC_AXES; i++) {
        part->axis[i].kernel = p->axis[i].out;
        part->axis[i].out = p->axis[i].kernel;
        part->axis[i].stride = p->axis[i].dilation;
        part->axis[i].dilation = p->axis[i].stride;
    }
}

// ------------------------------------------------------------------------------------------------------------- parts

static int64_t parts_of(const fc_problem *p) {
    int64_t count = 1;
    for (int i = 0; i < FC_AXES && p->direction == FC_BACKWARD_INPUT; i++)
        count *= fc_min(p->axis[i].stride, p->axis[i].in);
    return count;
}

// Part `index` as a forward problem; false for a phase without taps.
static int part_problem(const fc_problem *p, int64_t index, fc_problem *part, part_offsets *at) {
    *at = (part_offsets){0, 0};
    if (p->direction == FC_BACKWARD_WEIGHT) weight_part(p, part);
    else input_part(p, index, part, at);
    part->direction = FC_FORWARD;
    return part->in_channels * fc_taps(part) > 0;
}

// A phase without taps sums nothing; every problem with taps goes by the algorithm asked for.  Where the kernel is as
// large as the image, Winograd's transforms of it cost more than they save.
static fc_options part_options(const fc_problem *p, const fc_options *options, int taps) {
    fc_options part = *options;
    if (!taps) part.algorithm = FC_IM2COL;
    if (p->direction == FC_BACKWARD_WEIGHT) {
        part.strict = 1;
        part.batch_invariant = 0; // its images are channels
    }
    return part;
}

// The sums of what all parts say; the first refusal of one.
static fc_verdict ask_parts(const fc_request *r) {
    const fc_problem *p = r->op->conv;
    fc_verdict sum = {.cost = 0};
    for (int64_t i = 0; i < parts_of(p); i++) {
        fc_problem problem;
        part_offsets at;
        const int taps = part_problem(p, i, &problem, &at);
        const fc_options options = part_options(p, r->options, taps);
        const fc_verdict part = r->planner->ask(&(fc_op){.conv = &problem}, &options);
        if (part.refusal) return part;
        sum.cost += part.cost;
        sum.packing += part.packing;
    }
    return sum;
}

static const char *refuse(const fc_request *r) { return ask_parts(r).refusal; }

static double cost(const fc_request *r) { return ask_parts(r).cost; }

static double packing(const fc_request *r) { return ask_parts(r).packing; }

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_problem *p = &plan->problem;
    const int64_t count = parts_of(p);
    plan->parts = calloc((size_t)count, sizeof *plan->parts);
    if (!plan->parts) return FC_NO_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        fc_problem problem;
        part_offsets at;
        const int taps = part_problem(p, i, &problem, &at);
        const fc_options options = part_options(p, r->options, taps);
        fc_part *part = &plan->parts[plan->part_count];
        const fc_status status = r->planner->plan(&(fc_op){.conv = &problem}, &options, &part->plan, message);
        if (status != FC_OK) return status;
        part->wei = at.wei;
        part->dst = at.dst;
        if (taps) plan->id = part->plan->id;
        part->packed = plan->packed_bytes;
        plan->packed_bytes += fc_align(part->plan->packed_bytes);
        plan->part_count++;
    }
    return FC_OK;
}

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    for (int64_t i = 0; i < plan->part_count; i++) {
        const fc_part *part = &plan->parts[i];
        const fc_status status = part->plan->kind->pack(part->plan, fc_at(wei, part->wei, plan->kernels), bias,
                                                        (char *)packed + part->packed, threads);
        if (status != FC_OK) return status;
    }
    return FC_OK;
}

// Parts write disjoint elements, and so run side by side.  Where they need no scratch, tasks of the same number run
// together: the phases of a stride write the same lines of dst, and read the same rows of src.
static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const int64_t element = plan->kernels->element;
    const fc_places at = list->at;
    for (int64_t i = 0; i < plan->part_count; i++) {
        const fc_part *part = &plan->parts[i];
        list->at.wei = fc_behind(at.wei, (int64_t)part->packed);
        list->at.dst = fc_behind(at.dst, part->dst * element);
        list->at.residual = fc_behind(at.residual, part->dst * element);
        if (i > 0 && list->schedule->shared == 0) list->order = list->schedule->each ? FC_BESIDE : FC_TOGETHER;
        part->plan->kind->stages(part->plan, threads, list);
    }
    list->at = at;
}

// That of the last part, as its algorithm.
static const char *form(const fc_plan *plan) {
    return plan->part_count ? fc_plan_form(plan->parts[plan->part_count - 1].plan) : "";
}

const fc_kind fc_kind_views = {
    .name = "views",
    .traits = FC_SERVES_INPUT | FC_SERVES_WEIGHT | FC_SERVES_EMPTY | FC_BY_PARTS,
    .rows = 1,
    .refuse = refuse,
    .cost = cost,
    .packing = packing,
    .layout = layout,
    .pack = pack,
    .stages = stages,
    .form = form,
};
