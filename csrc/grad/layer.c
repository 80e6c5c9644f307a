// SPDX-License-Identifier: BSD-3-Clause
//
// layer.c - the gradients of input, weights and bias in one pass over memory, between single channels.
//
// Each of them has little to compute and much to read: by itself the first reads the output's gradient, the second that and
// the input, the third that once more.  Here a task sums the weights' gradient over some output rows of some channels, as
// weight_depthwise.c cuts it, then computes the rows of the input's gradient beside them and sums the bias', from the same cache
// lines.  What a task reads fits into the second-level cache.
//
// The input's gradient is that of views.c, by the kernels of conv/depthwise.c: of stride s, the inputs of one phase, those
// at r modulo s along each axis, are a convolution of the output's gradient by every s-th tap in reverse.  Over pixels two
// columns apart it is that of input_depthwise.c.  Over channels one kernel has all three for the commonest sizes.
#include "grad/layer.h"
#include "conv/parts.h"
#include "core/family.h"
#include "grad/input_phases.h"
#include "grad/weight_depthwise.h"
#include "kernels/depthwise.h"

extern const fc_kind fc_kind_depthwise_input;

// Multiply-adds of a row of a task at most, some milliseconds; numbers that are added one after the other in their own type.
enum { FC_ROW_MACS = 1 << 24, FC_CHAIN = 1024, FC_MOST_PHASES = 64 };
// Numbers of a row of a vector of channels, of which lines by five taps find the window's in the first-level cache.
enum { FC_LINE_NUMBERS = 1280 };

fc_status fc_check_layer_gradient(const void *problem, char message[FC_MESSAGE]) {
    const fc_layer_gradient *g = problem;
    const fc_problem *w = &g->weight, *i = &g->input;
    fc_status status = fc_check_problem(w, message);
    if (status == FC_OK) status = fc_check_problem(i, message);
    if (status != FC_OK) return status;
    FC_CHECK(w->direction == FC_BACKWARD_WEIGHT && i->direction == FC_BACKWARD_INPUT, "directions %d and %d",
             (int)w->direction, (int)i->direction);
    FC_CHECK(w->batch == i->batch && w->groups == i->groups && w->in_channels == i->in_channels &&
                 w->out_channels == i->out_channels && memcmp(w->axis, i->axis, sizeof w->axis) == 0 &&
                 memcmp(&w->dst, &i->dst, sizeof w->dst) == 0 && fc_types_equal(w->types, i->types),
             "the gradients are of different layers");
    FC_CHECK(i->activation == FC_MAP_CLAMP, "a gradient is not activated");
    FC_CHECK(g->second <= fc_largest, "the second result is more than 2^48 elements away");
    return FC_OK;
}

// ------------------------------------------------------------------------------------------------------------- phases

// Inputs that are one convolution of the output's gradient.
typedef struct layer_phase {
    fc_problem problem;
    int64_t at[FC_AXES], step[FC_AXES]; // its first position, and from one to the next
    int64_t tap, packed;                // elements: its first tap in the weights, and its own in those that are packed
} layer_phase;

static int64_t phases_of(const fc_axis *a) { return fc_min(a->stride, a->in); }

// Over pixels two columns apart all inputs are one, by another kernel.
static int by_rows(const fc_problem *p, int over_channels) { return !over_channels && p->axis[2].stride == 2; }

static int is_point(const fc_axis *a) { return a->in == 1 && a->out == 1 && a->kernel == 1; }

// The tap in the middle sees an input wherever there is an output, which counts each once for the bias.
static int has_middle(const fc_axis *a) {
    const int64_t middle = a->kernel / 2;
    return a->pad <= middle && (a->out - 1) * a->stride + middle - a->pad < a->in;
}

// Long lines by five taps are slower than the forward kernels, which keep inputs of several rows in registers.
static int is_long(const fc_axis *w, const fc_kernels *k) {
    return w->kernel == 5 && w->stride == 1 && w->in * k->vl > FC_LINE_NUMBERS;
}

