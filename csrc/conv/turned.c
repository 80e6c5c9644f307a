// SPDX-License-Identifier: BSD-3-Clause
//
// turned.c - a kernel of one column as one of one row, with height and width of all tensors exchanged: algorithms that go
// along rows find their taps there.  An image of one column becomes one row.
#include "conv/parts.h"

static void exchange(int64_t axis[FC_AXES]) {
    const int64_t height = axis[1];
    axis[1] = axis[2];
    axis[2] = height;
}

static fc_split split_of(const fc_problem *p) {
    fc_split split = {.whole = *p, .sample = 1, .series = fc_whole_series};
    fc_problem *whole = &split.whole;
    whole->axis[1] = p->axis[2];
    whole->axis[2] = p->axis[1];
    exchange(whole->src.axis);
    exchange(whole->wei.axis);
    exchange(whole->dst.axis);
    for (int i = 0; i < FC_AXES; i++) {
        split.positions[i] = whole->axis[i].out;
        split.step[i] = split.tap_step[i] = split.src_step[i] = 1;
        split.kinds[i] = 1;
    }
    return split;
}

static fc_verdict ask(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    if (p->axis[2].kernel != 1 || p->axis[1].kernel == 1)
        return (fc_verdict){.refusal = "the kernel is not one column", .cost = INFINITY};
    const fc_split split = split_of(p);
    return fc_parts_ask(&split, r->planner->ask_own, r->options);
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_split split = split_of(&plan->problem);
    return fc_parts_layout(plan, &split, r, r->options, message);
}

const fc_kind fc_kind_turned = {
    .name = "turned",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = fc_parts_pack,
    .stages = fc_parts_stages,
    .form = fc_parts_form,
};
