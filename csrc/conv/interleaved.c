// SPDX-License-Identifier: BSD-3-Clause
//
// interleaved.c - depthwise convolutions of planes, and those of groups of a few channels, a vector of which are interleaved
// in scratch memory: over channels no lane is left empty by short rows, and no stride makes a vector of outputs cost several
// of inputs.  What it takes are two transposes, of the input and of the output, which long rows of near outputs do not repay.
// A transposed convolution, or an input gradient, is transposed as a whole rather than phase by phase.
//
// A task takes a block of groups of one image through a plan over channels, of whole planes.
#include "conv/interleaved.h"
#include "conv/activate.h"

// The state of a plan.  Its parts are plans of a whole block, and of what the last block has.
typedef struct interleaved {
    int64_t blocks, groups; // of a block, but the last
} interleaved;

// What is read and what is written, by the direction.
static int backward(const fc_problem *p) { return p->direction == FC_BACKWARD_INPUT; }
static fc_planes planes_of(const fc_problem *p, int written) { return fc_planes_of(p, written != backward(p)); }

fc_view fc_interleaved_view(const fc_planes *planes, int64_t lanes, int64_t channels) {
    fc_view v = {.group = channels, .channel = 1};
    int64_t step = lanes;
    for (int i = FC_AXES - 1; i >= 0; i--) {
        v.axis[i] = step;
        step *= planes->size[i];
    }
    v.outer = step;
    return v;
}

// Rows that follow each other are one row.
void fc_interleave(const fc_planes *planes, const fc_kernels *kernels, int64_t lanes, char *at, char *scratch,
                   int to_scratch) {
    const fc_view *v = planes->view;
    const int64_t height = planes->size[1], width = planes->size[2], element = kernels->element;
    const int joined = v->axis[1] == v->axis[2] * width || height == 1;
    const int64_t rows = joined ? 1 : height, columns = joined ? height * width : width;
    for (int64_t d = 0; d < planes->size[0]; d++)
        for (int64_t h = 0; h < rows; h++, scratch += columns * lanes * element) {
            char *row = at + (d * v->axis[0] + h * v->axis[1]) * element;
            fc_rectangle work = {.rows = columns, .columns = lanes};
            work.src = to_scratch ? row : scratch;
            work.dst = to_scratch ? scratch : row;
            work.src_row = to_scratch ? v->axis[2] : lanes;
            work.src_column = to_scratch ? planes->step : 1;
            work.dst_row = to_scratch ? lanes : v->axis[2];
            work.dst_column = to_scratch ? 1 : planes->step;
            kernels->rectangle(&work);
        }
}

// The problem of a block of `groups` groups.
static fc_problem block_of(const fc_problem *p, int64_t groups) {
    fc_problem block = *p;
    block.batch = 1;
    block.groups = groups;
    const fc_planes inputs = fc_planes_of(p, 0), outputs = fc_planes_of(p, 1);
    block.src = fc_interleaved_view(&inputs, groups * p->in_channels, p->in_channels);
    block.dst = fc_interleaved_view(&outputs, groups * p->in_channels, p->in_channels);
    return block;
}

// Groups of a block: a vector of channels, but two groups at least, or their strides would tell nothing.
static int64_t groups_of(const fc_problem *p, const fc_kernels *k) { return fc_max(2, k->vl / p->in_channels); }

static const char *refusal(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    if (r->options->algorithm != FC_DEPTHWISE) return "another algorithm was asked for";
    const int64_t size = p->in_channels;
    if (size != p->out_channels || size > k->vl || (size & (size - 1)) != 0)
        return "groups are not alike, or not small";
    double bytes = (double)(groups_of(p, k) * size * k->element), planes = 0;
    for (int written = 0; written < 2; written++) {
        const fc_planes of = planes_of(p, written);
        if (of.view->axis[2] != 1 || of.step == 1) return "rows are not contiguous";
        if (size > 1 && of.view->group != size * of.view->channel) return "channels of groups do not follow each other";
        planes += (1 + written) * (double)of.size[0] * (double)of.size[1] * (double)of.size[2]; // and a residual
    }
    if (p->groups < 2 || k->vl == 1) return "there are no planes to interleave";
    bytes *= planes;
    return bytes > 0.75 * (double)r->options->machine.l2 ? "so many planes exceed the second-level cache" : NULL;
}

