// SPDX-License-Identifier: BSD-3-Clause
//
// layer_interleaved.c - the gradients of a layer between single channels whose planes are small: a vector of planes is
// interleaved in scratch memory, as conv/interleaved.c has them, and layer.c computes there over channels, where short rows
// leave no lanes empty and no stride picks columns.
//
// A task takes some channels of some images through a plan of layer.c.  The sums of weights and bias of several images'
// tasks are added in the order of images.
#include "conv/interleaved.h"
#include "core/family.h"
#include "grad/layer.h"

// Bytes that a task has interleaved, if that is more than an image; tasks that are worth while.
enum { FC_TASK_BYTES = 192 << 10, FC_TASKS = 64 };

// The state of a plan.  Its parts are plans by images and channels, (whole, fewer) by (whole, fewer).
typedef struct interleaved_layer {
    int64_t lanes, blocks; // channels of a task, and tasks that share all
    int64_t images, parts; // the same of images
    int64_t sums;          // of a task: those of the weights of each channel, then of biases
} interleaved_layer;

// Of a part, or of a block, that may be the last.
static int64_t some_of(int64_t all, int64_t each, int64_t index) { return fc_min(each, all - index * each); }

// What is interleaved: the input, the output's gradient, and the input's.
enum { FC_INPUT_PLANES = 0, FC_GRAD_PLANES, FC_RESULT_PLANES, FC_ALL_PLANES };

static fc_planes planes_of(const fc_layer_gradient *g, int which) {
    return fc_planes_of(which == FC_RESULT_PLANES ? &g->input : &g->weight, which == FC_GRAD_PLANES);
}

// Bytes of those of so many images.
static int64_t bytes_of(const fc_layer_gradient *g, const fc_kernels *k, int which, int64_t images) {
    const fc_planes planes = planes_of(g, which);
    return (int64_t)fc_align((size_t)(fc_planes_positions(&planes) * k->vl * images * k->element));
}

static int64_t all_bytes(const fc_layer_gradient *g, const fc_kernels *k, int64_t images) {
    int64_t bytes = 0;
    for (int i = 0; i < FC_ALL_PLANES; i++) bytes += bytes_of(g, k, i, images);
    return bytes;
}

static interleaved_layer cut_of(const fc_layer_gradient *g, const fc_kernels *k) {
    const fc_problem *p = &g->weight;
    interleaved_layer s = {.lanes = k->vl, .blocks = fc_ceil_div(p->groups, k->vl)};
    const int64_t most = fc_min(FC_TASK_BYTES / all_bytes(g, k, 1), p->batch * s.blocks / FC_TASKS);
    s.images = fc_even(p->batch, fc_max(1, most));
    s.parts = fc_ceil_div(p->batch, s.images);
    s.sums = k->vl * (fc_taps(p) + 1);
    return s;
}

// Of one task; sums lie as [channel][tap] and [channel].
static fc_layer_gradient task_problem(const fc_layer_gradient *g, int64_t images, int64_t lanes) {
    fc_layer_gradient some = *g;
    const int64_t taps = fc_taps(&g->weight);
    for (int i = 0; i < 2; i++) {
        fc_problem *p = i ? &some.input : &some.weight;
        const fc_planes inputs = fc_planes_of(p, 0), outputs = fc_planes_of(p, 1);
        const fc_view src = fc_interleaved_view(&inputs, lanes, 1), dst = fc_interleaved_view(&outputs, lanes, 1);
        p->batch = images;
        p->groups = lanes;
        p->src = src;
        p->dst = dst;
    }
    int64_t step = 1;
    for (int i = FC_AXES - 1; i >= 0; step *= g->weight.axis[i].kernel, i--) some.weight.wei.axis[i] = step;
    some.weight.wei.group = taps;
    some.second = g->second < 0 ? -1 : lanes * taps;
    return some;
}

// ----------------------------------------------------------------------------------------------------------- planning

static const char *refusal(const fc_request *r) {
    const fc_layer_gradient *g = r->op->problem;
    const fc_problem *p = &g->weight;
    const fc_kernels *k = r->kernels;
    if (p->batch == 0 || fc_positions(p) == 0) return "there is nothing to sum";
    if (p->in_channels != 1 || p->out_channels != 1) return "a group has more than one channel";
    if (p->groups < k->vl || k->vl == 1) return "there is no vector of planes";
    for (int i = 0; i < FC_ALL_PLANES; i++) {
        const fc_planes planes = planes_of(g, i);
        if (planes.view->axis[2] != 1 || planes.step == 1) return "rows are not contiguous";
    }
    return all_bytes(g, k, 1) > r->options->machine.l2 / 2 ? "planes are large" : NULL;
}