// Over channels all gradients are one kernel's.
static int by_steps(const fc_problem *p, const fc_kernels *k, int over_channels) {
    return over_channels && p->in_channels == 1 && is_point(&p->axis[0]) &&
           fc_depthwise_has_steps(p, fc_many_registers(k) && k->dtype == FC_F32) && has_middle(&p->axis[1]) &&
           has_middle(&p->axis[2]) && !is_long(&p->axis[2], k);
}

static int64_t first_step(const fc_axis *a) { return a->pad / a->stride; }
static int64_t steps_of(const fc_axis *a) { return (a->in - 1 + a->pad) / a->stride + 1 - first_step(a); }

// As the weights' gradient is cut, by rows of outputs, or of steps.
static fc_grad_cut cut_of(const fc_layer_gradient *g, const fc_kernels *k) {
    fc_grad_cut cut = fc_grad_cut_of(&g->weight, k);
    if (by_steps(&g->weight, k, cut.over_channels)) cut.rows = g->weight.batch * steps_of(&g->weight.axis[1]);
    return cut;
}

// All inputs are one.
static int is_whole(const fc_problem *p, const fc_kernels *k, int over_channels) {
    return by_rows(p, over_channels) || by_steps(p, k, over_channels);
}

static int64_t phase_count(const fc_problem *p, const fc_kernels *k, int over_channels) {
    return is_whole(p, k, over_channels) ? 1 : phases_of(&p->axis[0]) * phases_of(&p->axis[1]) * phases_of(&p->axis[2]);
}

// Of the input's problem; false if it has no tap.
static int phase_of(const fc_problem *p, const fc_kernels *k, int over_channels, int64_t index, layer_phase *phase) {
    *phase = (layer_phase){.problem = *p, .step = {1, 1, 1}};
    if (is_whole(p, k, over_channels)) return 1;
    fc_problem *f = &phase->problem;
    f->direction = FC_FORWARD;
    f->src = p->dst;
    f->dst = p->src;
    int has_taps = 1;
    for (int i = FC_AXES - 1; i >= 0; i--) {
        const fc_axis *a = &p->axis[i];
        phase->at[i] = fc_digit(&index, phases_of(a));
        phase->step[i] = a->stride;
        // Steps of one between outputs, or between taps.
        const int64_t from = phase->at[i] + a->pad, first = from - fc_floor_div(from, a->stride) * a->stride;
        has_taps &= first < a->kernel;
        f->axis[i] = fc_phase_axis(a, first, phase->at[i]);
        phase->tap += fc_phase_tap(a, first) * p->wei.axis[i];
        f->wei.axis[i] = -a->stride * p->wei.axis[i];
        f->dst.axis[i] *= a->stride;
    }
    return has_taps;
}

// ----------------------------------------------------------------------------------------------------------- planning

double fc_layer_cost_memory(const fc_request *r) {
    const fc_problem *p = &((const fc_layer_gradient *)r->op->problem)->weight;
    const double pixels = (double)p->axis[0].in * (double)p->axis[1].in * (double)p->axis[2].in;
    const double planes = 2 * pixels + (double)fc_positions(p); // the input twice, and the output
    const double bytes = (double)p->batch * (double)p->groups * planes * (double)r->kernels->element;
    return bytes > 0.5 * (double)r->options->machine.l2 ? fc_cost_weights(bytes, r->options) : 0;
}

// Of one gradient after the other, each by the best of its algorithms; the second reads the output's gradient anew.
double fc_layer_cost_apart(const fc_request *r) {
    const fc_layer_gradient *g = r->op->problem;
    const fc_verdict weight = r->planner->ask(&(fc_op){FC_CONV, &g->weight}, r->options);
    const fc_verdict input = r->planner->ask(&(fc_op){FC_CONV, &g->input}, r->options);
    const double elements = (double)g->weight.batch * (double)g->weight.groups * (double)fc_positions(&g->weight);
    return weight.cost + input.cost + weight.packing + input.packing +
           fc_cost_weights(elements * (double)r->kernels->element, r->options) + 0.5 * fc_layer_cost_memory(r);
}

