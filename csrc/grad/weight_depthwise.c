// SPDX-License-Identifier: BSD-3-Clause
//
// weight_depthwise.c - the weight gradient between single channels, of which a group has one or a few:
//
//   d_wei[o][c][k] = sum over images n and outputs j of d_dst[n][o][j] * src[n][c][j * s - p + k * e]
//
// As a product of matrices it would have as many columns as the kernel has taps.  What counts is to read both tensors once,
// where they lie, with the sums of the taps in registers.
//
//   over pixels    a task is some pairs of an output and an input channel, vectors along the rows; lanes are added up in the
//                  end.  Rows whose elements lie apart are gathered
//   over channels  a task is some vectors of channels; as many outputs as inputs per group, a power of two that does not
//                  exceed a vector
//
// Output rows, of all images one after the other, are summed in parts where there are few channels.  How many is a matter
// of the problem alone, and parts are added in their order, so that bits do not depend on the number of threads.
#include "grad/weight_depthwise.h"

// Parts, together with blocks of channels, that are worth while; multiply-adds of a part at least, and of a kernel's call
// at most, some milliseconds.
enum { FC_PIECES = 64, FC_PART_MACS = 1 << 17, FC_CALL_MACS = 1 << 24 };
// Products of a task over pixels; bytes of the sums of a thread, and of all parts.
enum { FC_TASK_MACS = 1 << 18, FC_SUMS_BYTES = 4 << 20, FC_PARTS_BYTES = 8 << 20 };

static int over_channels(const fc_problem *p, const fc_kernels *k) {
    const int64_t size = p->in_channels;
    const int adjoin = p->src.group == size && p->dst.group == size && p->src.channel == 1 && p->dst.channel == 1;
    return p->out_channels == size && (size & (size - 1)) == 0 && size <= k->vl && p->groups > 1 &&
           (adjoin || (size == 1 && p->src.group == 1 && p->dst.group == 1));
}

fc_grad_cut fc_grad_cut_of(const fc_problem *p, const fc_kernels *k) {
    fc_grad_cut s = {
        .problem = p, .over_channels = over_channels(p, k), .rows = p->batch * p->axis[0].out * p->axis[1].out};
    const int64_t taps = fc_taps(p), pairs = p->groups * p->out_channels * p->in_channels;
    const double row = (double)p->axis[2].out * (double)taps; // multiply-adds of a pair
    if (s.over_channels) {
        s.vector = taps * p->in_channels * k->vl;
        s.units = fc_ceil_div(p->groups * p->in_channels, k->vl);
        s.sums = s.units * s.vector;
    } else {
        s.own = taps * k->vl;
        s.units = pairs;
        s.sums = pairs * taps;
    }
    s.blocks = s.over_channels ? fc_ceil_div(s.units, FC_BLOCK_VECTORS) : pairs;
    const double macs = fc_macs(p);
    const double most = fmin(fmin((double)s.rows, macs / FC_PART_MACS), (double)fc_ceil_div(FC_PIECES, s.blocks));
    s.parts = fc_max(1, fc_min((int64_t)most, FC_PARTS_BYTES / fc_max(1, s.sums * k->element)));
    s.call = fc_max(1, (int64_t)fmin((double)s.rows, FC_CALL_MACS / row));
    if (!s.over_channels)
        s.blocks = fc_min(pairs, fc_max(fc_min(pairs, FC_PIECES), (int64_t)(macs / (double)s.parts / FC_TASK_MACS)));
    return s;
}

static const char *refuse(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const int64_t vectors = over_channels(p, k) ? p->in_channels * FC_BLOCK_VECTORS : 1;
    if (fc_taps(p) * k->vl * k->element > FC_SUMS_BYTES / vectors) return "the sums of all taps exceed 4 MiB";
    return NULL;
}

// How many times as long a multiply-add takes as the forward kernels': rows by rows of three or five taps are unrolled, so
// that a vector is loaded once for as many of them; every second column takes two loads.  Of groups of several channels rows of
// three taps are, where there are 32 registers.  Over pixels those read their rows from the first level again and again, where
// vectors are loaded in halves in two thirds of the time.
static double pace(const fc_problem *p, const fc_kernels *k, const fc_machine *machine, int over_channels) {
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int unrolled = k->vl > 1 && (w->kernel == 3 || w->kernel == 5) && h->dilation == 1 && w->dilation == 1 &&
                         h->stride == w->stride;
    if (k->vl == 1) return 1;
    if (over_channels && p->in_channels > 1 && p->groups * p->in_channels >= k->vl && fc_many_registers(k) &&
        w->kernel == 3 && w->dilation == 1 && w->stride <= 2)
        return w->stride == 1 ? 0.7 : 1;
    if (over_channels) return unrolled && p->in_channels == 1 ? 1 : 2;
    const int near = p->in_channels * p->out_channels > 1 && fc_gemm_halves(k, machine);
    return (!unrolled ? 3 : near ? 1 : 1.5) * (w->stride == 1 ? 1 : 2);
}

