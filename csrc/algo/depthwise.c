// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise.c - one input channel per group, or a few. There is little to multiply as matrices; what counts is to read and
// write each element once, so vectors run along whatever is contiguous.
//
//   pixels form    one input channel per group, any number of outputs: a task is some rows of some groups, vectors along
//                  the row. Contiguous rows are read where they lie, outputs one or two columns apart; others are first
//                  copied, zero-padded and split into the phases of the stride (padded.c), which leaves neither borders
//                  nor strides to the kernel, but takes as long as the sums
//   channels form  a task is some rows of all channels, vectors over the channels; as many outputs as inputs per group,
//                  a power of two that does not exceed a vector
#include "algo/plan.h"

// Elements of a task: padded rows that stay in L1 (pixels form), or a share of the work (channels form).
enum { FC_PADDED_ELEMENTS = 4096, FC_ROWS_ELEMENTS = 16384, FC_PADDED_BYTES = 4 << 20, FC_SLACK = FC_MAX_NR };

static int channels_form(const fc_problem *p) {
    const int64_t size = p->in_channels;
    const int adjoin = p->src.group == size && p->dst.group == size && p->src.channel == 1 && p->dst.channel == 1;
    return p->out_channels == size && (size & (size - 1)) == 0 &&
           (adjoin || (size == 1 && p->src.group == 1 && p->dst.group == 1)) && p->groups > 1;
}

// Pixels form: whether rows are read where they lie.
static int in_place(const fc_problem *p) { return p->src.axis[2] == 1 && p->axis[2].stride <= 2; }

static fc_padded padded_of(const fc_problem *p) {
    const int64_t width = fc_padded_rows(p, 1, 1, 1, 0).width;
    return fc_padded_rows(p, fc_max(1, fc_min(p->axis[1].out, FC_PADDED_ELEMENTS / width)), 1, 1, FC_SLACK);
}

static const char *refuse(const fc_problem *p, const fc_kernels *k) {
    if (channels_form(p) && p->in_channels <= k->vl) return NULL;
    if (p->in_channels != 1) return "a group has more than one input channel";
    if (p->dst.axis[2] != 1 && !in_place(p)) return "neither rows nor channels of the output are contiguous";
    if (!in_place(p) && !fc_padded_fits(p, k, FC_PADDED_BYTES)) return "the input of one output row exceeds 4 MiB";
    return NULL;
}

// Two loads for each multiply-add, and each vector of outputs stored once.
static double cost(const fc_problem *p, const fc_kernels *k, const fc_costs *c) {
    const int64_t run = channels_form(p) ? p->groups * p->in_channels : p->axis[2].out;
    const double vectors = fc_macs(p) / (double)run * (double)fc_ceil_div(run, k->vl);
    double copy = 0;
    if (!channels_form(p) && !in_place(p)) {
        const fc_padded s = padded_of(p);
        const double tasks = (double)(p->batch * p->groups * p->axis[0].out * fc_ceil_div(p->axis[1].out, s.rows));
        copy = tasks * fc_cost_runs((double)s.elements, s.width, k, c);
    }
    if (p->dst.axis[2] != 1 && !channels_form(p)) copy += fc_cost_elements(fc_macs(p) / (double)fc_taps(p), c);
    return c->fixed + c->depthwise * vectors + copy +
           fc_cost_runs(vectors / (double)(fc_taps(p) * p->in_channels), 1, k, c);
}

// Packed: bias, then weights: [vector of channels][tap][input of the group][lane] in the channels form,
// [group * out][tap] in the pixels form.
static fc_status layout(fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    const int64_t outs = p->groups * p->out_channels, vl = plan->kernels->vl;
    const int64_t rows = channels_form(p) ? fc_round_up(outs, vl) : outs;
    plan->packed_bytes = fc_align((size_t)(outs * plan->kernels->element)) +
                         (size_t)(rows * p->in_channels * fc_taps(p) * plan->kernels->element);
    if (channels_form(p) || in_place(p)) return FC_OK;
    plan->table = malloc(sizeof(int64_t) * (size_t)fc_taps(p));
    if (!plan->table) return FC_NO_MEMORY;
    const fc_padded padded = padded_of(p);
    fc_padded_offsets(p, &padded, 1, plan->table);
    return FC_OK;
}

