// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise.c - one input channel per group. There is nothing to multiply as matrices; what counts is to read and write
// each element once, so vectors run along whatever is contiguous.
//
//   pixels form    a task is some rows of one output channel, vectors along the row; any number of outputs per group
//   channels form  a task is some rows of all channels, vectors over the groups; one output per group
#include "algo/plan.h"

enum { FC_ROWS_PER_TASK_ELEMENTS = 16384 };

static int channels_form(const fc_problem *p) {
    return p->out_channels == 1 && p->src.group == 1 && p->dst.group == 1 && p->groups > 1;
}

static const char *refuse(const fc_problem *p, const fc_kernels *k) {
    (void)k;
    if (p->in_channels != 1) return "a group has more than one input channel";
    if (!channels_form(p) && (p->src.axis[2] != 1 || p->dst.axis[2] != 1))
        return "neither rows nor channels of the images are contiguous";
    return NULL;
}

// Two loads for each multiply-add, and each vector of outputs stored once.
static double cost(const fc_problem *p, const fc_kernels *k) {
    const int64_t run = channels_form(p) ? p->groups : p->axis[2].out;
    const double vectors = fc_macs(p) / (double)run * (double)fc_ceil_div(run, k->vl);
    const double gathered = !channels_form(p) && p->axis[2].stride > 2 ? (double)k->vl : 1.0;
    return fc_cost_fixed() + 0.5e-9 * vectors * gathered + fc_cost_runs(vectors / (double)fc_taps(p), 1, k);
}

// Packed: bias, then weights: [tap][group] in the channels form, [group * out][tap] in the pixels form.
static fc_status layout(fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    plan->packed_bytes = (size_t)(p->groups * p->out_channels * (1 + fc_taps(p)) * plan->kernels->element);
    return FC_OK;
}

static size_t scratch(const fc_plan *plan, int threads) {
    (void)plan, (void)threads;
    return 0;
}

static void pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    (void)threads;
    const fc_problem *p = &plan->problem;
    const int64_t element = plan->kernels->element, outs = p->groups * p->out_channels, taps = fc_taps(p);
    char *out = packed;
    if (bias) memcpy(out, bias, (size_t)(outs * element));
    else memset(out, 0, (size_t)(outs * element));
    out += outs * element;
    for (int64_t o = 0; o < outs; o++)
        for (int64_t t = 0; t < taps; t++) {
            const int64_t w = t % p->axis[2].kernel, h = t / p->axis[2].kernel % p->axis[1].kernel;
            const int64_t d = t / p->axis[2].kernel / p->axis[1].kernel;
            const int64_t from = o / p->out_channels * p->wei.group + o % p->out_channels * p->wei.outer +
                                 d * p->wei.axis[0] + h * p->wei.axis[1] + w * p->wei.axis[2];
            const int64_t to = channels_form(p) ? t * outs + o : o * taps + t;
            memcpy(out + to * element, (const char *)wei + from * element, (size_t)element);
        }
}

typedef struct depthwise_job {
    const fc_plan *plan;
    const char *src, *packed, *residual;
    char *dst;
    int64_t rows; // per task
} depthwise_job;

static void task(void *context, int64_t index, int thread) {
    (void)thread;
    const depthwise_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_problem *p = &plan->problem;
    const int64_t element = plan->kernels->element, outs = p->groups * p->out_channels;
    const int64_t parts = fc_ceil_div(p->axis[1].out, job->rows);
    const int64_t planes = channels_form(p) ? 1 : outs;
    fc_depthwise_rows work = {.problem = p, .bias = job->packed, .weights = job->packed + outs * element};
    work.h = index % parts * job->rows;
    work.rows = fc_min(job->rows, p->axis[1].out - work.h);
    index /= parts;
    const int64_t channel = index % planes, d = index / planes % p->axis[0].out, image = index / planes / p->axis[0].out;
    const int64_t group = channel / p->out_channels, out = channel % p->out_channels;
    const int64_t dst = image * p->dst.outer + group * p->dst.group + out * p->dst.channel + d * p->dst.axis[0];
    work.d = d;
    work.channel = channel;
    work.src = job->src + (image * p->src.outer + group * p->src.group) * element;
    work.dst = job->dst + dst * element;
    work.residual = job->residual ? job->residual + dst * element : NULL;
    (channels_form(p) ? plan->kernels->depthwise_channels : plan->kernels->depthwise_pixels)(&work);
}

static void execute(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                    void *scratch_memory, int threads) {
    (void)scratch_memory;
    const fc_problem *p = &plan->problem;
    const int64_t planes = channels_form(p) ? 1 : p->groups * p->out_channels;
    const int64_t row = p->axis[2].out * (channels_form(p) ? p->groups : 1);
    depthwise_job job = {plan, src, packed, residual, dst, 0};
    job.rows = fc_max(1, fc_min(p->axis[1].out, FC_ROWS_PER_TASK_ELEMENTS / row));
    fc_parallel(p->batch * p->axis[0].out * planes * fc_ceil_div(p->axis[1].out, job.rows), threads, task, &job);
}

const fc_algorithm fc_algorithm_depthwise = {"depthwise", refuse, cost, layout, scratch, pack, execute};
