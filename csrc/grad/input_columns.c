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
#include "grad/input_sums.h"

// A segment of a row, as many channels at once where those are neighbours, elements of a task, the longest stride of columns,
// and how many times the result the taps may be.
enum { FC_SEGMENT = 512, FC_CHANNELS = 16, FC_TASK_ELEMENTS = 16384, FC_LONGEST = 64, FC_MOST_TAPS = 8 };

static double summed(const fc_problem *p) {
    return (double)p->batch * (double)p->groups * (double)p->in_channels * (double)fc_taps(p) * (double)p->axis[0].out *
           (double)p->axis[1].out * (double)p->axis[2].out;
}

static const char *refusal(const fc_problem *p) {
    const fc_axis *w = &p->axis[2];
    if (w->stride == 1 || w->stride > FC_LONGEST) return "columns have no stride, or a long one";
    if (summed(p) > FC_MOST_TAPS * fc_sums_written(p) || summed(p) > (double)fc_largest)
        return "taps reach over many strides";
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
    q.out_channels = p->in_channels * fc_taps(p);
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

static size_t product_bytes(const fc_problem *p) {
    return fc_align((size_t)(p->batch * product_of(p).dst.outer * fc_bytes(p->types.source)));
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_problem product = product_of(&plan->problem);
    return fc_sums_layout(plan, &product, r, message);
}

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    return fc_sums_pack(plan, wei, bias, 0, packed, threads);
}

// ----------------------------------------------------------------------------------------------------------- writing

// The output whose tap `k` is position `at` of an axis; -1 for none.
static int64_t output_of(const fc_axis *a, int64_t at, int64_t k) {
    const int64_t from = at + a->pad - k * a->dilation;
    return from >= 0 && from % a->stride == 0 && from / a->stride < a->out ? from / a->stride : -1;
}

// Groups whose channels follow each other are as one.
static int64_t joined(const fc_problem *p) { return p->src.group == p->in_channels * p->src.channel ? p->groups : 1; }

// Channels that are written together, and such blocks of a group, or of those that are as one.
static int64_t channels_of(const fc_problem *p) { return fc_min(FC_CHANNELS, joined(p) * p->in_channels); }
static int64_t blocks_of(const fc_problem *p) { return fc_ceil_div(joined(p) * p->in_channels, channels_of(p)); }

// Columns of a row that are written at once, and lines of those that are transposed on their way, no power of two apart.
static int64_t columns_of(const fc_problem *p) {
    const fc_axis *w = &p->axis[2];
    return apart(p) ? fc_min(fc_max(1, FC_SEGMENT / w->stride) * w->stride, w->in) : w->in;
}
static int64_t line_of(const fc_problem *p) { return fc_odd_lines(columns_of(p)); }

typedef struct columns_job {
    const fc_plan *plan;
    const char *planes, *bias, *residual;
    char *dst, *lines;
    int64_t *first; // of each phase
    fc_weave_tap *taps;
    int64_t plane;
} columns_job;

// The taps of row (d, h), phase by phase, for columns from `start` on, which is the first of a phase.
static void list_taps(const columns_job *job, int64_t d, int64_t h, int64_t start) {
    const fc_axis *a = job->plan->problem.axis, *w = &a[2];
    int64_t count = 0;
    for (int64_t r = 0; r < w->stride; r++) {
        job->first[r] = count;
        for (int64_t k = 0; k < w->kernel; k++) {
            const int64_t behind = r + w->pad - k * w->dilation; // o * s = behind + s * j
            if (behind % w->stride != 0) continue;
            const int64_t shift = behind / w->stride + start / w->stride;
            for (int64_t i = 0; i < a[0].kernel; i++)
                for (int64_t j = 0; j < a[1].kernel; j++) {
                    const int64_t od = output_of(&a[0], d, i), oh = output_of(&a[1], h, j);
                    if (od < 0 || oh < 0) continue;
                    const int64_t plane = ((i * a[1].kernel + j) * w->kernel + k) * job->plane;
                    job->taps[count++] =
                        (fc_weave_tap){plane + (od * a[1].out + oh) * w->out + shift, -shift, w->out - shift};
                }
        }
    }
    job->first[w->stride] = count;
}