// Of a layer whose weight gradient is cut so.
static const char *refusal(const fc_problem *p, const fc_kernels *k, int over_channels) {
    if (over_channels && p->src.group != 1) return "input and gradient are laid out differently";
    if (!over_channels && (p->src.axis[2] != 1 || p->dst.axis[2] != 1)) return "columns are not neighbours in memory";
    if (!over_channels && p->axis[2].stride > 2) return "outputs are more than two columns apart";
    const int64_t together = over_channels ? FC_BLOCK_VECTORS * k->vl : 1;
    const double row = (double)fc_taps(p) * (double)p->axis[2].in * (double)together;
    if (row > FC_ROW_MACS) return "a row takes more than 16 million multiply-adds";
    for (int i = 0; i < FC_AXES && !is_whole(p, k, over_channels); i++) {
        if (p->axis[i].stride > p->axis[i].kernel) return "some inputs have no tap";
        if (p->axis[i].stride > 1 && p->axis[i].dilation > 1) return "a strided kernel is dilated";
    }
    return phase_count(p, k, over_channels) > FC_MOST_PHASES ? "there are more than 64 phases" : NULL;
}

// How many times as long a multiply-add takes in steps as in the forward kernels: what is not, at either end of a line of taps,
// takes its share of more of them, and inputs two columns apart are as many more to read and write.
static double steps_pace(const fc_axis *w) {
    if (w->kernel == 3) return 0.6;
    return w->stride == 2 ? 1.0 : w->kernel == 5 ? 0.8 : 0.65;
}

// Of all gradients by steps, which read and write each of the three tensors once.
static double steps_cost(const fc_request *r) {
    const fc_layer_gradient *g = r->op->problem;
    const fc_problem *p = &g->weight;
    const fc_costs *c = &r->options->costs;
    const fc_grad_cut s = cut_of(g, r->kernels);
    return 3 * c->fixed +
           steps_pace(&p->axis[2]) * c->depthwise * 2 * fc_macs(p) / (double)p->groups * (double)s.units +
           fc_cost_elements((double)s.parts * (double)s.sums, c);
}

// The bias' gradient apart, which takes part in none of the comparisons.
static fc_verdict ask(const fc_request *r) {
    const fc_layer_gradient *g = r->op->problem;
    const fc_problem *p = &g->input;
    fc_options options = *r->options;
    fc_verdict v = {.cost = INFINITY};
    options.algorithm = FC_DEPTHWISE;
    if (p->batch == 0) v.refusal = "there are no images";
    else if (p->in_channels != 1 || p->out_channels != 1) v.refusal = "a group has more than one channel";
    if (!v.refusal) v = r->planner->ask_own(&(fc_op){FC_CONV, &g->weight}, &options);
    if (v.refusal) return v;
    const int over_channels = fc_grad_cut_of(&g->weight, r->kernels).over_channels;
    v.refusal = refusal(p, r->kernels, over_channels);
    v.cost += options.costs.fixed;
    const int steps = by_steps(p, r->kernels, over_channels);
    if (steps) v.cost = steps_cost(r);
    for (int64_t i = 0; !steps && !v.refusal && i < phase_count(p, r->kernels, over_channels); i++) {
        layer_phase phase;
        (void)phase_of(p, r->kernels, over_channels, i, &phase);
        const fc_verdict input = r->planner->ask_own(&(fc_op){FC_CONV, &phase.problem}, &options);
        v.refusal = input.refusal;
        v.cost += input.cost + input.packing;
    }
    v.cost += 0.5 * fc_layer_cost_memory(r);
    if (!v.refusal && r->options->algorithm == FC_AUTO && v.cost > fc_layer_cost_apart(r))
        v.refusal = "one after the other is faster";
    return v;
}

// The state of a plan.
typedef struct layer_phases {
    int64_t count, packed; // elements of packed weights
    layer_phase phases[];
} layer_phases;

