// SPDX-License-Identifier: BSD-3-Clause
//
// interleaved.c - depthwise convolutions of planes, a vector of which are interleaved in scratch memory: over channels no
// lane is left empty by short rows, and no stride makes a vector of outputs cost several of inputs.  What it takes are two
// transposes, of the input and of the output, which long rows of near outputs do not repay.
//
// A task takes a block of planes of one image through a plan over channels, of whole planes.
#include "conv/activate.h"

enum { FC_LANES_DEPTH = 3 }; // vectors copied in the time that one takes to be transposed

// The state of a plan.  Its parts are plans of a whole block, and of what the last block has.
typedef struct interleaved {
    int64_t blocks;
} interleaved;

static int64_t in_positions(const fc_problem *p) { return p->axis[0].in * p->axis[1].in * p->axis[2].in; }

// Of a view of interleaved planes, one image of them.
static fc_view packed_view(const fc_problem *p, int64_t lanes, int out) {
    fc_view v = {.group = 1, .channel = 1};
    int64_t step = lanes;
    for (int i = FC_AXES - 1; i >= 0; i--) {
        v.axis[i] = step;
        step *= out ? p->axis[i].out : p->axis[i].in;
    }
    v.outer = step;
    return v;
}

// The problem of a block of `groups` planes.
static fc_problem block_of(const fc_problem *p, int64_t groups) {
    fc_problem block = *p;
    block.batch = 1;
    block.groups = groups;
    block.src = packed_view(p, groups, 0);
    block.dst = packed_view(p, groups, 1);
    return block;
}

static const char *refusal(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    if (r->options->algorithm != FC_DEPTHWISE) return "another algorithm was asked for";
    if (p->in_channels != 1 || p->out_channels != 1) return "a group has more than one channel";
    if (p->src.axis[2] != 1 || p->src.group == 1) return "the input's rows are not contiguous";
    if (p->groups < 2 || r->kernels->vl == 1) return "there are no planes to interleave";
    const double elements = (double)p->axis[0].in * (double)p->axis[1].in * (double)p->axis[2].in +
                            2 * (double)p->axis[0].out * (double)p->axis[1].out * (double)p->axis[2].out;
    const double bytes = elements * (double)(r->kernels->vl * r->kernels->element);
    return bytes > 0.75 * (double)r->options->machine.l2 ? "so many planes exceed the second-level cache" : NULL;
}

static fc_verdict ask(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_costs *c = &r->options->costs;
    fc_verdict found = {.refusal = refusal(r), .cost = INFINITY};
    if (found.refusal) return found;
    const int64_t vl = r->kernels->vl, sizes[] = {vl, p->groups % vl}, counts[] = {p->groups / vl, p->groups % vl > 0};
    const double turned = FC_LANES_DEPTH * c->copied * (double)(in_positions(p) + fc_positions(p));
    found.cost = c->fixed;
    for (int i = 0; i < 2; i++) {
        if (!counts[i]) continue;
        const fc_problem block = block_of(p, sizes[i]);
        const fc_verdict v = r->planner->ask_own(&(fc_op){FC_CONV, &block}, r->options);
        if (v.refusal) return v;
        found.cost += (double)(p->batch * counts[i]) * (v.cost - c->fixed + turned);
        found.packing += (double)counts[i] * v.packing;
    }
    return found;
}

static int64_t lanes_of(const fc_plan *plan, int64_t block) {
    return fc_min(plan->kernels->vl, plan->problem.groups - block * plan->kernels->vl);
}

static const fc_part *part_of(const fc_plan *plan, int64_t block) {
    return &plan->parts[lanes_of(plan, block) == plan->parts[0].plan->problem.groups ? 0 : 1];
}

static size_t packed_at(const fc_plan *plan, int64_t block) {
    return (size_t)block * fc_align(plan->parts[0].plan->packed_bytes);
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_problem *p = &plan->problem;
    interleaved *state = plan->state = calloc(1, sizeof *state);
    plan->parts = calloc(2, sizeof *plan->parts);
    if (!state || !plan->parts) return FC_NO_MEMORY;
    state->blocks = fc_ceil_div(p->groups, r->kernels->vl);
    for (int64_t block = 0; block < state->blocks; block += fc_max(1, state->blocks - 1)) {
        const int64_t groups = lanes_of(plan, block);
        if (plan->part_count && groups == plan->parts[0].plan->problem.groups) break;
        const fc_problem part = block_of(p, groups);
        const fc_status status =
            r->planner->plan(&(fc_op){FC_CONV, &part}, r->options, &plan->parts[plan->part_count].plan, message);
        if (status != FC_OK) return status;
        plan->part_count++;
    }
    plan->packed_bytes = packed_at(plan, state->blocks - 1) + part_of(plan, state->blocks - 1)->plan->packed_bytes;
    plan->packing[0] = 2; // unlike either form of depthwise
    return FC_OK;
}

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const interleaved *s = plan->state;
    for (int64_t block = 0; block < s->blocks; block++) {
        const fc_plan *part = part_of(plan, block)->plan;
        const int64_t first = block * plan->kernels->vl;
        const fc_status status = part->kind->pack(part, fc_at(wei, first * p->wei.group, p->types.weight),
                                                  bias ? fc_at(bias, first, p->types.destination) : NULL,
                                                  (char *)packed + packed_at(plan, block), threads);
        if (status != FC_OK) return status;
    }
    return FC_OK;
}