// lines[c][x] += residual, clamped.
#define FC_ADD(T, S)                                                                                                   \
    static void add_row_##S(const fc_problem *p, void *lines, const void *residual, int64_t channels,                  \
                            int64_t columns) {                                                                         \
        const T low = (T)p->low, high = (T)p->high, *from = residual;                                                  \
        for (int64_t x = 0; x < columns; x++)                                                                          \
            for (int64_t c = 0; c < channels; c++) {                                                                   \
                T *v = (T *)lines + c * line_of(p) + x;                                                                \
                *v += from[x * p->src.axis[2] + c * p->src.channel];                                                   \
                if (*v < low) *v = low;                                                                                \
                if (*v > high) *v = high;                                                                              \
                if (*v != *v) *v = (T)NAN;                                                                             \
            }                                                                                                          \
    }

FC_ADD(float, f32)
FC_ADD(double, f64)

// Some columns of a row of some channels, from element `at` of dst on.
static void write_columns(const columns_job *job, fc_weave work, int64_t at) {
    const fc_plan *plan = job->plan;
    const fc_problem *p = &plan->problem;
    const int64_t element = plan->kernels->element;
    const void *residual = job->residual ? fc_at(job->residual, at, p->types.source) : NULL;
    char *const dst = job->dst + at * element;
    work.residual = residual;
    work.dst = dst;
    work.dst_channel = p->src.channel;
    work.low = p->low;
    work.high = p->high;
    if (apart(p)) {
        work.dst = job->lines;
        work.dst_channel = line_of(p);
        work.residual = NULL;
        if (residual) work.low = -INFINITY, work.high = INFINITY;
    }
    plan->kernels->weave(&work);
    if (apart(p) && residual)
        (p->types.source == FC_F32 ? add_row_f32 : add_row_f64)(p, job->lines, residual, work.channels, work.columns);
    for (int64_t c = 0; c < work.channels; c++)
        fc_activate_run(plan->kernels, p, (char *)work.dst + c * work.dst_channel * element, work.columns, 1);
    if (!apart(p)) return;
    const fc_rectangle turned = {.src = job->lines,
                                 .dst = dst,
                                 .rows = work.columns,
                                 .columns = work.channels,
                                 .src_row = 1,
                                 .src_column = line_of(p),
                                 .dst_row = p->src.axis[2],
                                 .dst_column = p->src.channel};
    plan->kernels->rectangle(&turned);
}

// Some channels, of row (d, h) of an image.
static void write_row(const columns_job *job, int64_t image, int64_t channel, int64_t channels, int64_t d, int64_t h) {
    const fc_problem *p = &job->plan->problem;
    const fc_axis *w = &p->axis[2];
    const int64_t planes = fc_taps(p) * job->plane, group = channel / p->in_channels;
    const int64_t row = image * p->src.outer + group * p->src.group + channel % p->in_channels * p->src.channel +
                        d * p->src.axis[0] + h * p->src.axis[1];
    fc_weave work = {
        .channels = channels,
        .stride = w->stride,
        .first = job->first,
        .taps = job->taps,
        .src = fc_at(job->planes, (image * p->groups * p->in_channels + channel) * planes, p->types.source),
        .bias = fc_at(job->bias, channel, p->types.source),
        .src_channel = planes,
    };
    for (int64_t start = 0; start < w->in; start += work.columns) {
        list_taps(job, d, h, start);
        work.columns = fc_min(columns_of(p), w->in - start);
        write_columns(job, work, row + start * p->src.axis[2]);
    }
}

// Rows of all images and blocks of channels, one after the other; so many for each task.
static int64_t rows_of(const fc_problem *p) {
    return p->batch * p->groups / joined(p) * blocks_of(p) * p->axis[0].in * p->axis[1].in;
}

static int64_t rows_of_task(const fc_problem *p) {
    return fc_max(1, FC_TASK_ELEMENTS / fc_max(1, p->axis[2].in * channels_of(p)));
}