static size_t panel_bytes(const fc_plan *plan) {
    if (channels_form(&plan->problem) || in_place(&plan->problem)) return 0;
    return fc_align((size_t)(padded_of(&plan->problem).elements * plan->kernels->element));
}

static size_t scratch(const fc_plan *plan, int threads) { return (size_t)threads * panel_bytes(plan); }

static const char *weights_of(const fc_plan *plan, const void *packed) {
    const fc_problem *p = &plan->problem;
    return (const char *)packed + fc_align((size_t)(p->groups * p->out_channels * plan->kernels->element));
}

// The taps of output `o` for input channel `q` of its group, `step` elements apart in `out`.
static inline void pack_taps(const fc_plan *plan, const char *wei, int64_t o, int64_t q, char *out, int64_t step,
                             const int64_t element) {
    const fc_problem *p = &plan->problem;
    wei += (o / p->out_channels * p->wei.group + o % p->out_channels * p->wei.outer + q * p->wei.channel) * element;
    for (int64_t d = 0; d < p->axis[0].kernel; d++)
        for (int64_t h = 0; h < p->axis[1].kernel; h++) {
            const char *in = wei + (d * p->wei.axis[0] + h * p->wei.axis[1]) * element;
            for (int64_t w = 0; w < p->axis[2].kernel; w++, out += step * element)
                memcpy(out, in + w * p->wei.axis[2] * element, (size_t)element);
        }
}

static inline void pack_weights(const fc_plan *plan, const char *wei, char *out, const int64_t element) {
    const fc_problem *p = &plan->problem;
    const int64_t outs = p->groups * p->out_channels, taps = fc_taps(p), size = p->in_channels, vl = plan->kernels->vl;
    if (!channels_form(p)) {
        for (int64_t o = 0; o < outs; o++) pack_taps(plan, wei, o, 0, out + o * taps * element, 1, element);
        return;
    }
    const int64_t block_bytes = taps * size * vl * element;
    for (int64_t first = 0; first < outs; first += vl, out += block_bytes) {
        const int64_t lanes = fc_min(vl, outs - first);
        if (lanes < vl) memset(out, 0, (size_t)block_bytes);
        for (int64_t lane = 0; lane < lanes; lane++)
            for (int64_t q = 0; q < size; q++)
                pack_taps(plan, wei, first + lane, q, out + (q * vl + lane) * element, size * vl, element);
    }
}

static void pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    (void)threads;
    const int64_t element = plan->kernels->element;
    const size_t bytes = (size_t)(plan->problem.groups * plan->problem.out_channels * element);
    char *weights = (char *)packed + fc_align(bytes);
    if (bias) memcpy(packed, bias, bytes);
    else memset(packed, 0, bytes);
    if (element == sizeof(float)) pack_weights(plan, wei, weights, sizeof(float));
    else pack_weights(plan, wei, weights, sizeof(double));
}

typedef struct depthwise_job {
    const fc_plan *plan;
    const char *src, *packed, *residual;
    char *dst, *scratch;
    int64_t parts;  // tasks that share the rows of a plane
    int64_t groups; // pixels form: per task
    fc_padded padded;
    size_t panel_bytes;
} depthwise_job;

// The rows of a task, but for what differs between the forms.
static fc_depthwise_rows rows_of(const depthwise_job *job, int64_t part) {
    const fc_problem *p = &job->plan->problem;
    fc_depthwise_rows work = {.problem = p, .bias = job->packed, .taps = fc_taps(p)};
    work.h = part * p->axis[1].out / job->parts;
    work.weights = weights_of(job->plan, job->packed);
    work.rows = (part + 1) * p->axis[1].out / job->parts - work.h;
    return work;
}

static void aim(const depthwise_job *job, fc_depthwise_rows *work, int64_t dst) {
    const int64_t element = job->plan->kernels->element;
    work->dst = job->dst + dst * element;
    work->residual = job->residual ? job->residual + dst * element : NULL;
}

