// SPDX-License-Identifier: BSD-3-Clause
//
// recurrent.c - LSTM and GRU: at each step the product of the state with the recurrent weights, which is a convolution of
// 1x1 over the batch as pixels, and then the gates.  Steps wait for each other, so that a direction is one task: the weights
// stay in its core's cache, and no thread waits.
#include "core/family.h"
#include "core/plan.h"

static int64_t gates_of(const fc_recurrent *r) { return r->kind == FC_LSTM ? 4 : 3; }

fc_status fc_check_recurrent(const void *problem, char message[FC_MESSAGE]) {
    const fc_recurrent *r = problem;
    FC_CHECK(r->dtype == FC_F32 || r->dtype == FC_F64, "dtype %d is unknown", (int)r->dtype);
    FC_CHECK(r->kind >= 0 && r->kind < FC_RECURRENCES, "kind %d is unknown", (int)r->kind);
    FC_CHECK(r->directions == 1 || r->directions == 2, "%lld directions", (long long)r->directions);
    int64_t input = 4 * r->directions, weights = 8;
    FC_CHECK(r->steps > 0 && r->batch > 0 && r->hidden > 0 && fc_product_fits(&input, r->steps) &&
                 fc_product_fits(&input, r->batch) && fc_product_fits(&input, r->hidden) &&
                 fc_product_fits(&weights, r->hidden) && fc_product_fits(&weights, r->hidden),
             "%lld steps of %lld x %lld", (long long)r->steps, (long long)r->batch, (long long)r->hidden);
    return FC_OK;
}

// Of one direction and step.
static fc_problem convolution_of(const fc_recurrent *r) {
    const int64_t out = gates_of(r) * r->hidden;
    fc_problem c = {.batch = 1, .groups = 1, .in_channels = r->hidden, .out_channels = out};
    for (int i = 0; i < FC_AXES; i++) c.axis[i] = (fc_axis){.in = 1, .out = 1, .kernel = 1, .stride = 1, .dilation = 1};
    c.axis[2].in = c.axis[2].out = r->batch;
    c.src = (fc_view){.channel = 1, .axis = {[2] = r->hidden}};
    c.wei = (fc_view){.channel = 1, .outer = r->hidden};
    c.dst = (fc_view){.channel = 1, .axis = {[2] = out}};
    c.types = fc_types_of(r->dtype);
    c.low = -INFINITY, c.high = INFINITY;
    return c;
}

static double cost(const fc_request *q) {
    const fc_recurrent *r = q->op->problem;
    const fc_problem c = convolution_of(r);
    const double product = q->planner->ask(&(fc_op){FC_CONV, &c}, q->options).cost;
    const double gates = (double)(r->batch * gates_of(r) * r->hidden) / (double)q->kernels->vl * 8e-9;
    return (double)(r->steps * r->directions) * (product + gates);
}

static fc_status layout(fc_plan *plan, const fc_request *q, char message[FC_MESSAGE]) {
    const fc_recurrent *r = &plan->recurrent;
    const fc_problem c = convolution_of(r);
    plan->parts = calloc(1, sizeof *plan->parts);
    if (!plan->parts) return FC_NO_MEMORY;
    const fc_status status = q->planner->plan(&(fc_op){FC_CONV, &c}, q->options, &plan->parts->plan, message);
    if (status != FC_OK) return status;
    plan->part_count = 1;
    plan->parts->packed = fc_align(plan->parts->plan->packed_bytes); // of a direction
    plan->packed_bytes = (size_t)r->directions * plan->parts->packed;
    plan->tag = fc_tag(plan->parts->plan->tag, r->directions);
    return FC_OK;
}

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_recurrent *r = &plan->recurrent;
    const fc_part *part = plan->parts;
    const int64_t out = gates_of(r) * r->hidden;
    for (int64_t d = 0; d < r->directions; d++) {
        const fc_status status = fc_plan_pack(part->plan, fc_at(wei, d * out * r->hidden, r->dtype),
                                              bias ? fc_at(bias, d * out, r->dtype) : NULL,
                                              (char *)packed + (size_t)d * part->packed, threads);
        if (status != FC_OK) return status;
    }
    return FC_OK;
}

// One direction of all sequences.
static void task(const fc_stage *stage, fc_call *call, int64_t direction, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_recurrent *r = &plan->recurrent;
    const fc_schedule *product = *(const fc_schedule *const *)stage->context;
    const int64_t state = r->batch * r->hidden, element = plan->kernels->element, gates = gates_of(r);
    const char *src = fc_operand(call, stage->at.src), *wei = fc_operand(call, stage->at.wei);
    const char *last = fc_operand(call, stage->at.other[0]), *memory = fc_operand(call, stage->at.other[1]);
    char *dst = fc_operand(call, stage->at.dst), *room = fc_own_scratch(call, thread);
    char *cells = dst + (r->steps * r->directions + direction) * state * element;
    const int back = r->backward >> direction & 1;
    last += direction * state * element;
    src += direction * r->steps * gates * state * element;
    if (r->kind == FC_LSTM) memcpy(cells, memory + direction * state * element, (size_t)(state * element));
    for (int64_t i = 0; i < r->steps && !fc_must_stop(); i++) {
        const int64_t t = back ? r->steps - 1 - i : i;
        char *h = dst + (t * r->directions + direction) * state * element;
        const fc_operands operands = {.src = last, .wei = wei + (size_t)direction * plan->parts->packed, .dst = room};
        fc_schedule_run_alone(product, &operands, room + fc_align((size_t)(gates * state * element)));
        const fc_cells work = {.kind = (fc_recurrence)r->kind,
                               .count = r->batch,
                               .hidden = r->hidden,
                               .input = src + t * gates * state * element,
                               .product = room,
                               .last = last,
                               .memory = cells,
                               .dst = h};
        plan->kernels->recurrent_cells(&work);
        last = h;
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const fc_recurrent *r = &plan->recurrent;
    const fc_schedule *product;
    const fc_status status = fc_plan_schedule(plan->parts->plan, 1, &product);
    if (status != FC_OK) {
        list->status = status;
        return;
    }
    const size_t room = fc_align((size_t)(gates_of(r) * r->batch * r->hidden * plan->kernels->element));
    fc_list_scratch(list, 0, room + fc_schedule_scratch_bytes(product));
    fc_list_stage(list, plan, task, r->directions, fc_list_keep(list, &product, sizeof product));
}

static const fc_kind kind = {
    .name = "recurrent",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .cost = cost,
    .layout = layout,
    .pack = pack,
    .stages = stages,
};

const fc_kind *const fc_kinds_recurrent[] = {&kind, NULL};