// Taps of a row are listed for a block of channels, and loaded from planes by vectors; results of strides without zips are
// stored one by one.  Rows of many short planes are found by no prefetcher: where L3 holds the planes, each is waited for.
static double writing(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_costs *c = &r->options->costs;
    const fc_axis *w = &p->axis[2];
    const int64_t vl = r->kernels->vl, vectors = fc_ceil_div(w->in, w->stride * vl),
                  segments = fc_ceil_div(w->in, columns_of(p));
    const double rows = (double)rows_of(p), written = fc_sums_written(p);
    double taps = (double)w->kernel; // of a row
    for (int i = 0; i < 2; i++) taps *= (double)p->axis[i].kernel / (double)p->axis[i].stride;
    const double sums = written / (double)fc_max(1, w->in) * (double)vectors * taps;
    const double listed = c->row_unit * rows * (double)segments * (1.6 + 0.6 * taps);
    const double stored =
        w->stride == 2 || w->stride == 4 ? 2 * c->copied * written / (double)vl : fc_cost_elements(1.1 * written, c);
    const double turned = apart(p) ? fc_cost_elements((channels_of(p) > 4 ? 0.4 : 0.7) * written, c) : 0;
    const double bytes = (double)product_bytes(p), own = 5 * (double)r->options->machine.l2;
    const double waited = bytes > own ? 1.8 * c->copied_run * summed(p) / (double)fc_max(1, w->out) : 0;
    return c->fixed + listed + 1.7 * c->copied * sums + stored + turned + waited +
           2.6 * fc_cost_beyond(bytes, r->options);
}

static fc_verdict ask(const fc_request *r) {
    fc_verdict v = {.refusal = refusal(r->op->problem), .cost = INFINITY};
    if (v.refusal) return v;
    const fc_problem product = product_of(r->op->problem);
    v = r->planner->ask(&(fc_op){FC_CONV, &product}, r->options);
    if (!v.refusal) v.cost += writing(r);
    return v;
}

// Scratch of a thread: lines, and behind them the taps of a row.
static size_t line_bytes(const fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    return apart(p) ? fc_align((size_t)(channels_of(p) * line_of(p) * plan->kernels->element)) : 0;
}

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    char *const own = fc_own_scratch(call, thread);
    int64_t *const first = (int64_t *)(own + line_bytes(plan));
    const columns_job job = {
        .plan = plan,
        .planes = fc_operand(call, stage->at.shared),
        .bias = fc_operand(call, stage->at.wei),
        .residual = fc_operand(call, stage->at.residual),
        .dst = fc_operand(call, stage->at.dst),
        .lines = own,
        .first = first,
        .taps = (fc_weave_tap *)(first + p->axis[2].stride + 1),
        .plane = product_of(p).dst.channel,
    };
    const int64_t height = p->axis[1].in, depth = p->axis[0].in;
    const int64_t end = fc_min(rows_of(p), (index + 1) * rows_of_task(p));
    for (int64_t row = index * rows_of_task(p); row < end && !fc_must_stop(); row++) {
        int64_t at = row;
        const int64_t h = fc_digit(&at, height), d = fc_digit(&at, depth);
        const int64_t channel = fc_digit(&at, blocks_of(p)) * channels_of(p), all = joined(p) * p->in_channels;
        const int64_t group = fc_digit(&at, p->groups / joined(p));
        write_row(&job, at, group * all + channel, fc_min(channels_of(p), all - channel), d, h);
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_problem *p = &plan->problem;
    const size_t taps = (size_t)(p->axis[2].stride + 1) * sizeof(int64_t) + (size_t)fc_taps(p) * sizeof(fc_weave_tap);
    fc_sums_stages(plan, product_bytes(p), line_bytes(plan) + taps, threads, list);
    fc_list_stage(list, plan, task, fc_ceil_div(rows_of(p), rows_of_task(p)), NULL);
}

const fc_kind fc_kind_columns = {
    .name = "columns",
    .traits = FC_SERVES_INPUT | FC_BY_PARTS,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = pack,
    .stages = stages,
    .form = fc_sums_form,
};