// What is gathered is so element by element.
static double cost(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const fc_grad_cut s = fc_grad_cut_of(p, k);
    const int64_t run = s.over_channels ? p->groups * p->in_channels : p->axis[2].out;
    const double vectors = fc_macs(p) / (double)run * (double)fc_ceil_div(run, k->vl);
    const int gathered = !s.over_channels && (p->src.axis[2] != 1 || p->dst.axis[2] != 1 || p->axis[2].stride > 2);
    const double calls = (double)s.units * (double)p->batch * (double)p->axis[0].out * (double)fc_taps(p);
    return 2 * c->fixed + c->depthwise * (pace(p, k, &r->options->machine, s.over_channels) * vectors + calls) +
           (gathered ? 2 * fc_cost_elements(fc_macs(p), c) : 0) + fc_cost_elements((double)s.parts * (double)s.sums, c);
}

static double packing(const fc_request *r) {
    (void)r;
    return 0;
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)plan, (void)r, (void)message;
    return FC_OK;
}

// ----------------------------------------------------------------------------------------------------------- running

typedef struct grad_job {
    const fc_kernels *kernels;
    const fc_grad_cut *cut;
    const char *src, *grad;
    char *parts, *dst;
} grad_job;

static grad_job job_of(const fc_stage *stage, const fc_call *call) {
    return (grad_job){
        .kernels = stage->plan->kernels,
        .cut = stage->context,
        .src = fc_operand(call, stage->at.src),
        .grad = fc_operand(call, stage->at.wei),
        .parts = fc_operand(call, stage->at.shared),
        .dst = fc_operand(call, stage->at.dst),
    };
}

// The output rows of a part, a few at a time.
static void add_rows(const grad_job *job, fc_depthwise_grad *work, int64_t part) {
    const fc_grad_cut *s = job->cut;
    const fc_kernels *k = job->kernels;
    const int64_t end = (part + 1) * s->rows / s->parts;
    for (int64_t row = part * s->rows / s->parts; row < end && !fc_must_stop(); row = work->end) {
        work->row = row;
        work->end = fc_min(end, row + s->call);
        (s->over_channels ? k->depthwise_grad_channels : k->depthwise_grad_pixels)(work);
    }
}

static void channels_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const grad_job job = job_of(stage, call);
    const fc_grad_cut *s = job.cut;
    const fc_problem *p = job.cut->problem;
    const int64_t element = job.kernels->element, vl = job.kernels->vl;
    const int64_t part = index / s->blocks, block = index % s->blocks;
    const int64_t first = block * s->units / s->blocks, last = (block + 1) * s->units / s->blocks;
    fc_depthwise_grad work = {
        .problem = p,
        .src = job.src + first * vl * element,
        .grad = job.grad + first * vl * element,
        .channels = fc_min(p->groups * p->in_channels, last * vl) - first * vl,
        .sums = job.parts + (part * s->sums + first * s->vector) * element,
        .tap = p->in_channels * vl,
        .vector = s->vector,
    };
    memset(work.sums, 0, (size_t)((last - first) * s->vector * element));
    add_rows(&job, &work, part);
}

// The sum of a vector's lanes, by halves.
#define FC_ADD_LANES(T, S)                                                                                             \
    static void add_lanes_##S(const T *sums, T *out, int64_t taps, int64_t vl) {                                       \
        for (int64_t t = 0; t < taps; t++, sums += vl) {                                                               \
            T lane[FC_MAX_NR];                                                                                         \
            memcpy(lane, sums, (size_t)vl * sizeof(T));                                                                \
            for (int64_t half = vl / 2; half > 0; half /= 2)                                                           \
                for (int64_t l = 0; l < half; l++) lane[l] += lane[l + half];                                          \
            out[t] = lane[0];                                                                                          \
        }                                                                                                              \
    }

FC_ADD_LANES(float, f32)
FC_ADD_LANES(double, f64)

static void pixels_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const grad_job job = job_of(stage, call);
    const fc_grad_cut *s = job.cut;
    const fc_problem *p = job.cut->problem;
    const int64_t element = job.kernels->element, vl = job.kernels->vl, taps = fc_taps(p);
    const int64_t part = index / s->blocks, block = index % s->blocks;
    fc_depthwise_grad work = {.problem = p, .sums = fc_own_scratch(call, thread), .tap = vl};
    for (int64_t pair = block * s->units / s->blocks; pair < (block + 1) * s->units / s->blocks; pair++) {
        const int64_t c = pair % p->in_channels, out = pair / p->in_channels;
        const int64_t group = out / p->out_channels, o = out % p->out_channels;
        work.src = job.src + (group * p->src.group + c * p->src.channel) * element;
        work.grad = job.grad + (group * p->dst.group + o * p->dst.channel) * element;
        memset(work.sums, 0, (size_t)(s->own * element));
        add_rows(&job, &work, part);
        void *sums = job.parts + (part * s->sums + pair * taps) * element;
        if (element == sizeof(float)) add_lanes_f32(work.sums, sums, taps, vl);
        else add_lanes_f64(work.sums, sums, taps, vl);
    }
}

