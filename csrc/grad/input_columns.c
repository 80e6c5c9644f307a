// SPDX-License-Identifier: BSD-3-Clause
//
// input_columns.c - the input gradient of a layer with a stride, and so a transposed convolution, as one matrix product: each
// tap of a channel of the input is an output channel of a 1x1 layer, whose planes are then summed where they belong.
//
//   cols[c, k][o] = sum over output channels m of wei[m][c][k] * d_dst[m][o]
//   d_src[c][i]   = bias + sum over taps k with o * s - p + k * e = i of cols[c, k][o]
//
// As phases (views.c) there are as many products as strides multiply to, of few channels each where groups are small, whose
// tiles are stored element by element, s columns apart, and empty sums are filled in between. Here sums of a phase are
// neighbours, r + s * j -> [r][j], until a row is whole and woven into the result at once. Kernels that reach over many
// strides take more additions, and memory, than phases do.
#include "conv/activate.h"
#include "conv/winograd.h"
#include "core/family.h"
#include "grad/input_phases.h"

// A segment of a row, as many channels at once where those are neighbours, elements of a task, the longest stride of columns,
// and how many times the result the taps may be.
enum { FC_SEGMENT = 512, FC_CHANNELS = 16, FC_TASK_ELEMENTS = 16384, FC_LONGEST = 64, FC_MOST_TAPS = 8 };

static int64_t taps_of(const fc_problem *p) { return p->axis[0].kernel * p->axis[1].kernel * p->axis[2].kernel; }

static double written(const fc_problem *p) {
    return (double)p->batch * (double)p->groups * (double)p->in_channels * (double)p->axis[0].in *
           (double)p->axis[1].in * (double)p->axis[2].in;
}

static double summed(const fc_problem *p) {
    return (double)p->batch * (double)p->groups * (double)p->in_channels * (double)taps_of(p) * (double)p->axis[0].out *
           (double)p->axis[1].out * (double)p->axis[2].out;
}

static const char *refusal(const fc_problem *p) {
    const fc_axis *w = &p->axis[2];
    if (w->stride == 1 || w->stride > FC_LONGEST) return "columns have no stride, or a long one";
    if (summed(p) > FC_MOST_TAPS * written(p) || summed(p) > (double)fc_largest) return "taps reach over many strides";
    int64_t step = 1;
    for (int i = FC_AXES - 1; i >= 0; step *= p->axis[i].kernel, i--)
        if (p->axis[i].kernel > 1 && p->wei.axis[i] != step) return "taps do not adjoin";
    return p->in_channels > 1 && p->wei.channel != step ? "channels of the kernel do not adjoin" : NULL;
}

// The product: planes of all taps of a channel, then those of the next.
static fc_problem product_of(const fc_problem *p) {
    fc_problem q = *p;
    q.direction = FC_FORWARD;
    q.in_channels = p->out_channels;
    q.out_channels = p->in_channels * taps_of(p);
    q.src = p->dst;
    q.wei.outer = 1;
    q.wei.channel = p->wei.outer;
    int64_t step = 1;
    for (int i = FC_AXES - 1; i >= 0; i--) {
        const int64_t out = p->axis[i].out;
        q.axis[i] = (fc_axis){out, out, 1, 1, 1, 0};
        q.dst.axis[i] = step;
        step *= out;
    }
    q.dst.channel = fc_odd_lines(step); // tiles write to many planes at once
    q.dst.group = q.dst.channel * q.out_channels;
    q.dst.outer = q.dst.group * p->groups;
    q.activation = FC_MAP_CLAMP;
    q.low = -INFINITY;
    q.high = INFINITY;
    return q;
}

static int apart(const fc_problem *p) { return p->src.axis[2] != 1; }

static fc_verdict ask(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    fc_verdict v = {.refusal = refusal(p), .cost = INFINITY};
    if (v.refusal) return v;
    const fc_problem product = product_of(p);
    v = r->planner->ask(&(fc_op){FC_CONV, &product}, r->options);
    if (v.refusal) return v;
    const fc_costs *c = &r->options->costs;
    v.cost += c->fixed + fc_cost_elements((apart(p) ? 2 : 1) * written(p) + 0.5 * summed(p), c) +
              fc_cost_images(2 * summed(p) * (double)r->kernels->element, r->options);
    return v;
}