static int64_t channels_of(const fc_grad_cut *s, int64_t vl) { return s->units * (s->over_channels ? vl : 1); }

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)r, (void)message;
    const fc_problem *p = &plan->layer_gradient.input;
    const fc_grad_cut cut = cut_of(&plan->layer_gradient, plan->kernels);
    const int64_t count = phase_count(p, plan->kernels, cut.over_channels);
    layer_phases *all = plan->state = calloc(1, sizeof *all + (size_t)count * sizeof(layer_phase));
    if (!all) return FC_NO_MEMORY;
    for (int64_t i = 0; i < count; i++)
        if (phase_of(p, plan->kernels, cut.over_channels, i, &all->phases[all->count])) {
            layer_phase *phase = &all->phases[all->count++];
            phase->packed = all->packed;
            all->packed += channels_of(&cut, plan->kernels->vl) * fc_taps(&phase->problem);
        }
    plan->id = FC_DEPTHWISE;
    return FC_OK;
}

// ----------------------------------------------------------------------------------------------------------- running

// Where in shared scratch there is what, behind the sums of the weights' gradient: the bias' sums, [part][channel] in
// double, then zeros, as many as channels, for a bias, and packed weights, of each phase [vector of channels][tap][lane]
// over channels and [channel][tap] over pixels.  Of a thread's own, behind the sums over pixels, totals of some channels.
typedef struct layer_work {
    const fc_grad_cut *cut;
    int64_t channels; // whole vectors, over channels
    int64_t bias, zeros, weights, totals;
} layer_work;

// Some channels of a task.
typedef struct layer_job {
    const fc_plan *plan;
    const layer_work *work;
    const fc_grad_cut *cut;
    const char *grad;
    char *shared;
    int64_t part, first, last; // channels
} layer_job;

static layer_job job_of(const fc_stage *stage, const fc_call *call, int64_t index) {
    const layer_work *work = stage->context;
    const fc_grad_cut *cut = work->cut;
    const int64_t block = index % cut->blocks, each = cut->over_channels ? stage->plan->kernels->vl : 1;
    const int64_t channels = cut->problem->groups;
    return (layer_job){
        .plan = stage->plan,
        .work = work,
        .cut = cut,
        .grad = fc_operand(call, stage->at.wei),
        .shared = fc_operand(call, stage->at.shared),
        .part = index / cut->blocks,
        .first = fc_min(channels, block * cut->units / cut->blocks * each),
        .last = fc_min(channels, (block + 1) * cut->units / cut->blocks * each),
    };
}

static double *bias_sums(const layer_job *job, int64_t part) {
    return (double *)(job->shared + job->work->bias) + part * job->work->channels;
}

// Elements behind a phase's packed weights where those of a channel begin; over channels of the first of a vector.
static char *weights_at(const layer_job *job, const layer_phase *phase, int64_t channel) {
    const int64_t at = phase->packed + channel * fc_taps(&phase->problem);
    return job->shared + job->work->weights + at * job->plan->kernels->element;
}

static void pack_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const layer_job job = job_of(stage, call, index);
    const layer_phases *all = job.plan->state;
    const char *wei = fc_operand(call, stage->at.other[0]);
    const int64_t element = job.plan->kernels->element, vl = job.plan->kernels->vl;
    const int64_t lanes = job.cut->over_channels ? vl : 1, end = fc_round_up(job.last, lanes);
    memset(job.shared + job.work->zeros + job.first * element, 0, (size_t)((end - job.first) * element));
    for (int64_t i = 0; i < all->count; i++) {
        const layer_phase *phase = &all->phases[i];
        const fc_problem *p = &phase->problem;
        for (int64_t c = job.first; c < end; c += lanes) {
            char *to = weights_at(&job, phase, c);
            const int64_t some = fc_min(lanes, job.last - c), from = c * p->wei.group + phase->tap;
            if (some < lanes) memset(to, 0, (size_t)(fc_taps(p) * lanes * element));
            for (int64_t d = 0; d < p->axis[0].kernel; d++)
                for (int64_t h = 0; h < p->axis[1].kernel; h++, to += p->axis[2].kernel * lanes * element) {
                    const fc_rectangle copy = {
                        .src = wei + (from + d * p->wei.axis[0] + h * p->wei.axis[1]) * element,
                        .dst = to,
                        .rows = p->axis[2].kernel,
                        .columns = some,
                        .src_row = p->wei.axis[2],
                        .src_column = p->wei.group,
                        .dst_row = lanes,
                        .dst_column = 1,
                    };
                    job.plan->kernels->rectangle(&copy);
                }
        }
    }
}

