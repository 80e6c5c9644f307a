// SPDX-License-Identifier: BSD-3-Clause
//
// input_depthwise.c - the input gradient of groups of a few channels whose outputs lie two columns apart, which may be a
// transposed convolution, with a bias, a residual and an activation:
//
//   d_src[c][i] = sum over outputs o of the group and taps k of  wei[o][c][k] * d_dst[o][(i + p - k) / s]
//
// of those k for which (i + p - k) / s is whole.  As phases (views.c) each of the s * s problems would have a quarter of
// the taps, too few to be worth a call of a kernel, and store its columns one by one between those of its neighbour.  Here
// a row is computed whole, and stored once.
#include "conv/activate.h"

// Elements of a task; multiply-adds of a row at most, and of a kernel's call if rows are shorter, some milliseconds.
enum { FC_ROWS_ELEMENTS = 16384, FC_CALL_MACS = 1 << 24 };

static int is_dense(const fc_axis *a) { return a->kernel == 1 || a->dilation == 1; }

// Multiply-adds of a row of inputs, at most.
static double row_macs(const fc_problem *p) {
    return (double)p->out_channels * (double)fc_taps(p) * (double)p->axis[2].in;
}

static const char *refuse(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    if (p->src.axis[2] != 1 || p->dst.axis[2] != 1) return "columns are not neighbours in memory";
    if (p->axis[2].stride != 2) return "outputs are not two columns apart";
    if (p->axis[2].kernel != 3) return "a row has not three taps";
    if (!is_dense(&p->axis[0]) || !is_dense(&p->axis[1]) || !is_dense(&p->axis[2])) return "the kernel is dilated";
    if (row_macs(p) > FC_CALL_MACS) return "a row takes more than 16 million multiply-adds";
    return NULL;
}

// Rows of all images, channels and planes.
static int64_t rows_of(const fc_problem *p) {
    return p->batch * p->groups * p->in_channels * p->axis[0].in * p->axis[1].in;
}

// Each pair of vectors of inputs is stored once, after two chains of sums that wait for themselves: a vector takes as long as
// three of those that go on side by side.
static double cost(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const double pairs = (double)fc_ceil_div(p->axis[2].in, 2 * k->vl);
    const double vectors = fc_macs(p) / (double)fc_max(1, p->axis[2].out) * pairs;
    return c->fixed + (k->vl > 1 ? 3 : 1) * c->depthwise * vectors +
           fc_cost_runs(2 * pairs * (double)rows_of(p), 1, k, c);
}

static size_t bias_bytes(const fc_plan *plan) {
    return (size_t)(plan->problem.groups * plan->problem.in_channels * plan->kernels->element);
}

// Packed: bias, then weights [group][input][output][tap].
static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)r, (void)message;
    const fc_problem *p = &plan->problem;
    plan->packing[0] = 2; // apart from those of conv/depthwise.c
    plan->packed_bytes = bias_bytes(plan) * (size_t)(1 + p->out_channels * fc_taps(p));
    return FC_OK;
}

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    (void)threads;
    const fc_problem *p = &plan->problem;
    const int64_t element = plan->kernels->element;
    if (bias) memcpy(packed, bias, bias_bytes(plan));
    else memset(packed, 0, bias_bytes(plan));
    char *to = (char *)packed + bias_bytes(plan);
    for (int64_t channel = 0; channel < p->groups * p->in_channels; channel++)
        for (int64_t o = 0; o < p->out_channels; o++) {
            const int64_t first =
                channel / p->in_channels * p->wei.group + channel % p->in_channels * p->wei.channel + o * p->wei.outer;
            for (int64_t d = 0; d < p->axis[0].kernel; d++)
                for (int64_t h = 0; h < p->axis[1].kernel; h++)
                    for (int64_t w = 0; w < p->axis[2].kernel; w++, to += element) {
                        const int64_t at = first + d * p->wei.axis[0] + h * p->wei.axis[1] + w * p->wei.axis[2];
                        memcpy(to, (const char *)wei + at * element, (size_t)element);
                    }
        }
    return FC_OK;
}

// Rows of a task.
static int64_t share_of(const fc_problem *p) { return fc_max(1, FC_ROWS_ELEMENTS / fc_max(1, p->axis[2].in)); }

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const int64_t element = plan->kernels->element, height = p->axis[1].in;
    const int64_t most = fc_max(1, (int64_t)(FC_CALL_MACS / row_macs(p)));
    const char *src = fc_operand(call, stage->at.src), *packed = fc_operand(call, stage->at.wei);
    const char *residual = fc_operand(call, stage->at.residual);
    char *dst = fc_operand(call, stage->at.dst);
    fc_depthwise_rows work = {.problem = p, .bias = packed, .weights = packed + bias_bytes(plan)};
    const int64_t end = fc_min(rows_of(p), (index + 1) * share_of(p));
    for (int64_t row = index * share_of(p); row < end && !fc_must_stop(); row += work.rows) {
        int64_t rest = row / height;
        work.h = row % height;
        work.rows = fc_min(fc_min(end - row, height - work.h), most);
        work.d = fc_digit(&rest, p->axis[0].in);
        work.channel = fc_digit(&rest, p->groups * p->in_channels);
        const int64_t group = work.channel / p->in_channels;
        const int64_t at = rest * p->src.outer + group * p->src.group + work.channel % p->in_channels * p->src.channel +
                           work.d * p->src.axis[0];
        work.src = src + (rest * p->dst.outer + group * p->dst.group) * element;
        work.dst = dst + at * element;
        work.residual = residual ? residual + at * element : NULL;
        plan->kernels->depthwise_phases(&work);
        if (!fc_activates(plan)) continue;
        const fc_box box = {{1, work.rows, p->axis[2].in}, {1, p->src.axis[1], 1}};
        fc_activate_box(plan, (char *)work.dst + work.h * p->src.axis[1] * element, &box);
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const fc_problem *p = &plan->problem;
    fc_list_scratch(list, 0, 0);
    fc_list_stage(list, plan, task, fc_ceil_div(rows_of(p), share_of(p)), NULL);
}

static const char *form(const fc_plan *plan) {
    (void)plan;
    return "over pixels, two columns apart";
}

const fc_kind fc_kind_depthwise_input = {
    .name = "depthwise",
    .traits = FC_SERVES_INPUT,
    .rows = 1,
    .refuse = refuse,
    .cost = cost,
    .packing = fc_cost_packing,
    .layout = layout,
    .pack = pack,
    .stages = stages,
    .form = form,
};