static void channels_task(void *context, int64_t index, int thread) {
    (void)thread;
    const depthwise_job *job = context;
    const fc_problem *p = &job->plan->problem;
    fc_depthwise_rows work = rows_of(job, index % job->parts);
    work.d = index / job->parts % p->axis[0].out;
    const int64_t image = index / job->parts / p->axis[0].out;
    work.src = fc_at(job->src, image * p->src.outer, job->plan->kernels);
    aim(job, &work, image * p->dst.outer + work.d * p->dst.axis[0]);
    job->plan->kernels->depthwise_channels(&work);
}

static void pixels_task(void *context, int64_t index, int thread) {
    const depthwise_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_problem *p = &plan->problem;
    char *planes = job->scratch + (size_t)thread * job->panel_bytes;
    fc_depthwise_rows work = rows_of(job, index % job->parts);
    const int64_t shares = fc_ceil_div(p->groups, job->groups), share = index / job->parts % shares;
    index /= job->parts * shares;
    const int64_t image = index / p->axis[0].out;
    work.d = index % p->axis[0].out;
    work.src = planes;
    work.row = job->padded.width;
    work.tap_offset = plan->table;
    fc_pad_copy copy = {
        .problem = p,
        .d = work.d,
        .h = work.h,
        .channels = 1,
        .rows = job->padded.rows + job->padded.rows_extra,
        .width = job->padded.width,
        .planes = planes,
    };
    const fc_depthwise_fn kernel = in_place(p) ? plan->kernels->depthwise_planes : plan->kernels->depthwise_pixels;
    for (int64_t group = share * p->groups / shares; group < (share + 1) * p->groups / shares; group++) {
        copy.src = fc_at(job->src, image * p->src.outer + group * p->src.group, plan->kernels);
        if (in_place(p)) work.src = copy.src;
        else {
            plan->kernels->pad_copy_pixels(&copy);
            copy.bordered = 1; // the padding of the next group is where this one's is
        }
        for (int64_t out = 0; out < p->out_channels; out++) {
            work.channel = group * p->out_channels + out;
            aim(job, &work,
                image * p->dst.outer + group * p->dst.group + out * p->dst.channel + work.d * p->dst.axis[0]);
            kernel(&work);
        }
    }
}

static void tasks(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                  void *scratch_memory, int threads, fc_tasks *tasks) {
    const fc_problem *p = &plan->problem;
    depthwise_job job = {.plan = plan,
                         .src = src,
                         .packed = packed,
                         .residual = residual,
                         .dst = dst,
                         .scratch = scratch_memory,
                         .panel_bytes = panel_bytes(plan)};
    int64_t rows, planes = p->batch * p->axis[0].out;
    if (channels_form(p)) {
        rows = FC_ROWS_ELEMENTS / (p->axis[2].out * p->groups * p->in_channels);
    } else {
        int64_t elements = p->axis[1].out * p->axis[2].out;
        rows = FC_ROWS_ELEMENTS / p->axis[2].out;
        if (!in_place(p)) {
            job.padded = padded_of(p);
            rows = job.padded.rows;
            elements = job.padded.elements;
        }
        job.groups = fc_max(1, FC_ROWS_ELEMENTS / (elements * p->out_channels));
        job.groups = fc_max(1, fc_min(job.groups, p->groups / (4 * threads)));
        planes *= fc_ceil_div(p->groups, job.groups);
    }
    job.parts = fc_ceil_div(p->axis[1].out, fc_max(1, fc_min(p->axis[1].out, rows)));
    if (planes * job.parts < 8 * threads) job.parts = fc_min(p->axis[1].out, fc_round_up(job.parts, threads));
    tasks->count = planes * job.parts;
    tasks->run = channels_form(p) ? channels_task : pixels_task;
    _Static_assert(sizeof job <= sizeof tasks->context, "the context is too small");
    memcpy(tasks->context, &job, sizeof job);
}

static void execute(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                    void *scratch_memory, int threads) {
    fc_tasks all;
    tasks(plan, src, packed, residual, dst, scratch_memory, threads, &all);
    fc_parallel(all.count, threads, all.run, all.context);
}

const fc_algorithm fc_algorithm_depthwise = {"depthwise", refuse, cost, NULL, layout, scratch, pack, execute, tasks};