static size_t bias_bytes(const fc_problem *p) {
    return fc_align((size_t)(p->groups * p->in_channels * fc_bytes(p->types.source)));
}

static size_t product_bytes(const fc_problem *p) {
    return fc_align((size_t)(p->batch * product_of(p).dst.outer * fc_bytes(p->types.source)));
}

// Packed: bias, then the weights of the product.
static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_problem *p = &plan->problem, product = product_of(p);
    plan->parts = calloc(1, sizeof *plan->parts);
    if (!plan->parts) return FC_NO_MEMORY;
    fc_plan *part;
    const fc_status status = r->planner->plan(&(fc_op){FC_CONV, &product}, r->options, &part, message);
    if (status != FC_OK) return status;
    plan->part_count = 1;
    plan->id = part->id;
    *plan->parts = (fc_part){part, bias_bytes(p)};
    plan->packed_bytes = bias_bytes(p) + part->packed_bytes;
    return FC_OK;
}

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const fc_part *part = plan->parts;
    if (bias) memcpy(packed, bias, (size_t)(p->groups * p->in_channels * fc_bytes(p->types.source)));
    else memset(packed, 0, bias_bytes(p));
    return fc_plan_pack(part->plan, wei, NULL, (char *)packed + part->packed, threads);
}

// ----------------------------------------------------------------------------------------------------------- writing

// Positions r + s * j of a row, j in [first, first + count), for every r below `phases`.
typedef struct segment {
    int64_t first, count, phases;
} segment;

static int64_t steps_of_segment(const fc_axis *w) { return fc_max(1, FC_SEGMENT / w->stride); }
static int64_t segments_of(const fc_axis *w) { return fc_ceil_div(fc_ceil_div(w->in, w->stride), steps_of_segment(w)); }

static segment segment_at(const fc_axis *w, int64_t index) {
    const int64_t steps = steps_of_segment(w), first = index * steps;
    return (segment){first, fc_min(steps, fc_ceil_div(w->in, w->stride) - first), w->stride};
}

// Columns of a segment that are there, all but those behind the end of the row.
static int64_t columns_of(const fc_axis *w, const segment *s) {
    return fc_min(s->count * w->stride, w->in - s->first * w->stride);
}

// The output whose tap `k` is position `at` of an axis; -1 for none.
static int64_t output_of(const fc_axis *a, int64_t at, int64_t k) {
    const int64_t from = at + a->pad - k * a->dilation;
    return from >= 0 && from % a->stride == 0 && from / a->stride < a->out ? from / a->stride : -1;
}