static fc_verdict ask(const fc_request *r) {
    const fc_layer_gradient *g = r->op->problem;
    fc_verdict found = {.refusal = refusal(r), .cost = INFINITY};
    if (found.refusal) return found;
    const interleaved_layer s = cut_of(g, r->kernels);
    const fc_costs *c = &r->options->costs;
    fc_options alone = *r->options;
    alone.algorithm = FC_DEPTHWISE;
    const fc_request whole = {r->op, r->kernels, &alone, r->planner};
    const fc_verdict in_place = fc_kind_layer_in_place.ask(&whole);
    alone.costs.fixed /= FC_ALONE_STAGES;
    const fc_layer_gradient some = task_problem(g, s.images, s.lanes);
    const fc_op op = {FC_LAYER_GRADIENT, &some};
    const fc_request task = {&op, r->kernels, &alone, r->planner};
    found = fc_kind_layer_in_place.ask(&task);
    if (found.refusal) return found;
    const double vectors = (double)all_bytes(g, r->kernels, s.images) / (double)(r->kernels->vl * r->kernels->element);
    found.cost = 2 * c->fixed + (double)(s.blocks * s.parts) * (found.cost + fc_turn * c->copied * vectors) +
                 fc_layer_cost_memory(r);
    if (!in_place.refusal && in_place.cost <= found.cost) found.refusal = "rows are long enough where they lie";
    else if (r->options->algorithm == FC_AUTO && found.cost > fc_layer_cost_apart(r))
        found.refusal = "one after the other is faster";
    return found;
}

static fc_part *part_of(const fc_plan *plan, int64_t part, int64_t block) {
    const interleaved_layer *s = plan->state;
    const fc_problem *p = &plan->layer_gradient.weight;
    const int fewer_images = some_of(p->batch, s->images, part) < s->images;
    return &plan->parts[2 * fewer_images + (some_of(p->groups, s->lanes, block) < s->lanes)];
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_layer_gradient *g = &plan->layer_gradient;
    interleaved_layer *s = plan->state = calloc(1, sizeof *s);
    plan->parts = calloc(4, sizeof *plan->parts);
    if (!s || !plan->parts) return FC_NO_MEMORY;
    *s = cut_of(g, r->kernels);
    plan->id = FC_DEPTHWISE;
    plan->part_count = 4;
    fc_options options = *r->options;
    options.algorithm = FC_DEPTHWISE;
    for (int64_t i = 0; i < 4; i++) { // the first and the last of each
        const int64_t part = i / 2 * (s->parts - 1), block = i % 2 * (s->blocks - 1);
        fc_part *own = part_of(plan, part, block);
        if (own->plan) continue;
        const fc_layer_gradient some =
            task_problem(g, some_of(g->weight.batch, s->images, part), some_of(g->weight.groups, s->lanes, block));
        const fc_status status = r->planner->plan(&(fc_op){FC_LAYER_GRADIENT, &some}, &options, &own->plan, message);
        if (status != FC_OK) return status;
    }
    return FC_OK;
}

// ------------------------------------------------------------------------------------------------------------ running

typedef struct interleaved_schedules {
    const fc_schedule *of[4];
} interleaved_schedules;

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_plan *plan = stage->plan;
    const interleaved_layer *s = plan->state;
    const fc_layer_gradient *g = &plan->layer_gradient;
    const fc_kernels *k = plan->kernels;
    const int64_t block = index % s->blocks, part = index / s->blocks, element = k->element;
    const int64_t lanes = some_of(g->weight.groups, s->lanes, block),
                  images = some_of(g->weight.batch, s->images, part);
    char *const arrays[FC_ALL_PLANES] = {fc_operand(call, stage->at.src), fc_operand(call, stage->at.wei),
                                         fc_operand(call, stage->at.dst)};
    char *at[FC_ALL_PLANES + 1] = {fc_own_scratch(call, thread)};
    for (int i = 0; i < FC_ALL_PLANES; i++) at[i + 1] = at[i] + bytes_of(g, k, i, s->images);
    for (int i = 0; i < FC_ALL_PLANES; i++) {
        const fc_planes planes = planes_of(g, i);
        const int64_t from = part * s->images * planes.view->outer + block * s->lanes * planes.step;
        if (i == FC_RESULT_PLANES) {
            const fc_operands operands = {
                .src = at[FC_INPUT_PLANES],
                .wei = at[FC_GRAD_PLANES],
                .other = {(const char *)fc_operand(call, stage->at.other[0]) +
                          block * s->lanes * g->input.wei.group * element},
                .dst = at[FC_RESULT_PLANES],
                .further = (char *)fc_operand(call, stage->at.shared) + index * s->sums * element,
            };
            const interleaved_schedules *schedules = stage->context;
            fc_schedule_run_alone(schedules->of[part_of(plan, part, block) - plan->parts], &operands,
                                  at[FC_ALL_PLANES]);
        }
        for (int64_t n = 0; n < images; n++)
            fc_interleave(&planes, k, lanes, arrays[i] + (from + n * planes.view->outer) * element,
                          at[i] + n * fc_planes_positions(&planes) * lanes * element, i != FC_RESULT_PLANES);
    }
}

