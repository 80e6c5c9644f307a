// SPDX-License-Identifier: BSD-3-Clause
//
// views.c - the gradients as forward problems on other views of the same memory; no zeros are inserted, nothing is
// transposed or copied.
//
// Input gradient.  Output o and tap k touch input i = o * s - p + k * e.  The inputs of one phase r = i mod s see only
// the taps with k * e = r + p (mod s), every (s / g)-th from a first one k0 on, g = fc_gcd(s, e).  With i = r + s * j and
// k = k0 + t * s / g this is, along j, a correlation of d_dst with the taps in reverse, of stride 1 and dilation e / g,
// written with stride s.  Every input belongs to one phase, so that a transposed convolution, which is this gradient with
// a bias, a residual and an activation, is finished phase by phase.
//
// Phases are found by their first taps: k0 * e - p = q * s + r has one answer, and a phase of no k0 has no taps.  Along
// those k0 that share q, the problem changes where r leaves room for one output fewer, and where k0 leaves room for one
// tap fewer: four runs of phases that are the same problem, for as few q as the first taps reach over strides.
//
// Weight gradient.  d_wei[o][c][k] = sum over images n and outputs j of d_dst[n][o][j] * src[n][c][j * s - p + k * e] is
// a convolution in which channels are images, images are channels, d_dst is the kernel, and stride and dilation change
// places.
#include "grad/input_phases.h"

// What the phases of an axis have in common.
typedef struct phases {
    int64_t period;         // taps from one of a phase to its next
    int64_t firsts, starts; // first taps k0 and phases r: all that there are
    int64_t kinds;          // of q, or more
} phases;

// Steps of the dilation that are longer than the stride leave some q out.
static int64_t q_of(const fc_axis *a, int64_t kind) {
    if (a->dilation >= a->stride) return fc_floor_div(kind * a->dilation - a->pad, a->stride);
    return fc_floor_div(-a->pad, a->stride) + kind;
}

static phases phases_of(const fc_axis *a) {
    phases p = {.period = fc_phase_period(a)};
    p.firsts = fc_min(p.period, a->kernel);
    p.starts = fc_min(a->stride, a->in);
    p.kinds = a->dilation >= a->stride
                  ? p.firsts
                  : fc_floor_div((p.firsts - 1) * a->dilation - a->pad, a->stride) - q_of(a, 0) + 1;
    return p;
}

static fc_series phase_series(const fc_split *split, int axis, int64_t index) {
    const fc_axis *a = &split->whole.axis[axis];
    const phases p = phases_of(a);
    const int64_t q = q_of(a, index / 4), base = q * a->stride + a->pad; // k0 * e = base + r
    const int fewer_taps = index / 2 % 2, fewer_out = index % 2;
    const int64_t last_tap = (a->kernel - 1) % p.period, last_out = (a->in - 1) % a->stride;
    const int64_t r0 = fewer_out ? last_out + 1 : 0, r1 = fc_min(p.starts - 1, fewer_out ? a->stride : last_out);
    const int64_t low = fc_max(fewer_taps ? last_tap + 1 : 0, -fc_floor_div(-(base + r0), a->dilation));
    const int64_t high =
        fc_min(fewer_taps ? p.firsts - 1 : fc_min(last_tap, p.firsts - 1), fc_floor_div(base + r1, a->dilation));
    const int64_t at = low * a->dilation - base;
    return (fc_series){
        .axis = fc_phase_axis(a, low, at),
        .count = fc_max(0, high - low + 1),
        .tap = fc_phase_tap(a, low),
        .tap_step = 1,
        .at = at,
        .at_step = a->dilation,
    };
}

static fc_split input_split(const fc_problem *p) {
    fc_split split = {.whole = *p, .sample = 4, .series = phase_series};
    split.whole.in_channels = p->out_channels;
    split.whole.out_channels = p->in_channels;
    split.whole.src = p->dst;
    split.whole.dst = p->src;
    split.whole.types.source = p->types.destination;
    split.whole.types.destination = p->types.source;
    split.whole.wei.outer = p->wei.channel;
    split.whole.wei.channel = p->wei.outer;
    for (int i = 0; i < FC_AXES; i++) {
        const phases phases = phases_of(&p->axis[i]);
        split.positions[i] = p->axis[i].in;
        split.step[i] = p->axis[i].stride;
        split.tap_step[i] = -phases.period;
        split.src_step[i] = 1;
        split.kinds[i] = phases.kinds;
    }
    return split;
}

// One part; none where there are no images to sum over.
static fc_split weight_split(const fc_problem *p) {
    fc_split split = {.whole = *p, .sample = 1, .series = fc_whole_series};
    fc_problem *whole = &split.whole;
    whole->batch = p->in_channels;
    whole->in_channels = p->batch;
    whole->src.outer = p->src.channel;
    whole->src.channel = p->src.outer;
    whole->wei = p->dst;
    whole->wei.outer = p->dst.channel;
    whole->wei.channel = p->dst.outer;
    whole->dst = p->wei;
    whole->types.weight = p->types.destination;
    whole->types.destination = p->types.weight;
    whole->dst.outer = p->wei.channel;
    whole->dst.channel = p->wei.outer;
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &p->axis[i];
        whole->axis[i] = (fc_axis){a->in, a->kernel, a->out, a->dilation, a->stride, a->pad};
        split.positions[i] = a->kernel;
        split.step[i] = split.tap_step[i] = split.src_step[i] = 1;
        split.kinds[i] = p->batch > 0;
    }
    return split;
}

static fc_split split_of(const fc_problem *p) {
    fc_split split = p->direction == FC_BACKWARD_WEIGHT ? weight_split(p) : input_split(p);
    split.whole.direction = FC_FORWARD;
    return split;
}

// Weight gradients have kinds of their own (weight_product.c, weight_winograd.c), the second for those that Winograd serves; here they
// are as exact as can be.
static fc_options part_options(const fc_problem *p, const fc_options *options) {
    fc_options part = *options;
    if (p->direction == FC_BACKWARD_WEIGHT) {
        part.strict = 1;
        part.batch_invariant = 0; // its images are channels
        part.borrows = 0;         // its weights are an image: ask() says what packing that takes
    }
    return part;
}

static fc_verdict ask(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_split split = split_of(p);
    const fc_options options = part_options(p, r->options);
    fc_verdict v = fc_parts_ask(&split, r->planner->ask, &options);
    if (p->direction == FC_BACKWARD_WEIGHT) {
        v.packing *= 8; // d_dst as weights, whose taps are rows of an image: one by one, or across pages
        v.cost *= 1.4;  // of src as channels as far apart as images
    }
    return v;
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_split split = split_of(&plan->problem);
    const fc_options options = part_options(&plan->problem, r->options);
    return fc_parts_layout(plan, &split, r, &options, message);
}

const fc_kind fc_kind_views = {
    .name = "views",
    .traits = FC_SERVES_INPUT | FC_SERVES_WEIGHT | FC_BY_PARTS,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = fc_parts_pack,
    .stages = fc_parts_stages,
    .form = fc_parts_form,
};