// Output rows [h, end) of a plane.
typedef struct layer_rows {
    int64_t image, d, h, end;
} layer_rows;

// The next rows of a task, from flat row `row` on, which moves on; false at the end of the part.
static int next_rows(const layer_job *job, int64_t *row, layer_rows *rows) {
    const fc_grad_cut *s = job->cut;
    const fc_axis *d = &s->problem->axis[0], *h = &s->problem->axis[1];
    const int64_t end = (job->part + 1) * s->rows / s->parts;
    if (*row >= end || fc_must_stop()) return 0;
    const int64_t plane = *row / h->out;
    rows->image = plane / d->out;
    rows->d = plane % d->out;
    rows->h = *row % h->out;
    rows->end = fc_min(h->out, fc_min(rows->h + s->call, rows->h + end - *row));
    *row += rows->end - rows->h;
    return 1;
}

static int64_t first_row(const layer_job *job) { return job->part * job->cut->rows / job->cut->parts; }

// How many positions of a phase lie before position `end` of its axis.
static int64_t before(const layer_phase *phase, int axis, int64_t end) {
    return end > phase->at[axis] ? fc_ceil_div(end - phase->at[axis], phase->step[axis]) : 0;
}

// Rows [work->h, work->h + work->rows) of a phase.
static void phase_rows(const layer_job *job, const layer_phase *phase, fc_depthwise_rows work, const char *src,
                       char *dst) {
    const fc_kernels *k = job->plan->kernels;
    const fc_problem *p = &phase->problem;
    work.bias = job->shared + job->work->zeros;
    work.taps = fc_taps(p);
    if (job->cut->over_channels) {
        fc_problem some = *p;
        some.groups = job->last - job->first;
        work.problem = &some;
        work.weights = weights_at(job, phase, job->first);
        work.src = src;
        work.dst = dst;
        k->depthwise_channels(&work);
        return;
    }
    const fc_view *in = &job->plan->layer_gradient.input.dst, *out = &job->plan->layer_gradient.input.src;
    const int forward = p->direction == FC_FORWARD;
    work.problem = p;
    work.weights = weights_at(job, phase, 0);
    work.planes = forward ? job->last - job->first : 1;
    work.src_plane = in->group;
    work.dst_plane = out->group;
    for (work.channel = job->first; work.channel < job->last; work.channel += work.planes) {
        work.src = src + (work.channel - job->first) * in->group * k->element;
        work.dst = dst + (work.channel - job->first) * out->group * k->element;
        if (forward) k->depthwise_in_place(&work);
        else k->depthwise_phases(&work);
    }
}

// The inputs beside the outputs of the task: as many share them as share those.
static void input_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const layer_job job = job_of(stage, call, index);
    const layer_phases *all = job.plan->state;
    const fc_problem *p = &job.plan->layer_gradient.input;
    const fc_axis *depth = &p->axis[0], *height = &p->axis[1];
    const int64_t element = job.plan->kernels->element;
    char *dst = fc_operand(call, stage->at.dst);
    layer_rows rows;
    for (int64_t row = first_row(&job); next_rows(&job, &row, &rows);) {
        const int64_t d0 = fc_share(depth->in, rows.d, depth->out), d1 = fc_share(depth->in, rows.d + 1, depth->out);
        const int64_t h0 = fc_share(height->in, rows.h, height->out);
        const int64_t h1 = fc_share(height->in, rows.end, height->out);
        const char *src = job.grad + (rows.image * p->dst.outer + job.first * p->dst.group) * element;
        for (int64_t i = 0; i < all->count; i++) {
            const layer_phase *phase = &all->phases[i];
            fc_depthwise_rows work = {.h = before(phase, 1, h0)};
            work.rows = before(phase, 1, h1) - work.h;
            const int64_t at = rows.image * p->src.outer + job.first * p->src.group + phase->at[1] * p->src.axis[1] +
                               phase->at[2] * p->src.axis[2];
            for (work.d = before(phase, 0, d0); work.d < before(phase, 0, d1) && work.rows > 0; work.d++) {
                const int64_t plane = phase->at[0] + work.d * phase->step[0];
                phase_rows(&job, phase, work, src, dst + (at + plane * p->src.axis[0]) * element);
            }
        }
    }
}