// sums[r][j] of one channel, of whose taps `planes` are, and row (d, h).
#define FC_COLUMNS(T, S)                                                                                               \
    static void add_row_##S(const fc_axis *w, const segment *s, T *sums, const T *planes, int64_t plane) {             \
        int64_t shift = fc_floor_div(-w->pad, w->stride), phase = -w->pad - shift * w->stride;                         \
        for (int64_t k = 0; k < w->kernel; k++, planes += plane, phase += w->dilation) {                               \
            for (; phase >= w->stride; phase -= w->stride) shift++;                                                    \
            T *restrict to = sums + phase * s->count - s->first;                                                       \
            const T *restrict from = planes - shift;                                                                   \
            const int64_t low = fc_max(s->first, shift), high = fc_min(s->first + s->count, w->out + shift);           \
            for (int64_t j = low; j < high; j++) to[j] += from[j];                                                     \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    static void sum_row_##S(const fc_problem *p, const segment *s, T *sums, const T *planes, int64_t plane,            \
                            const T *bias, int64_t d, int64_t h) {                                                     \
        const fc_axis *a = p->axis;                                                                                    \
        const T none = 0 + *bias;                                                                                      \
        for (int64_t i = 0; i < s->count * s->phases; i++) sums[i] = none;                                             \
        for (int64_t i = 0; i < a[0].kernel; i++)                                                                      \
            for (int64_t j = 0; j < a[1].kernel; j++) {                                                                \
                const int64_t od = output_of(&a[0], d, i), oh = output_of(&a[1], h, j);                                \
                if (od < 0 || oh < 0) continue;                                                                        \
                const int64_t first = (i * a[1].kernel + j) * a[2].kernel * plane + (od * a[1].out + oh) * a[2].out;   \
                add_row_##S(&a[2], s, sums, planes + first, plane);                                                    \
            }                                                                                                          \
    }                                                                                                                  \
                                                                                                                       \
    static inline T finished_##S(T v, T low, T high) {                                                                 \
        if (v < low) v = low;                                                                                          \
        return v > high ? high : v;                                                                                    \
    }                                                                                                                  \
                                                                                                                       \
    /* dst[r + stride * j] = sums[r][j] + residual[r + stride * j], clamped; the residual may be dst. */               \
    static inline void weave_by_##S(T low, T high, const segment *s, T *dst, const T *residual, const T *sums,         \
                                    int64_t columns, int64_t stride) {                                                 \
        const int64_t whole = columns / stride;                                                                        \
        if (!residual) {                                                                                               \
            T *restrict to = dst;                                                                                      \
            const T *restrict from = sums;                                                                             \
            for (int64_t j = 0; j < whole; j++)                                                                        \
                for (int64_t r = 0; r < stride; r++)                                                                   \
                    to[j * stride + r] = finished_##S(from[r * s->count + j], low, high);                              \
        }                                                                                                              \
        for (int64_t x = residual ? 0 : whole * stride; x < columns; x++) {                                            \
            const T v = sums[x % stride * s->count + x / stride];                                                      \
            dst[x] = finished_##S(residual ? v + residual[x] : v, low, high);                                          \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    static void weave_##S(T low, T high, const segment *s, T *dst, const T *residual, const T *sums,                   \
                          int64_t columns) {                                                                           \
        if (s->phases == 2) weave_by_##S(low, high, s, dst, residual, sums, columns, 2);                               \
        else if (s->phases == 4) weave_by_##S(low, high, s, dst, residual, sums, columns, 4);                          \
        else weave_by_##S(low, high, s, dst, residual, sums, columns, s->phases);                                      \
    }

FC_COLUMNS(float, f32)
FC_COLUMNS(double, f64)

// Groups whose channels follow each other are as one.
static int64_t joined(const fc_problem *p) { return p->src.group == p->in_channels * p->src.channel ? p->groups : 1; }

// Channels that are written together, and such blocks of a group, or of those that are as one.
static int64_t channels_of(const fc_problem *p) {
    return apart(p) ? fc_min(FC_CHANNELS, joined(p) * p->in_channels) : 1;
}
static int64_t blocks_of(const fc_problem *p) { return fc_ceil_div(joined(p) * p->in_channels, channels_of(p)); }

// Lines of channels that are transposed on their way, no power of two apart.
static int64_t line_of(const fc_problem *p) {
    return fc_max(FC_SEGMENT, p->axis[2].stride) + 16 * FC_ALIGN / fc_bytes(p->types.source) / 16;
}

typedef struct columns_job {
    const fc_plan *plan;
    const char *planes, *bias, *residual;
    char *dst, *own;
    int64_t plane, element;
} columns_job;

static void add_residual(const columns_job *job, char *lines, int64_t at, int64_t channels, int64_t columns) {
    const fc_problem *p = &job->plan->problem;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t x = 0; x < columns; x++) {
            const int64_t from = at + c * p->src.channel + x * p->src.axis[2], to = c * line_of(p) + x;
            if (p->types.source == FC_F32) {
                float *v = (float *)lines + to;
                *v = finished_f32(*v + ((const float *)job->residual)[from], (float)p->low, (float)p->high);
            } else {
                double *v = (double *)lines + to;
                *v = finished_f64(*v + ((const double *)job->residual)[from], p->low, p->high);
            }
        }
}

