// SPDX-License-Identifier: BSD-3-Clause
//
// images.c - plans by which an image's bits are the same in a batch of any size.
//
// The algorithm, and with it the order in which products are summed, is that of a plan of one image.  Where a plan of the
// whole batch by the same algorithm sums in the same order, that one runs: it reads the weights less often and shares the
// work better.  Elsewhere (rows that only one of the two problems joins, or another form at another size) the plan of one
// image runs for each.
#include "conv/gemm/gemm.h"

// The state of a plan; its only part is a plan of the whole batch, or of one image.
typedef struct images {
    int whole;
} images;

static int is_whole(const fc_plan *plan) { return ((const images *)plan->state)->whole; }

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    return fc_plan_pack(plan->parts->plan, wei, bias, packed, threads);
}

// One image, by one thread.
static void image_task(const fc_stage *stage, fc_call *call, int64_t image, int thread) {
    const fc_schedule *schedule = *(const fc_schedule *const *)stage->context;
    const fc_problem *p = &stage->plan->problem;
    const int64_t from = image * p->src.outer * fc_bytes(p->types.source);
    const int64_t to = image * p->dst.outer * fc_bytes(p->types.destination);
    const fc_operands operands = {.src = fc_operand(call, fc_behind(stage->at.src, from)),
                                  .wei = fc_operand(call, stage->at.wei),
                                  .residual = fc_operand(call, fc_behind(stage->at.residual, to)),
                                  .dst = fc_operand(call, fc_behind(stage->at.dst, to))};
    fc_schedule_run_alone(schedule, &operands, fc_own_scratch(call, thread));
}

static void images_alone(const fc_plan *plan, fc_list *list) {
    const fc_schedule *one;
    const fc_status status = fc_plan_schedule(plan->parts->plan, 1, &one);
    if (status != FC_OK) {
        list->status = status;
        return;
    }
    fc_list_scratch(list, 0, fc_schedule_scratch_bytes(one));
    fc_list_stage(list, plan, image_task, plan->problem.batch, fc_list_keep(list, &one, sizeof one));
}

// One image after the other, each by all threads.
static void images_shared(const fc_plan *plan, int threads, fc_list *list) {
    const fc_problem *p = &plan->problem;
    const int64_t from = p->src.outer * fc_bytes(p->types.source), to = p->dst.outer * fc_bytes(p->types.destination);
    const fc_places at = list->at;
    for (int64_t image = 0; image < p->batch; image++) {
        list->at.src = fc_behind(at.src, image * from);
        list->at.dst = fc_behind(at.dst, image * to);
        list->at.residual = fc_behind(at.residual, image * to);
        plan->parts->plan->kind->stages(plan->parts->plan, threads, list);
    }
    list->at = at;
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_plan *part = plan->parts->plan;
    if (is_whole(plan)) part->kind->stages(part, threads, list);
    else if (plan->problem.batch >= threads) images_alone(plan, list);
    else images_shared(plan, threads, list);
}

static int sums_alike(const fc_plan *a, const fc_plan *b) {
    if (a->kind != b->kind || a->part_count > 0) return 0; // bands end where their cost says, which knows the batch
    return a->kind->stages != fc_gemm_stages || fc_gemm_sums_alike(fc_gemm_of(a), fc_gemm_of(b));
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_problem *p = &plan->problem;
    images *state = plan->state = calloc(1, sizeof *state);
    plan->parts = calloc(1, sizeof *plan->parts);
    if (!state || !plan->parts) return FC_NO_MEMORY;
    fc_problem image = *p;
    image.batch = 1;
    fc_plan *one, *all;
    fc_status status = r->planner->plan(&(fc_op){FC_CONV, &image}, r->options, &one, message);
    if (status != FC_OK) return status;
    plan->parts->plan = one;
    plan->part_count = 1;
    plan->id = one->id;
    plan->seconds = one->seconds * (double)p->batch;
    fc_options options = *r->options;
    options.batch_invariant = 0;
    options.algorithm = one->id;
    status = r->planner->plan(&(fc_op){FC_CONV, p}, &options, &all, message);
    if (status == FC_NO_MEMORY) return status;
    if (status == FC_OK && sums_alike(one, all)) {
        state->whole = 1;
        plan->parts->plan = all;
        fc_plan_destroy(one);
    } else if (status == FC_OK) fc_plan_destroy(all);
    plan->packed_bytes = plan->parts->plan->packed_bytes;
    return FC_OK;
}

static const char *form(const fc_plan *plan) { return fc_plan_form(plan->parts->plan); }

// Its part chooses for itself, so that nobody asks whether it would serve, or at what cost.
const fc_kind fc_kind_images = {
    .name = "images",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .layout = layout,
    .pack = pack,
    .stages = stages,
    .form = form,
};