static void add_totals(const layer_job *job, const void *totals, double *sums) {
    for (int64_t c = job->first; c < job->last; c++)
        sums[c] += job->plan->kernels->dtype == FC_F32 ? (double)((const float *)totals)[c - job->first]
                                                       : ((const double *)totals)[c - job->first];
}

static void bias_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const layer_job job = job_of(stage, call, index);
    const fc_kernels *k = job.plan->kernels;
    const fc_problem *p = job.cut->problem;
    void *totals = (char *)fc_own_scratch(call, thread) + job.work->totals;
    double *sums = bias_sums(&job, job.part);
    for (int64_t c = job.first; c < job.last; c++) sums[c] = 0;
    const int over_channels = job.cut->over_channels;
    const int64_t width = p->axis[2].out, adjoin = p->dst.axis[1] == width * p->dst.axis[2];
    const int64_t most = over_channels ? fc_max(1, adjoin * FC_CHAIN / width) : INT64_MAX; // rows of a call
    layer_rows rows;
    for (int64_t row = first_row(&job); next_rows(&job, &row, &rows);) {
        for (int64_t h = rows.h, some; h < rows.end; h += some) {
            some = fc_min(rows.end - h, most);
            const int64_t at =
                rows.image * p->dst.outer + job.first * p->dst.group + rows.d * p->dst.axis[0] + h * p->dst.axis[1];
            const fc_fold fold = {
                .kind = FC_FOLD_SUM,
                .groups = over_channels ? 1 : job.last - job.first,
                .rows = over_channels ? some * width
                        : adjoin      ? 1
                                      : some,
                .columns = over_channels ? job.last - job.first
                           : adjoin      ? some * width
                                         : width,
                .group = p->dst.group,
                .row = over_channels ? p->dst.axis[2] : p->dst.axis[1],
                .column = 1,
                .src = job.grad + at * k->element,
                .total = totals,
            };
            (over_channels ? k->fold_columns : k->fold_all)(&fold);
            add_totals(&job, totals, sums);
        }
    }
}

// Rows of steps: the sums of the weights' gradient and the inputs' gradient, and the bias' sums of as many rows as a chain may
// be long.
static void steps_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const layer_job job = job_of(stage, call, index);
    const layer_phases *all = job.plan->state;
    const fc_grad_cut *s = job.cut;
    const fc_kernels *k = job.plan->kernels;
    const fc_problem *p = s->problem;
    const fc_view *result = &job.plan->layer_gradient.input.src;
    const int64_t element = k->element, steps = steps_of(&p->axis[1]), first = first_step(&p->axis[1]);
    const int64_t most = fc_max(1, FC_CHAIN / p->axis[2].out), end = (job.part + 1) * s->rows / s->parts;
    const int64_t vectors = fc_ceil_div(job.last - job.first, k->vl);
    fc_depthwise_steps work = {
        .problem = p,
        .result = result,
        .weights = weights_at(&job, all->phases, job.first),
        .channels = job.last - job.first,
        .sums = job.shared + (job.part * s->sums + job.first * fc_taps(p)) * element,
        .totals = (char *)fc_own_scratch(call, thread) + job.work->totals,
    };
    memset(work.sums, 0, (size_t)(vectors * s->vector * element));
    double *sums = bias_sums(&job, job.part);
    for (int64_t c = job.first; c < job.last; c++) sums[c] = 0;
    for (int64_t row = first_row(&job), some; row < end && !fc_must_stop(); row += some) {
        const int64_t image = row / steps, at = row % steps;
        some = fc_min(fc_min(steps - at, end - row), most);
        work.src = (const char *)fc_operand(call, stage->at.src) + (image * p->src.outer + job.first) * element;
        work.grad = job.grad + (image * p->dst.outer + job.first) * element;
        work.dst = (char *)fc_operand(call, stage->at.dst) + (image * result->outer + job.first) * element;
        work.row = first + at;
        work.end = work.row + some;
        memset(work.totals, 0, (size_t)(vectors * k->vl * element));
        k->depthwise_steps(&work);
        add_totals(&job, work.totals, sums);
    }
}