// Some channels, of row (d, h) of an image.
static void write_row(const columns_job *job, int64_t image, int64_t channel, int64_t channels, int64_t d, int64_t h) {
    const fc_plan *plan = job->plan;
    const fc_problem *p = &plan->problem;
    const fc_axis *w = &p->axis[2];
    const int64_t group = channel / p->in_channels;
    const int64_t row = image * p->src.outer + group * p->src.group + channel % p->in_channels * p->src.channel +
                        d * p->src.axis[0] + h * p->src.axis[1];
    const int later = apart(p) && job->residual; // it is added to lines
    const double low = later ? -INFINITY : p->low, high = later ? INFINITY : p->high;
    for (int64_t index = 0; index < segments_of(w); index++) {
        const segment s = segment_at(w, index);
        const int64_t columns = columns_of(w, &s), at = row + s.first * w->stride * p->src.axis[2];
        char *const sums = job->own, *const lines = sums + line_of(p) * job->element;
        for (int64_t c = 0; c < channels; c++) {
            const int64_t planes = (image * p->groups * p->in_channels + channel + c) * taps_of(p) * job->plane;
            const void *from = fc_at(job->planes, planes, p->types.source),
                       *bias = fc_at(job->bias, channel + c, p->types.source);
            const void *residual = apart(p) || !job->residual ? NULL : fc_at(job->residual, at, p->types.source);
            char *to = apart(p) ? lines + c * line_of(p) * job->element : job->dst + at * job->element;
            if (p->types.source == FC_F32) {
                sum_row_f32(p, &s, (float *)sums, from, job->plane, bias, d, h);
                weave_f32((float)low, (float)high, &s, (float *)to, residual, (const float *)sums, columns);
            } else {
                sum_row_f64(p, &s, (double *)sums, from, job->plane, bias, d, h);
                weave_f64(low, high, &s, (double *)to, residual, (const double *)sums, columns);
            }
            fc_activate_run(plan->kernels, p, to, later ? 0 : columns, 1);
        }
        if (!apart(p)) continue;
        if (later) {
            add_residual(job, lines, at, channels, columns);
            for (int64_t c = 0; c < channels; c++)
                fc_activate_run(plan->kernels, p, lines + c * line_of(p) * job->element, columns, 1);
        }
        const fc_rectangle turned = {.src = lines,
                                     .dst = job->dst + at * job->element,
                                     .rows = columns,
                                     .columns = channels,
                                     .src_row = 1,
                                     .src_column = line_of(p),
                                     .dst_row = p->src.axis[2],
                                     .dst_column = p->src.channel};
        plan->kernels->rectangle(&turned);
    }
}

// Rows of all images and blocks of channels, one after the other; so many for each task.
static int64_t rows_of(const fc_problem *p) {
    return p->batch * p->groups / joined(p) * blocks_of(p) * p->axis[0].in * p->axis[1].in;
}

static int64_t rows_of_task(const fc_problem *p) {
    return fc_max(1, FC_TASK_ELEMENTS / fc_max(1, p->axis[2].in * channels_of(p)));
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const columns_job job = {
        .plan = plan,
        .planes = fc_operand(call, stage->at.shared),
        .bias = fc_operand(call, stage->at.wei),
        .residual = fc_operand(call, stage->at.residual),
        .dst = fc_operand(call, stage->at.dst),
        .plane = product_of(p).dst.channel,
        .own = fc_own_scratch(call, thread),
        .element = plan->kernels->element,
    };
    const int64_t height = p->axis[1].in, depth = p->axis[0].in, first = index * rows_of_task(p);
    const int64_t end = fc_min(rows_of(p), first + rows_of_task(p));
    for (int64_t row = first; row < end && !fc_must_stop(); row++) {
        int64_t at = row;
        const int64_t h = fc_digit(&at, height), d = fc_digit(&at, depth);
        const int64_t channel = fc_digit(&at, blocks_of(p)) * channels_of(p), all = joined(p) * p->in_channels;
        const int64_t group = fc_digit(&at, p->groups / joined(p));
        write_row(&job, at, group * all + channel, fc_min(channels_of(p), all - channel), d, h);
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_problem *p = &plan->problem;
    const fc_part *part = plan->parts;
    const fc_places at = list->at;
    fc_list_scratch(list, product_bytes(p),
                    fc_align((size_t)((1 + channels_of(p)) * line_of(p) * plan->kernels->element)));
    list->at.wei = fc_behind(at.wei, (int64_t)part->packed);
    list->at.dst = at.shared;
    list->at.residual = (fc_place){.base = FC_BASE_NONE};
    list->at.shared = fc_behind(at.shared, (int64_t)product_bytes(p));
    part->plan->kind->stages(part->plan, threads, list);
    list->at = at;
    fc_list_stage(list, plan, task, fc_ceil_div(rows_of(p), rows_of_task(p)), NULL);
}

static const char *form(const fc_plan *plan) { return fc_plan_form(plan->parts->plan); }

const fc_kind fc_kind_columns = {
    .name = "columns",
    .traits = FC_SERVES_INPUT | FC_BY_PARTS,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = pack,
    .stages = stages,
    .form = form,
};
