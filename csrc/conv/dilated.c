// SPDX-License-Identifier: BSD-3-Clause
//
// dilated.c - a dilated convolution as interleaved ones without dilation, which every algorithm serves.
//
// Tap t of output o reads i = o * s - p + t * e.  With s = 1 the outputs of one phase, o = r + e * q, read inputs of one
// phase only: with r - p = m * e + c, 0 <= c < e, that is i = c + e * (q + m + t), a convolution of every e-th input with
// padding -m.  With a stride that is a multiple of the dilation, s = e * f, all outputs read one phase, by steps of f.
//
// Neighbouring phases are the same problem but where an end of src or of dst, or m, falls between them, and all have the
// same weights.
#include "conv/parts.h"

static int is_dilated(const fc_axis *a) { return a->kernel > 1 && a->dilation > 1; }

static int64_t phases(const fc_axis *a) { return is_dilated(a) && a->stride == 1 ? a->dilation : 1; }

static int64_t step_of(const fc_axis *a) { return is_dilated(a) ? a->dilation : 1; }

// The runs of phases that are the same problem, five at most.
static fc_series dilated_series(const fc_split *split, int axis, int64_t index) {
    const fc_axis *a = &split->whole.axis[axis];
    const int64_t count = phases(a), e = step_of(a), shift = a->pad - fc_floor_div(a->pad, e) * e;
    // Phases r from `shift` on have c = r - shift, those before it c = r - shift + e.
    int64_t ends[] = {a->out % count, shift, shift + a->in % e, shift + a->in % e - e, count};
    int64_t first = 0, behind = count;
    for (int64_t run = 0;; run++, first = behind) {
        behind = count;
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
            if (ends[i] > first) behind = fc_min(behind, ends[i]);
        if (run == index || first == count) break;
    }
    const int64_t m = fc_floor_div(first - a->pad, e), from = first - a->pad - m * e;
    return (fc_series){
        .axis = {.in = (a->in - from + e - 1) / e,
                 .out = (a->out - first + count - 1) / count,
                 .kernel = a->kernel,
                 .stride = count > 1 ? 1 : a->stride / e,
                 .dilation = 1,
                 .pad = -m},
        .count = behind - first,
        .from = from,
        .from_step = 1,
        .at = first,
        .at_step = 1,
    };
}

static fc_split split_of(const fc_problem *p) {
    fc_split split = {.whole = *p, .sample = INT64_MAX / 2, .one_kernel = 1, .series = dilated_series};
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &p->axis[i];
        split.positions[i] = a->out;
        split.step[i] = phases(a);
        split.tap_step[i] = 1;
        split.src_step[i] = step_of(a);
        split.kinds[i] = 2;
    }
    return split;
}

static const char *refusal(const fc_problem *p) {
    int dilated = 0;
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &p->axis[i];
        if (!is_dilated(a)) continue;
        dilated = 1;
        if (a->stride != 1 && a->stride % a->dilation != 0) return "strides are not multiples of the dilation";
        if (a->dilation > a->in || phases(a) > a->out) return "the dilation exceeds the image";
    }
    return dilated ? NULL : "no axis is dilated";
}

static fc_verdict ask(const fc_request *r) {
    const fc_verdict refused = {.refusal = refusal(r->op->problem), .cost = INFINITY};
    if (refused.refusal) return refused;
    const fc_split split = split_of(r->op->problem);
    return fc_parts_ask(&split, r->planner->ask_own, r->options);
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_split split = split_of(&plan->problem);
    return fc_parts_layout(plan, &split, r, r->options, message);
}

const fc_kind fc_kind_dilated = {
    .name = "dilated",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = fc_parts_pack,
    .stages = fc_parts_stages,
    .form = fc_parts_form,
};