// The bias' parts, in their order, as weight_depthwise.c adds those of the weights.
static void bias_part_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const layer_job job = job_of(stage, call, index);
    char *dst = (char *)fc_operand(call, stage->at.dst) + job.plan->layer_gradient.second * job.plan->kernels->element;
    for (int64_t c = job.first; c < job.last; c++) {
        double sum = 0;
        for (int64_t part = 0; part < job.cut->parts; part++) sum += bias_sums(&job, part)[c];
        if (job.plan->kernels->dtype == FC_F32) ((float *)dst)[c] = (float)sum;
        else ((double *)dst)[c] = sum;
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const fc_layer_gradient *g = &plan->layer_gradient;
    const fc_kernels *k = plan->kernels;
    const fc_places at = list->at;
    const fc_grad_cut cut = cut_of(g, k), *kept = fc_list_keep(list, &cut, sizeof cut);
    const int64_t channels = channels_of(&cut, k->vl), most = fc_ceil_div(cut.units, cut.blocks);
    layer_work work = {.cut = kept, .channels = channels};
    work.bias = (int64_t)fc_align((size_t)fc_grad_shared_bytes(&cut, k));
    work.zeros = work.bias + (int64_t)fc_align((size_t)(cut.parts * channels) * sizeof(double));
    work.weights = work.zeros + (int64_t)fc_align((size_t)(channels * k->element));
    work.totals = (int64_t)fc_align((size_t)fc_grad_own_bytes(&cut, k));
    const int64_t packed = ((const layer_phases *)plan->state)->packed * k->element;
    fc_list_scratch(list, (size_t)(work.weights + packed),
                    (size_t)(work.totals + fc_round_up(most * (cut.over_channels ? k->vl : 1), k->vl) * k->element));
    const layer_work *context = fc_list_keep(list, &work, sizeof work);
    if (!kept || !context) return;
    fc_list_stage(list, plan, pack_task, cut.blocks, context);
    if (by_steps(&g->weight, k, cut.over_channels)) {
        fc_list_stage(list, plan, steps_task, cut.parts * cut.blocks, context);
    } else {
        list->at.dst = at.further;
        fc_grad_sum_stage(plan, kept, list);
        list->at.dst = at.dst;
        list->order = FC_TOGETHER;
        fc_list_stage(list, plan, input_task, cut.parts * cut.blocks, context);
        list->order = FC_TOGETHER;
        if (g->second >= 0) fc_list_stage(list, plan, bias_task, cut.parts * cut.blocks, context);
    }
    list->order = FC_AFTER;
    list->at.dst = at.further;
    fc_grad_part_stage(plan, kept, list);
    list->order = FC_BESIDE;
    if (g->second >= 0) fc_list_stage(list, plan, bias_part_task, cut.blocks, context);
    list->order = FC_AFTER;
    list->at = at;
}

static const char *form(const fc_plan *plan) {
    return fc_grad_cut_of(&plan->layer_gradient.weight, plan->kernels).over_channels ? "over channels" : "over pixels";
}

const fc_kind fc_kind_layer_in_place = {
    .name = "depthwise",
    .traits = FC_SERVES_INPUT | FC_SERVES_WEIGHT,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .stages = stages,
    .form = form,
};