static fc_verdict ask(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_costs *c = &r->options->costs;
    fc_verdict found = {.refusal = refusal(r), .cost = INFINITY};
    if (found.refusal) return found;
    const int64_t groups = groups_of(p, r->kernels), sizes[] = {groups, p->groups % groups};
    const int64_t counts[] = {p->groups / groups, p->groups % groups > 0};
    const double vectors = (double)fc_ceil_div(groups * p->in_channels, r->kernels->vl);
    const fc_planes inputs = fc_planes_of(p, 0), outputs = fc_planes_of(p, 1);
    const double turned =
        fc_turn * c->copied * vectors * (double)(fc_planes_positions(&inputs) + fc_planes_positions(&outputs));
    fc_options alone = *r->options;
    alone.costs.fixed /= FC_ALONE_STAGES;
    found.cost = c->fixed;
    for (int i = 0; i < 2; i++) {
        if (!counts[i]) continue;
        const fc_problem block = block_of(p, sizes[i]);
        const fc_verdict v = r->planner->ask(&(fc_op){FC_CONV, &block}, &alone);
        if (v.refusal) return v;
        found.cost += (double)(p->batch * counts[i]) * (v.cost + turned);
        found.packing += (double)counts[i] * v.packing;
    }
    return found;
}

static int64_t groups_in(const fc_plan *plan, int64_t block) {
    const interleaved *s = plan->state;
    return fc_min(s->groups, plan->problem.groups - block * s->groups);
}

static const fc_part *part_of(const fc_plan *plan, int64_t block) {
    return &plan->parts[groups_in(plan, block) == plan->parts[0].plan->problem.groups ? 0 : 1];
}

static size_t packed_at(const fc_plan *plan, int64_t block) {
    return (size_t)block * fc_align(plan->parts[0].plan->packed_bytes);
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_problem *p = &plan->problem;
    interleaved *state = plan->state = calloc(1, sizeof *state);
    plan->parts = calloc(2, sizeof *plan->parts);
    if (!state || !plan->parts) return FC_NO_MEMORY;
    state->groups = groups_of(p, r->kernels);
    state->blocks = fc_ceil_div(p->groups, state->groups);
    for (int64_t block = 0; block < state->blocks; block += fc_max(1, state->blocks - 1)) {
        const int64_t groups = groups_in(plan, block);
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
        const int64_t first = block * s->groups;
        const fc_status status = fc_plan_pack(part, fc_at(wei, first * p->wei.group, p->types.weight),
                                              bias ? fc_at(bias, first * p->in_channels, p->types.destination) : NULL,
                                              (char *)packed + packed_at(plan, block), threads);
        if (status != FC_OK) return status;
    }
    return FC_OK;
}

// Bytes of the planes of a block.
static size_t block_bytes(const fc_plan *plan, int written) {
    const fc_problem *p = &plan->problem;
    const int64_t lanes = groups_of(p, plan->kernels) * p->in_channels;
    const fc_planes planes = planes_of(p, written);
    return fc_align((size_t)(fc_planes_positions(&planes) * lanes * plan->kernels->element));
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const interleaved *s = plan->state;
    const int64_t block = fc_digit(&index, s->blocks), first = block * s->groups, element = plan->kernels->element;
    const int64_t lanes = groups_in(plan, block) * p->in_channels;
    const fc_schedule *schedule = ((const fc_schedule *const *)stage->context)[part_of(plan, block) - plan->parts];
    char *src = fc_own_scratch(call, thread), *dst = src + block_bytes(plan, 0), *residual = dst + block_bytes(plan, 1);
    const fc_planes in = planes_of(p, 0), out = planes_of(p, 1);
    const int64_t from = (index * in.view->outer + first * in.view->group) * element;
    const int64_t to = (index * out.view->outer + first * out.view->group) * element;
    char *added = fc_operand(call, fc_behind(stage->at.residual, to));
    fc_interleave(&in, plan->kernels, lanes, fc_operand(call, fc_behind(stage->at.src, from)), src, 1);
    if (added) fc_interleave(&out, plan->kernels, lanes, added, residual, 1);
    const fc_operands operands = {.src = src,
                                  .wei = (char *)fc_operand(call, stage->at.wei) + packed_at(plan, block),
                                  .residual = added ? residual : NULL,
                                  .dst = dst};
    fc_schedule_run_alone(schedule, &operands, residual + block_bytes(plan, 1));
    fc_interleave(&out, plan->kernels, lanes, fc_operand(call, fc_behind(stage->at.dst, to)), dst, 0);
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
    fc_list_scratch(list, 0, block_bytes(plan, 0) + 2 * block_bytes(plan, 1) + scratch);
    fc_list_stage(list, plan, task, plan->problem.batch * s->blocks, fc_list_keep(list, schedules, sizeof schedules));
}

static const char *form(const fc_plan *plan) {
    (void)plan;
    return "over channels, interleaved";
}

const fc_kind fc_kind_interleaved = {
    .name = "interleaved",
    .traits = FC_SERVES_FORWARD | FC_SERVES_INPUT,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = pack,
    .stages = stages,
    .form = form,
};