// Adds up the parts of sums [first, end) in their order, in the first, and brings the sums of one pair of channels to where they
// belong, `tap` apart; with one NaN, as in every kernel.
#define FC_ADD_PARTS(T, S)                                                                                             \
    static void add_parts_##S(const fc_grad_cut *s, T *sums, int64_t first, int64_t end) {                             \
        for (int64_t part = 1; part < s->parts; part++)                                                                \
            for (int64_t i = first; i < end; i++) sums[i] += sums[part * s->sums + i];                                 \
    }                                                                                                                  \
    static void place_##S(const grad_job *job, int64_t out, int64_t c, const T *sums, int64_t tap) {                   \
        const fc_problem *p = job->cut->problem;                                                                       \
        T *dst = (T *)job->dst + out / p->out_channels * p->wei.group + out % p->out_channels * p->wei.outer +         \
                 c * p->wei.channel;                                                                                   \
        for (int64_t i = 0; i < p->axis[0].kernel; i++)                                                                \
            for (int64_t j = 0; j < p->axis[1].kernel; j++)                                                            \
                for (int64_t k = 0; k < p->axis[2].kernel; k++, sums += tap)                                           \
                    dst[i * p->wei.axis[0] + j * p->wei.axis[1] + k * p->wei.axis[2]] =                                \
                        *sums == *sums ? *sums : (T)NAN;                                                               \
    }

FC_ADD_PARTS(float, f32)
FC_ADD_PARTS(double, f64)

// Some units.
static void parts_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const grad_job job = job_of(stage, call);
    const fc_grad_cut *s = job.cut;
    const fc_problem *p = job.cut->problem;
    const int64_t element = job.kernels->element, vl = job.kernels->vl, taps = fc_taps(p), size = p->in_channels;
    const int64_t each = s->over_channels ? s->vector : taps, tap = s->over_channels ? size * vl : 1;
    const int64_t first = index * s->units / s->blocks, end = (index + 1) * s->units / s->blocks;
    if (element == sizeof(float)) add_parts_f32(s, (float *)job.parts, first * each, end * each);
    else add_parts_f64(s, (double *)job.parts, first * each, end * each);
    const int64_t pairs = s->over_channels ? vl * size : 1, all = p->groups * p->out_channels * size; // of a unit
    for (int64_t pair = first * pairs; pair < fc_min(all, end * pairs) && !fc_must_stop(); pair++) {
        const int64_t out = pair / size, c = pair % size;
        const int64_t at = s->over_channels ? out / vl * s->vector + c * vl + out % vl : pair * taps;
        if (element == sizeof(float)) place_f32(&job, out, c, (const float *)job.parts + at, tap);
        else place_f64(&job, out, c, (const double *)job.parts + at, tap);
    }
}

int64_t fc_grad_shared_bytes(const fc_grad_cut *s, const fc_kernels *k) { return s->parts * s->sums * k->element; }

int64_t fc_grad_own_bytes(const fc_grad_cut *s, const fc_kernels *k) { return s->own * k->element; }

void fc_grad_sum_stage(const fc_plan *plan, const fc_grad_cut *s, fc_list *list) {
    if (s) fc_list_stage(list, plan, s->over_channels ? channels_task : pixels_task, s->parts * s->blocks, s);
}

void fc_grad_part_stage(const fc_plan *plan, const fc_grad_cut *s, fc_list *list) {
    if (s) fc_list_stage(list, plan, parts_task, s->blocks, s);
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const fc_grad_cut s = fc_grad_cut_of(&plan->problem, plan->kernels);
    fc_list_scratch(list, (size_t)fc_grad_shared_bytes(&s, plan->kernels),
                    (size_t)fc_grad_own_bytes(&s, plan->kernels));
    const fc_grad_cut *kept = fc_list_keep(list, &s, sizeof s);
    fc_grad_sum_stage(plan, kept, list);
    fc_grad_part_stage(plan, kept, list);
}

static const char *form(const fc_plan *plan) {
    return over_channels(&plan->problem, plan->kernels) ? "over channels" : "over pixels, in place";
}

// Reads the output's gradient, its "weights", where it lies.
const fc_kind fc_kind_weight_depthwise = {
    .name = "depthwise",
    .traits = FC_SERVES_WEIGHT,
    .rows = 1,
    .refuse = refuse,
    .cost = cost,
    .packing = packing,
    .layout = layout,
    .stages = stages,
    .form = form,
};