// Sums of a block's tasks, in the order of images, with one NaN, as in every kernel.
#define FC_ADD_IMAGES(T, S)                                                                                            \
    static T add_images_##S(const T *sums, int64_t parts, int64_t step) {                                              \
        T sum = sums[0];                                                                                               \
        for (int64_t part = 1; part < parts; part++) sum += sums[part * step];                                         \
        return sum == sum ? sum : (T)NAN;                                                                              \
    }                                                                                                                  \
    static void add_block_##S(const interleaved_layer *s, const fc_layer_gradient *g, const T *sums, T *further,       \
                              int64_t first, int64_t lanes) {                                                          \
        const fc_problem *p = &g->weight;                                                                              \
        const int64_t step = s->blocks * s->sums;                                                                      \
        for (int64_t c = first; c < first + lanes; c++)                                                                \
            for (int64_t i = 0; i < p->axis[0].kernel; i++)                                                            \
                for (int64_t j = 0; j < p->axis[1].kernel; j++) {                                                      \
                    T *row = further + c * p->wei.group + i * p->wei.axis[0] + j * p->wei.axis[1];                     \
                    for (int64_t k = 0; k < p->axis[2].kernel; k++)                                                    \
                        row[k * p->wei.axis[2]] = add_images_##S(sums++, s->parts, step);                              \
                }                                                                                                      \
        for (int64_t c = first; c < first + lanes && g->second >= 0; c++)                                              \
            further[g->second + c] = add_images_##S(sums++, s->parts, step);                                           \
    }

FC_ADD_IMAGES(float, f32)
FC_ADD_IMAGES(double, f64)

static void add_task(const fc_stage *stage, fc_call *call, int64_t block, int thread) {
    (void)thread;
    const interleaved_layer *s = stage->plan->state;
    const fc_layer_gradient *g = &stage->plan->layer_gradient;
    const int64_t first = block * s->lanes, lanes = some_of(g->weight.groups, s->lanes, block);
    const void *shared = fc_operand(call, stage->at.shared);
    void *further = fc_operand(call, stage->at.further);
    if (stage->plan->kernels->dtype == FC_F32)
        add_block_f32(s, g, (const float *)shared + block * s->sums, further, first, lanes);
    else add_block_f64(s, g, (const double *)shared + block * s->sums, further, first, lanes);
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const interleaved_layer *s = plan->state;
    interleaved_schedules schedules = {{NULL}};
    size_t scratch = 0;
    for (int64_t i = 0; i < plan->part_count; i++) {
        if (!plan->parts[i].plan) continue;
        const fc_status status = fc_plan_schedule(plan->parts[i].plan, 1, &schedules.of[i]);
        if (status != FC_OK) {
            list->status = status;
            return;
        }
        const size_t bytes = fc_schedule_scratch_bytes(schedules.of[i]);
        scratch = bytes > scratch ? bytes : scratch;
    }
    const int64_t bytes = all_bytes(&plan->layer_gradient, plan->kernels, s->images);
    fc_list_scratch(list, (size_t)(s->parts * s->blocks * s->sums * plan->kernels->element), (size_t)bytes + scratch);
    fc_list_stage(list, plan, task, s->parts * s->blocks, fc_list_keep(list, &schedules, sizeof schedules));
    fc_list_stage(list, plan, add_task, s->blocks, NULL);
}

static const char *form(const fc_plan *plan) {
    (void)plan;
    return "over channels, interleaved";
}

static const fc_kind kind = {
    .name = "interleaved",
    .traits = FC_SERVES_INPUT | FC_SERVES_WEIGHT,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .stages = stages,
    .form = form,
};

const fc_kind *const fc_kinds_layer_gradient[] = {&kind, &fc_kind_layer_in_place, NULL};
