// SPDX-License-Identifier: BSD-3-Clause
//
// input_spread.c - the input gradient of a layer with one tap along an axis that it strides over, as 1x1 layers are: all but
// every stride-th input is an empty sum.  The same gradient with steps of one, of only the inputs that have a tap, is
// computed densely in scratch memory, in rows that are long and as the matrix product likes them; then each row of the
// result is written once, sums and zeros.  As phases (views.c) the product would store its tiles element by element, and
// somebody else the zeros between them, in the same cache lines.
//
// It may be a transposed convolution, with a bias, a residual and an activation: the empty sums get those, too.
#include "conv/activate.h"
#include "core/family.h"
#include "grad/input_sums.h"

enum { FC_ROWS_ELEMENTS = 16384 };

static int is_spread(const fc_axis *a) { return a->kernel == 1 && a->stride > 1; }

static int channels_last(const fc_problem *p) { return p->src.channel == 1 && p->src.axis[2] != 1; }

// Channels last: groups whose channels follow each other are written as one.
static int64_t joined(const fc_problem *p) { return p->src.group == p->in_channels ? p->groups : 1; }

// Channels of a row that are written together.
static int64_t channels_of(const fc_problem *p) { return channels_last(p) ? joined(p) * p->in_channels : 1; }

// The dense gradient, channels where the result has them.
static fc_problem dense_of(const fc_problem *p) {
    fc_problem dense = *p;
    int64_t size[FC_AXES], step = 1;
    for (int i = 0; i < FC_AXES; i++) {
        const int64_t out = p->axis[i].out;
        if (is_spread(&p->axis[i])) dense.axis[i] = (fc_axis){out, out, 1, 1, 1, 0};
        size[i] = dense.axis[i].in;
    }
    if (channels_last(p)) {
        dense.src.channel = 1;
        dense.src.group = p->in_channels;
        step = p->groups * p->in_channels;
    }
    for (int i = FC_AXES - 1; i >= 0; step *= size[i], i--) dense.src.axis[i] = step;
    if (!channels_last(p)) {
        dense.src.channel = step;
        dense.src.group = step * p->in_channels;
        step *= p->groups * p->in_channels;
    }
    dense.src.outer = step;
    dense.activation = FC_MAP_CLAMP;
    dense.low = -INFINITY;
    dense.high = INFINITY;
    return dense;
}

static fc_verdict ask(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    if (!is_spread(&p->axis[0]) && !is_spread(&p->axis[1]) && !is_spread(&p->axis[2]))
        return (fc_verdict){.refusal = "no axis has one tap and a stride", .cost = INFINITY};
    const fc_problem dense = dense_of(p);
    if (fc_sums_written(&dense) > (double)fc_largest)
        return (fc_verdict){.refusal = "the sums exceed 2^48 elements", .cost = INFINITY};
    fc_verdict v = r->planner->ask(&(fc_op){FC_CONV, &dense}, r->options);
    if (v.refusal) return v;
    const fc_costs *c = &r->options->costs;
    const int64_t run = channels_last(p) ? channels_of(p) : p->axis[2].in;
    v.cost += c->fixed + fc_cost_runs(fc_sums_written(p), run, r->kernels, c);
    if (!channels_last(p)) v.cost += fc_cost_elements(fc_sums_written(&dense), c);
    return v;
}

static size_t dense_bytes(const fc_problem *p) {
    return fc_align((size_t)(p->batch * dense_of(p).src.outer * fc_bytes(p->types.source)));
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_problem dense = dense_of(&plan->problem);
    return fc_sums_layout(plan, &dense, r, message);
}

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    return fc_sums_pack(plan, wei, bias, 1, packed, threads);
}

// ----------------------------------------------------------------------------------------------------------- writing

// Which output wrote position `at` of an axis; -1 for none.
static int64_t source_of(const fc_axis *a, int64_t at) {
    if (!is_spread(a)) return at;
    const int64_t from = at + a->pad;
    return from >= 0 && from % a->stride == 0 && from / a->stride < a->out ? from / a->stride : -1;
}