// The planes of a block, between where the call has them and where they are interleaved: rows that follow each other are
// one row.
typedef struct planes {
    const fc_problem *problem;
    const fc_kernels *kernels;
    fc_view view;
    int64_t lanes;
    int out; // of the output, or of the input
} planes;

static void move(const planes *m, char *at, char *scratch, int to_scratch) {
    int64_t size[FC_AXES];
    for (int i = 0; i < FC_AXES; i++) size[i] = m->out ? m->problem->axis[i].out : m->problem->axis[i].in;
    const int joined = m->view.axis[1] == m->view.axis[2] * size[2] || size[1] == 1;
    const int64_t rows = joined ? 1 : size[1], columns = joined ? size[1] * size[2] : size[2];
    for (int64_t d = 0; d < size[0]; d++)
        for (int64_t h = 0; h < rows; h++, scratch += columns * m->lanes * m->kernels->element) {
            char *row = at + (d * m->view.axis[0] + h * m->view.axis[1]) * m->kernels->element;
            fc_rectangle work = {.rows = columns, .columns = m->lanes};
            work.src = to_scratch ? row : scratch;
            work.dst = to_scratch ? scratch : row;
            work.src_row = to_scratch ? m->view.axis[2] : m->lanes;
            work.src_column = to_scratch ? m->view.group : 1;
            work.dst_row = to_scratch ? m->lanes : m->view.axis[2];
            work.dst_column = to_scratch ? 1 : m->view.group;
            m->kernels->rectangle(&work);
        }
}

// Bytes of the planes of a block.
static size_t in_bytes(const fc_plan *plan) {
    return fc_align((size_t)(in_positions(&plan->problem) * plan->kernels->vl * plan->kernels->element));
}
static size_t out_bytes(const fc_plan *plan) {
    return fc_align((size_t)(fc_positions(&plan->problem) * plan->kernels->vl * plan->kernels->element));
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const interleaved *s = plan->state;
    const int64_t block = fc_digit(&index, s->blocks), lanes = lanes_of(plan, block), first = block * plan->kernels->vl;
    const fc_schedule *schedule = ((const fc_schedule *const *)stage->context)[part_of(plan, block) - plan->parts];
    char *src = fc_own_scratch(call, thread), *dst = src + in_bytes(plan), *residual = dst + out_bytes(plan);
    const planes in = {p, plan->kernels, p->src, lanes, 0}, out = {p, plan->kernels, p->dst, lanes, 1};
    const int64_t from = index * p->src.outer + first * p->src.group, to = index * p->dst.outer + first * p->dst.group;
    char *added = (char *)fc_operand(call, fc_behind(stage->at.residual, to * plan->kernels->element));
    move(&in, fc_operand(call, fc_behind(stage->at.src, from * plan->kernels->element)), src, 1);
    if (added) move(&out, added, residual, 1);
    const fc_operands operands = {.src = src,
                                  .wei = (char *)fc_operand(call, stage->at.wei) + packed_at(plan, block),
                                  .residual = added ? residual : NULL,
                                  .dst = dst};
    fc_schedule_run_alone(schedule, &operands, residual + out_bytes(plan));
    move(&out, fc_operand(call, fc_behind(stage->at.dst, to * plan->kernels->element)), dst, 0);
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const interleaved *s = plan->state;
    const fc_schedule *schedules[2] = {NULL, NULL};
    size_t scratch = 0;
    for (int64_t i = 0; i < plan->part_count; i++) {
        const fc_status status = fc_plan_schedule(plan->parts[i].plan, 1, &schedules[i]);
        if (status != FC_OK) {
            list->status = status;
            return;
        }
        const size_t bytes = fc_schedule_scratch_bytes(schedules[i]);
        scratch = bytes > scratch ? bytes : scratch;
    }
    fc_list_scratch(list, 0, in_bytes(plan) + 2 * out_bytes(plan) + scratch);
    fc_list_stage(list, plan, task, plan->problem.batch * s->blocks, fc_list_keep(list, schedules, sizeof schedules));
}

static const char *form(const fc_plan *plan) {
    (void)plan;
    return "over channels, interleaved";
}

const fc_kind fc_kind_interleaved = {
    .name = "interleaved",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = pack,
    .stages = stages,
    .form = form,
};