typedef struct spread_job {
    const fc_plan *plan;
    fc_problem dense;
    const char *sums, *bias, *residual;
    char *dst;
} spread_job;

// dst[i * step] = sums[i * from] + residual[i * step], clamped; from is 0 where one number is repeated.
#define FC_SPREAD(T, S)                                                                                                \
    static inline void run_##S(const fc_problem *p, T *dst, const T *residual, int64_t count, int64_t step,            \
                               const T *sums, int64_t from) {                                                          \
        if (!residual && p->low == -INFINITY && p->high == INFINITY) {                                                 \
            for (int64_t i = 0; i < count; i++) dst[i * step] = sums[i * from];                                        \
            return;                                                                                                    \
        }                                                                                                              \
        const T low = (T)p->low, high = (T)p->high;                                                                    \
        for (int64_t i = 0; i < count; i++) {                                                                          \
            T v = sums[i * from];                                                                                      \
            if (residual) v += residual[i * step];                                                                     \
            if (v < low) v = low;                                                                                      \
            if (v > high) v = high;                                                                                    \
            dst[i * step] = v == v ? v : (T)NAN;                                                                       \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    /* A row of one channel: `sums` are those of its first source, or NULL. */                                         \
    static void row_##S(const spread_job *job, T *dst, const T *residual, const T *sums, const T *bias) {              \
        const fc_problem *p = &job->plan->problem;                                                                     \
        const fc_axis *w = &p->axis[2];                                                                                \
        const int64_t step = p->src.axis[2], columns = job->dense.src.axis[2];                                         \
        const int64_t stride = is_spread(w) ? w->stride : 1, pad = is_spread(w) ? w->pad : 0;                          \
        const int64_t first = pad > 0 ? (pad + stride - 1) / stride : 0, out = is_spread(w) ? w->out : w->in;          \
        const int64_t last = fc_clamp(first, (w->in - 1 + pad) / stride + 1, fc_max(first, out));                      \
        if (sums && stride == 1) {                                                                                     \
            if (step == 1 && columns == 1) run_##S(p, dst, residual, w->in, 1, sums, 1);                               \
            else run_##S(p, dst, residual, w->in, step, sums, columns);                                                \
            return;                                                                                                    \
        }                                                                                                              \
        const int64_t at = (first * stride - pad) * step;                                                              \
        const int count = sums && last > first;                                                                        \
        if (residual && count) { /* which may be dst: nothing is read that has been written */                         \
            for (int64_t x = 0; x < w->in; x++) {                                                                      \
                const int64_t source = source_of(w, x);                                                                \
                const T *from = source < 0 ? bias : sums + source * columns;                                           \
                run_##S(p, dst + x * step, residual + x * step, 1, step, from, 0);                                     \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        if (step == 1) run_##S(p, dst, residual, w->in, 1, bias, 0);                                                   \
        else run_##S(p, dst, residual, w->in, step, bias, 0);                                                          \
        if (!count) return;                                                                                            \
        sums += first * columns;                                                                                       \
        if (stride * step == 2 && columns == 1) run_##S(p, dst + at, NULL, last - first, 2, sums, 1);                  \
        else run_##S(p, dst + at, NULL, last - first, stride * step, sums, columns);                                   \
    }                                                                                                                  \
                                                                                                                       \
    /* A row of channels that follow each other, pixel by pixel. */                                                    \
    static void pixels_##S(const spread_job *job, T *dst, const T *residual, const T *sums, const T *bias) {           \
        const fc_problem *p = &job->plan->problem;                                                                     \
        for (int64_t x = 0; x < p->axis[2].in; x++) {                                                                  \
            const int64_t source = sums ? source_of(&p->axis[2], x) : -1;                                              \
            const T *from = source < 0 ? bias : sums + source * job->dense.src.axis[2];                                \
            const int64_t at = x * p->src.axis[2];                                                                     \
            run_##S(p, dst + at, residual ? residual + at : NULL, channels_of(p), 1, from, 1);                         \
        }                                                                                                              \
    }

FC_SPREAD(float, f32)
FC_SPREAD(double, f64)

static void activate(const spread_job *job, void *dst, int64_t count, int64_t step) {
    fc_activate_run(job->plan->kernels, &job->plan->problem, dst, count, step);
}

// Row (d, h) of an image: of one channel, or of all that follow each other.
static void write_row(const spread_job *job, int64_t image, int64_t channel, int64_t d, int64_t h) {
    const fc_problem *p = &job->plan->problem, *dense = &job->dense;
    const int64_t group = channel / p->in_channels, c = channel % p->in_channels;
    const int64_t at =
        image * p->src.outer + group * p->src.group + c * p->src.channel + d * p->src.axis[0] + h * p->src.axis[1];
    const int64_t from_d = source_of(&p->axis[0], d), from_h = source_of(&p->axis[1], h);
    const int64_t from = image * dense->src.outer + group * dense->src.group + c * dense->src.channel +
                         from_d * dense->src.axis[0] + from_h * dense->src.axis[1];
    const int32_t dtype = p->types.source;
    const void *sums = from_d < 0 || from_h < 0 ? NULL : fc_at(job->sums, from, dtype);
    const void *bias = fc_at(job->bias, channel, dtype);
    const void *residual = job->residual ? fc_at(job->residual, at, dtype) : NULL;
    char *dst = job->dst + at * fc_bytes(dtype);
    if (!channels_last(p)) {
        if (dtype == FC_F32) row_f32(job, (float *)dst, residual, sums, bias);
        else row_f64(job, (double *)dst, residual, sums, bias);
        activate(job, dst, p->axis[2].in, p->src.axis[2]);
        return;
    }
    if (dtype == FC_F32) pixels_f32(job, (float *)dst, residual, sums, bias);
    else pixels_f64(job, (double *)dst, residual, sums, bias);
    for (int64_t x = 0; x < p->axis[2].in; x++)
        activate(job, dst + x * p->src.axis[2] * fc_bytes(dtype), channels_of(p), 1);
}

// Rows of all images and channels, one after the other; so many for each task.
static int64_t rows_of(const fc_problem *p) {
    return p->batch * (p->groups * p->in_channels / channels_of(p)) * p->axis[0].in * p->axis[1].in;
}

static int64_t rows_of_task(const fc_problem *p) {
    return fc_max(1, FC_ROWS_ELEMENTS / (p->axis[2].in * channels_of(p)));
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const spread_job job = {
        .plan = plan,
        .dense = dense_of(p),
        .sums = fc_operand(call, stage->at.shared),
        .bias = fc_operand(call, stage->at.wei),
        .residual = fc_operand(call, stage->at.residual),
        .dst = fc_operand(call, stage->at.dst),
    };
    const int64_t together = channels_of(p), channels = p->groups * p->in_channels / together;
    const int64_t height = p->axis[1].in, depth = p->axis[0].in, first = index * rows_of_task(p);
    const int64_t end = fc_min(rows_of(p), first + rows_of_task(p));
    for (int64_t row = first; row < end && !fc_must_stop(); row++) {
        const int64_t h = row % height, d = row / height % depth, channel = row / height / depth % channels;
        write_row(&job, row / height / depth / channels, channel * together, d, h);
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_problem *p = &plan->problem;
    fc_sums_stages(plan, dense_bytes(p), 0, threads, list);
    fc_list_stage(list, plan, task, fc_ceil_div(rows_of(p), rows_of_task(p)), NULL);
}

const fc_kind fc_kind_spread = {
    .name = "spread",
    .traits = FC_SERVES_INPUT | FC_BY_PARTS,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = pack,
    .stages = stages,
    .form = fc_sums_form,
};
