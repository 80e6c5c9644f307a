// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise.c - one input channel per group, or a few. There is little to multiply as matrices; what counts is to read and
// write each element once, so vectors run along whatever is contiguous.
//
//   over pixels    one input channel per group, any number of outputs: a task is some rows of some groups, vectors along
//                  the row. Contiguous rows are read where they lie; others are first copied, zero-padded and split into
//                  the phases of the stride (padded.c), which leaves neither borders nor strides to the kernel, but takes
//                  as long as the sums
//   tall kernels   of one input channel or a few, whose rows are copied, too: sums are then by far the most
//   over channels  a task is some rows of all channels, vectors over the channels; as many outputs as inputs per group,
//                  a power of two that does not exceed a vector. Where pixels are so far apart in memory that those of a
//                  patch share few sets of L1, a task copies its rows first
#include "kernels/depthwise.h"
#include "conv/activate.h"
#include "conv/padded.h"

// Elements of a task: padded rows that stay in L1 (over pixels), or a share of the work (over channels).
enum { FC_PADDED_ELEMENTS = 4096, FC_ROWS_ELEMENTS = 16384, FC_PADDED_BYTES = 4 << 20, FC_SLACK = FC_MAX_NR };
// Columns of a span are a multiple of what a body covers; multiply-adds that make one worth while, some milliseconds.
enum { FC_SPAN = 4 * FC_MAX_NR, FC_CHANNELS_SPAN = 4, FC_SPAN_MACS = 1 << 24 };
// Rows that a body computes together, and multiply-adds that make a part worth while, a tenth of a second at most.
enum { FC_BODY_ROWS = 7, FC_CHANNELS_ROWS = 2, FC_PART_MACS = 1 << 30 };
// Over channels: outputs of a row that a body computes together, and elements by which copied pixels are further apart.
enum { FC_CHANNELS_PIXELS = 4, FC_APART = 16 };

// Tall kernels: their least taps, outputs of a row, and elements of padded rows, which stay in L2.
enum { FC_TALL_TAPS = 36, FC_TALL_COLUMNS = 64, FC_TALL_ELEMENTS = 65536 };

static int over_channels(const fc_problem *p) {
    const int64_t size = p->in_channels;
    const int adjoin = p->src.group == size && p->dst.group == size && p->src.channel == 1 && p->dst.channel == 1;
    return p->out_channels == size && (size & (size - 1)) == 0 &&
           (adjoin || (size == 1 && p->src.group == 1 && p->dst.group == 1)) && p->groups > 1;
}

// Over pixels: whether a tile of six rows shares most of its inputs, so that it pays to copy them.
static int tall(const fc_problem *p) {
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    return !over_channels(p) && h->kernel >= FC_STENCIL_ROWS && fc_taps(p) >= FC_TALL_TAPS && h->stride == 1 &&
           w->stride == 1 && h->dilation == 1 && w->dilation == 1 && w->out >= FC_TALL_COLUMNS &&
           !(p->in_channels == 1 && fc_depthwise_is(p, 7, 1)) && fc_padded_fits(p, FC_PADDED_BYTES / p->in_channels);
}

// Over pixels: whether rows are read where they lie.
static int in_place(const fc_problem *p) { return p->src.axis[2] == 1 && !tall(p); }

// Of tall kernels as many rows as copying them takes little beside; they are an odd number of cache lines apart.
static fc_padded tall_rows(const fc_problem *p) {
    const int64_t extra = p->axis[1].kernel - 1, planes = p->in_channels * p->axis[0].kernel;
    const int64_t width = fc_round_up(p->axis[2].out + p->axis[2].kernel - 1, 16) | 16;
    const int64_t most = fc_max(extra, FC_TALL_ELEMENTS / (width * planes) - extra);
    const int64_t rows = fc_round_up(fc_min(most, p->axis[1].out), FC_STENCIL_ROWS);
    const fc_padded s = {
        .rows = rows, .rows_extra = extra, .width = width, .pixel = 1, .plane = (rows + extra) * width};
    return fc_padded_of_planes(s, planes, FC_SLACK);
}

static fc_padded padded_of(const fc_problem *p) {
    if (tall(p)) return tall_rows(p);
    const int64_t width = fc_padded_rows(p, 1, 1, 1, 0).width;
    return fc_padded_rows(p, fc_max(1, fc_min(p->axis[1].out, FC_PADDED_ELEMENTS / width)), 1, 1, FC_SLACK);
}

// Over channels: inputs of `count` outputs of an axis.
static int64_t reach(const fc_axis *a, int64_t count) {
    return fc_min(a->in, (count - 1) * a->stride + (a->kernel - 1) * a->dilation + 1);
}

// Bytes of the copy of the inputs of so many rows.
static double copy_bytes(const fc_problem *p, const fc_kernels *k, int64_t rows) {
    return (double)(reach(&p->axis[0], 1) * reach(&p->axis[1], rows)) * (double)p->axis[2].in *
           (double)((p->groups * p->in_channels + FC_APART) * k->element);
}

// Over channels: the output rows of a task that copies its inputs, or 0 where they are read where they lie. Where pixels
// share one set or two, the copy takes a half to a fifth of the time; where they share four, it saved what it took.
static int64_t copied_rows(const fc_problem *p, const fc_kernels *k, const fc_machine *machine) {
    const int64_t rows = reach(&p->axis[1], FC_CHANNELS_ROWS), columns = reach(&p->axis[2], FC_CHANNELS_PIXELS);
    const int64_t bytes = p->src.axis[2] * k->element, period = fc_max(1, machine->l1 / machine->l1_ways);
    if (!over_channels(p) || fc_taps(p) == 1 || 2 * bytes % period != 0) return 0;
    if (fc_cost_aliases(machine, bytes, rows * columns) == 1) return 0;
    int64_t most = p->axis[1].out;
    while (most > FC_CHANNELS_ROWS && copy_bytes(p, k, most) > 0.4 * (double)machine->l2) most = fc_ceil_div(most, 2);
    return copy_bytes(p, k, most) > 0.8 * (double)machine->l2 ? 0 : fc_round_up(most, FC_CHANNELS_ROWS);
}

static const char *refuse(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    if (over_channels(p) && p->in_channels <= k->vl) return NULL;
    if (tall(p)) return NULL;
    if (p->in_channels != 1) return "a group has more than one input channel";
    if (p->dst.axis[2] != 1 && !in_place(p)) return "neither rows nor channels of the output are contiguous";
    if (!in_place(p) && !fc_padded_fits(p, FC_PADDED_BYTES)) return "the input of one output row exceeds 4 MiB";
    return NULL;
}

static int is_unrolled(const fc_problem *p, const fc_kernels *k) {
#define FC_IS(body, taps, apart) || fc_depthwise_is(p, taps, apart)
    return k->dtype == FC_F32 ? 0 FC_DEPTHWISE_LIST(FC_IS, 0) : fc_depthwise_is(p, 3, 1);
#undef FC_IS
}

// In place by a body that is unrolled: of a patch's rows beyond the last some are computed, too; a vector that ends half
// empty takes six tenths of the time where vectors have halves; and one is stored in the time of some copies.
static double cost_unrolled(const fc_problem *p, const fc_kernels *k, const fc_costs *c) {
    const int64_t planes = p->batch * p->groups * p->out_channels * p->axis[0].out;
    const int64_t height = p->axis[1].out, width = p->axis[2].out, rest = width % k->vl;
    const double rows = (double)planes * 0.5 * (double)(height + fc_round_up(height, FC_BODY_ROWS));
    const int near = p->axis[2].stride == 1, halves = near && k->vl > 8 && rest > 0 && 2 * rest <= k->vl;
    const double vectors = (double)fc_ceil_div(width, k->vl), computed = vectors - 0.4 * halves;
    const double each = (near ? 0.43 : 1.0) * (k->vl > 8 ? 1.0 : 1.5); // in few registers weights are loaded again
    return rows * (c->depthwise * each * computed * (double)fc_taps(p) + 1.7 * c->copied * vectors);
}

// Over channels of small groups: in 32 registers what is spread of an input meets all taps of a row that see it, in windows of
// outputs which the last of a row may fill in part.
static double cost_of_groups(const fc_axis *w, const fc_kernels *k) {
    if (!fc_many_registers(k) || w->kernel == 1 || w->dilation > 1 || w->stride > 2) return k->vl > 8 ? 1.0 : 1.3;
    const double windows = (double)fc_round_up(w->out, 8 / w->stride) / (double)w->out;
    return (w->stride == 1 ? 0.47 : 0.8) * (0.5 + 0.5 * windows);
}

// Two loads for each multiply-add, or several where outputs are further than two columns apart, and each vector of outputs
// stored once.
static double cost(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const int64_t run = over_channels(p) ? p->groups * p->in_channels : p->axis[2].out;
    if (!over_channels(p) && in_place(p) && p->dst.axis[2] == 1 && k->vl > 1 && is_unrolled(p, k))
        return c->fixed + cost_unrolled(p, k, c);
    const double vectors = fc_macs(p) / (double)run * (double)fc_ceil_div(run, k->vl);
    const int64_t apart = over_channels(p) || !in_place(p) ? 1 : fc_min(p->axis[2].stride, 8);
    double copy = 0;
    if (!over_channels(p) && !in_place(p)) {
        const fc_padded s = padded_of(p);
        const double tasks = (double)(p->batch * p->groups * p->axis[0].out * fc_ceil_div(p->axis[1].out, s.rows));
        copy = tasks * fc_cost_runs((double)s.elements, s.width, k, c);
    }
    if (p->dst.axis[2] != 1 && !over_channels(p)) copy += fc_cost_elements(fc_macs(p) / (double)fc_taps(p), c);
    const int64_t rows = copied_rows(p, k, &r->options->machine);
    if (rows) {
        const double tasks = (double)(p->batch * p->axis[0].out * fc_ceil_div(p->axis[1].out, rows));
        copy += fc_cost_runs(tasks * copy_bytes(p, k, rows) / (double)k->element, p->groups * p->in_channels, k, c);
    }
    // Inputs are spread, or picked, or loaded for each tap, in place across cache lines, or once for all that see them.
    const fc_axis *w = &p->axis[2];
    const int window = over_channels(p) && w->stride == 1 && w->dilation == 1 && w->kernel > 1;
    const int loaded = k->vl > 1 && !window && (over_channels(p) || in_place(p)) && !is_unrolled(p, k);
    const double once = k->vl == 1           ? 1.0
                        : tall(p)            ? 0.65
                        : !is_unrolled(p, k) ? 0.5
                        : !over_channels(p)  ? 0.43
                        : w->stride == 1     ? 0.35
                                             : 0.48;
    const double each = tall(p)                   ? once
                        : p->in_channels > 1      ? cost_of_groups(w, k)
                        : apart > 2               ? (k->vl > 1 ? 2.5 : 2.0) * (double)apart
                        : apart == 2 && k->vl > 1 ? (loaded ? 2.0 : 1.0)
                        : loaded                  ? 0.9
                                                  : once;
    return c->fixed + c->depthwise * vectors * each + copy +
           fc_cost_runs(vectors / (double)(fc_taps(p) * p->in_channels), 1, k, c);
}

// Over pixels weights are read one by one, and need stand nowhere in particular.
static size_t bias_bytes(const fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    const int64_t bytes = p->groups * p->out_channels * plan->kernels->element;
    return over_channels(p) ? fc_align((size_t)bytes) : (size_t)bytes;
}

// Packed: bias, then weights: [vector of channels][tap][input of the group][lane] over channels,
// [group * out][input of the group][tap] over pixels, where taps of tall kernels follow each other down a column.
static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)r, (void)message;
    const fc_problem *p = &plan->problem;
    const int64_t outs = p->groups * p->out_channels, vl = plan->kernels->vl;
    const int64_t rows = over_channels(p) ? fc_round_up(outs, vl) : outs;
    plan->packing[0] = over_channels(p);
    plan->packed_bytes = bias_bytes(plan) + (size_t)(rows * p->in_channels * fc_taps(p) * plan->kernels->element);
    if (over_channels(p) || in_place(p)) return FC_OK;
    // Where their inputs lie.
    int64_t *taps = plan->state = malloc(sizeof(int64_t) * (size_t)(p->in_channels * fc_taps(p)));
    if (!taps) return FC_NO_MEMORY;
    const fc_padded padded = padded_of(p);
    fc_padded_offsets(p, &padded, p->in_channels, taps);
    return FC_OK;
}

static size_t panel_bytes(const fc_plan *plan) {
    if (over_channels(&plan->problem) || in_place(&plan->problem)) return 0;
    return fc_align((size_t)(padded_of(&plan->problem).elements * plan->kernels->element));
}

static const char *weights_of(const fc_plan *plan, const void *packed) {
    return (const char *)packed + bias_bytes(plan);
}

// The taps of output `o` for input channel `q` of its group, `step` elements apart in `out`.
static inline void pack_taps(const fc_plan *plan, const char *wei, int64_t o, int64_t q, char *out, int64_t step,
                             const int64_t element) {
    const fc_problem *p = &plan->problem;
    const int64_t high = p->axis[1].kernel, wide = p->axis[2].kernel, down = tall(p) ? 1 : wide;
    wei += (o / p->out_channels * p->wei.group + o % p->out_channels * p->wei.outer + q * p->wei.channel) * element;
    for (int64_t d = 0; d < p->axis[0].kernel; d++)
        for (int64_t h = 0; h < p->axis[1].kernel; h++) {
            const char *in = wei + (d * p->wei.axis[0] + h * p->wei.axis[1]) * element;
            for (int64_t w = 0; w < wide; w++) {
                const int64_t tap = d * high * wide + h * down + w * (down == 1 ? high : 1);
                memcpy(out + tap * step * element, in + w * p->wei.axis[2] * element, (size_t)element);
            }
        }
}

static inline void pack_weights(const fc_plan *plan, const char *wei, char *out, const int64_t element) {
    const fc_problem *p = &plan->problem;
    const int64_t outs = p->groups * p->out_channels, taps = fc_taps(p), size = p->in_channels, vl = plan->kernels->vl;
    if (!over_channels(p)) {
        for (int64_t o = 0; o < outs; o++)
            for (int64_t q = 0; q < size; q++, out += taps * element) pack_taps(plan, wei, o, q, out, 1, element);
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

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    (void)threads;
    const int64_t element = plan->kernels->element;
    const size_t bytes = (size_t)(plan->problem.groups * plan->problem.out_channels * element);
    char *weights = (char *)packed + bias_bytes(plan);
    if (bias) memcpy(packed, bias, bytes);
    else memset(packed, 0, bytes);
    if (element == sizeof(float)) pack_weights(plan, wei, weights, sizeof(float));
    else pack_weights(plan, wei, weights, sizeof(double));
    return FC_OK;
}

// How the work is cut into tasks.
typedef struct depthwise_split {
    int64_t parts;  // tasks that share the rows of a plane
    int64_t shares; // over pixels: tasks that share the groups
    int64_t spans;  // that a row is cut into, which is done in place only
    int64_t unit;   // rows that are not shared by the tasks of a thread
    int64_t each;   // parts that a thread has, where all have as many; or all of them
    int copies;     // over channels: the rows of a task
    fc_padded padded;
} depthwise_split;

// A task at work.
typedef struct depthwise_job {
    const fc_plan *plan;
    const depthwise_split *split;
    const char *src, *packed, *residual;
    char *dst;
} depthwise_job;

static depthwise_job job_of(const fc_stage *stage, const fc_call *call) {
    return (depthwise_job){
        .plan = stage->plan,
        .split = stage->context,
        .src = fc_operand(call, stage->at.src),
        .packed = fc_operand(call, stage->at.wei),
        .residual = fc_operand(call, stage->at.residual),
        .dst = fc_operand(call, stage->at.dst),
    };
}

// Of a part of the rows of a plane: threads have even shares of them, as of the pixels of the layers before and behind, and
// each cuts its own.
static int64_t first_row(const depthwise_split *s, int64_t out, int64_t part) {
    const int64_t threads = s->parts / s->each, own = part / s->each;
    const int64_t first = fc_share(out, own, threads), rows = fc_share(out, own + 1, threads) - first;
    return first + fc_min(rows, s->unit * fc_share(fc_ceil_div(rows, s->unit), part % s->each, s->each));
}

// The rows of a task, but for what differs between the forms.
static fc_depthwise_rows rows_of(const depthwise_job *job, int64_t part) {
    const fc_problem *p = &job->plan->problem;
    fc_depthwise_rows work = {.problem = p, .bias = job->packed, .taps = fc_taps(p)};
    work.weights = weights_of(job->plan, job->packed);
    work.h = first_row(job->split, p->axis[1].out, part);
    work.rows = first_row(job->split, p->axis[1].out, part + 1) - work.h;
    return work;
}

static void aim(const depthwise_job *job, fc_depthwise_rows *work, int64_t dst) {
    const int64_t element = job->plan->kernels->element;
    work->dst = job->dst + dst * element;
    work->residual = job->residual ? job->residual + dst * element : NULL;
}

// Of the rows that have been computed, in each of `channels`, `apart` elements from each other.
static void activate(const depthwise_job *job, const fc_depthwise_rows *work, int64_t channels, int64_t apart) {
    const fc_problem *p = work->problem; // of a span, perhaps
    if (!fc_activates(job->plan)) return;
    char *first = (char *)work->dst + work->h * p->dst.axis[1] * job->plan->kernels->element;
    fc_activate_box(job->plan, first,
                    &(fc_box){{channels, work->rows, p->axis[2].out}, {apart, p->dst.axis[1], p->dst.axis[2]}});
}

// The columns of a span are a multiple of this, so that each output is in the same lane of the same body.
static int64_t span_unit(const fc_problem *p) { return over_channels(p) ? FC_CHANNELS_SPAN : FC_SPAN; }

// A span is a problem of fewer columns, further on in the image: from column *x on. It is made in *part, unless it is all.
static const fc_problem *span_of(const fc_problem *p, const depthwise_split *s, int64_t span, fc_problem *part,
                                 int64_t *x) {
    const int64_t out = p->axis[2].out, unit = span_unit(p);
    *x = 0;
    if (s->spans == 1) return p;
    *part = *p;
    *x = fc_min(out, fc_round_up(fc_share(out, span, s->spans), unit));
    part->axis[2].pad -= *x * p->axis[2].stride;
    part->axis[2].out = fc_min(out, fc_round_up(fc_share(out, span + 1, s->spans), unit)) - *x;
    return part;
}

// The axis of the inputs of `count` outputs from `first` on; their first is *low.
static fc_axis inputs_of(const fc_axis *a, int64_t first, int64_t count, int64_t *low) {
    fc_axis part = *a;
    const int64_t at = first * a->stride - a->pad;
    *low = fc_clamp(0, at, a->in);
    part.in = fc_clamp(*low, at + (count - 1) * a->stride + (a->kernel - 1) * a->dilation + 1, a->in) - *low;
    part.pad += *low;
    return part;
}

// Copies the inputs of the rows at hand; the problem is then that of the copy.
static void copy_rows(const depthwise_job *job, fc_depthwise_rows *work, fc_problem *p, char *copy) {
    const int64_t element = job->plan->kernels->element;
    const fc_view from = p->src;
    int64_t z, y;
    p->axis[0] = inputs_of(&p->axis[0], work->d, 1, &z);
    p->axis[1] = inputs_of(&p->axis[1], work->h, work->rows, &y);
    p->src.axis[2] = p->groups * p->in_channels + FC_APART;
    p->src.axis[1] = p->src.axis[2] * p->axis[2].in;
    p->src.axis[0] = p->src.axis[1] * p->axis[1].in;
    fc_rectangle row = {.rows = p->axis[2].in, .columns = p->groups * p->in_channels, .src_column = 1, .dst_column = 1};
    row.src_row = from.axis[2];
    row.dst_row = p->src.axis[2];
    row.dst = copy;
    for (int64_t d = 0; d < p->axis[0].in; d++)
        for (int64_t h = 0; h < p->axis[1].in; h++) {
            row.src = (const char *)work->src + ((z + d) * from.axis[0] + (y + h) * from.axis[1]) * element;
            job->plan->kernels->rectangle(&row);
            row.dst = (char *)row.dst + p->src.axis[1] * element;
        }
    work->src = copy;
}

static void channels_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const depthwise_job job = job_of(stage, call);
    const fc_problem *p = &job.plan->problem;
    fc_problem rows = *p, part;
    int64_t x;
    const int64_t span = fc_digit(&index, job.split->spans);
    fc_depthwise_rows work = rows_of(&job, fc_digit(&index, job.split->parts));
    work.d = fc_digit(&index, p->axis[0].out);
    work.src = fc_at(job.src, index * p->src.outer, p->types.source);
    if (job.split->copies) copy_rows(&job, &work, &rows, fc_own_scratch(call, thread));
    work.problem = span_of(&rows, job.split, span, &part, &x);
    aim(&job, &work, index * p->dst.outer + work.d * p->dst.axis[0] + x * p->dst.axis[2]);
    job.plan->kernels->depthwise_channels(&work);
    activate(&job, &work, p->groups * p->in_channels, 1);
}

// Over pixels: the rows of a task in some groups of an image, of which `group` is the first.
typedef struct depthwise_planes {
    depthwise_job job;
    fc_problem part;
    fc_depthwise_rows rows;
    int64_t image, x, group, last;
} depthwise_planes;

static void planes_of(const fc_stage *stage, const fc_call *call, int64_t index, depthwise_planes *t) {
    t->job = job_of(stage, call);
    const depthwise_split *s = t->job.split;
    const fc_problem *p = &stage->plan->problem;
    const fc_problem *span = span_of(p, s, fc_digit(&index, s->spans), &t->part, &t->x);
    t->rows = rows_of(&t->job, fc_digit(&index, s->parts));
    t->rows.problem = span;
    const int64_t share = fc_digit(&index, s->shares);
    t->group = fc_share(p->groups, share, s->shares);
    t->last = fc_share(p->groups, share + 1, s->shares);
    t->rows.d = fc_digit(&index, p->axis[0].out);
    t->image = index;
}

// Where the input of a group lies, and its output `out`.
static const void *group_src(const depthwise_planes *t, int64_t group) {
    const fc_problem *p = &t->job.plan->problem;
    return fc_at(t->job.src, t->image * p->src.outer + group * p->src.group, p->types.source);
}

static void aim_at(depthwise_planes *t, int64_t group, int64_t out) {
    const fc_problem *p = &t->job.plan->problem;
    t->rows.channel = group * p->out_channels + out;
    aim(&t->job, &t->rows,
        t->image * p->dst.outer + group * p->dst.group + out * p->dst.channel + t->rows.d * p->dst.axis[0] +
            t->x * p->dst.axis[2]);
}

// One output to a group: all groups at once. Several: those of a group.
static void in_place_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    depthwise_planes t;
    planes_of(stage, call, index, &t);
    const fc_problem *p = &stage->plan->problem;
    const int one = p->out_channels == 1;
    const int64_t groups = one ? t.last - t.group : 1;
    t.rows.planes = one ? groups : p->out_channels;
    t.rows.src_plane = one ? p->src.group : 0;
    t.rows.dst_plane = one ? p->dst.group : p->dst.channel;
    for (int64_t group = t.group; group < t.last && !fc_must_stop(); group += groups) {
        t.rows.src = group_src(&t, group);
        aim_at(&t, group, 0);
        stage->plan->kernels->depthwise_in_place(&t.rows);
        activate(&t.job, &t.rows, t.rows.planes, t.rows.dst_plane);
    }
}

static void padded_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    depthwise_planes t;
    planes_of(stage, call, index, &t);
    const fc_kernels *k = stage->plan->kernels;
    const fc_problem *p = &stage->plan->problem;
    const fc_padded *padded = &t.job.split->padded;
    char *planes = fc_own_scratch(call, thread);
    t.rows.src = planes;
    t.rows.pitch = padded->width;
    t.rows.tap_offset = stage->plan->state;
    fc_pad_copy copy = {
        .problem = p,
        .d = t.rows.d,
        .h = t.rows.h,
        .channels = p->in_channels,
        .rows = padded->rows + padded->rows_extra,
        .width = padded->width,
        .planes = planes,
    };
    fc_depthwise_fn *const kernel = tall(p) ? k->depthwise_tall : k->depthwise_padded;
    for (int64_t group = t.group; group < t.last; group++) {
        copy.src = group_src(&t, group);
        k->pad_copy_pixels(&copy);
        copy.bordered = 1; // the padding of the next group is where this one's is
        for (int64_t out = 0; out < p->out_channels && !fc_must_stop(); out++) {
            aim_at(&t, group, out);
            kernel(&t.rows);
            activate(&t.job, &t.rows, 1, 1);
        }
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_problem *p = &plan->problem;
    depthwise_split s = {.parts = 1, .shares = 1, .spans = 1, .unit = 1};
    int64_t rows, planes = p->batch * p->axis[0].out;
    if (over_channels(p)) {
        rows = copied_rows(p, plan->kernels, &plan->machine);
        s.copies = rows > 0;
        s.unit = fc_min(FC_CHANNELS_ROWS, fc_max(1, p->axis[1].out / threads));
        if (!s.copies) rows = FC_ROWS_ELEMENTS / (p->axis[2].out * p->groups * p->in_channels);
        rows = fc_round_up(fc_max(1, rows), s.unit);
    } else {
        int64_t elements = p->axis[1].out * p->axis[2].out;
        rows = FC_ROWS_ELEMENTS / p->axis[2].out;
        if (!in_place(p)) {
            s.padded = padded_of(p);
            s.unit = tall(p) ? FC_STENCIL_ROWS : 1;
            rows = s.padded.rows;
            elements = s.padded.elements;
        }
        const int64_t groups = fc_max(1, FC_ROWS_ELEMENTS / (elements * p->out_channels));
        s.shares = fc_ceil_div(p->groups, fc_max(1, fc_min(groups, p->groups / (4 * threads))));
        planes *= s.shares;
    }
    const int64_t units = fc_ceil_div(p->axis[1].out, s.unit);
    s.parts = fc_ceil_div(p->axis[1].out, fc_max(1, fc_min(p->axis[1].out, rows)));
    if (planes * s.parts < 8 * threads) s.parts = fc_min(units, fc_round_up(s.parts, threads));
    // Rows that are long under a long kernel are a task's work in parts, and may be all that there is to share; so are
    // many rows, but for those that a body computes together.
    double macs = fc_macs(p) / (double)fc_max(1, planes);
    if (tall(p)) s.parts = fc_max(s.parts, (int64_t)fmin((double)units, macs / FC_PART_MACS));
    else if (over_channels(p) || in_place(p)) {
        s.parts =
            fc_max(s.parts, (int64_t)fmin((double)fc_ceil_div(p->axis[1].out, FC_BODY_ROWS), macs / FC_PART_MACS));
        macs /= (double)fc_max(1, s.parts);
        s.spans = (int64_t)fmin((double)fc_ceil_div(p->axis[2].out, span_unit(p)), ceil(macs / FC_SPAN_MACS));
        s.spans = fc_max(1, s.spans);
    }
    s.parts = s.each = fc_max(1, fc_min(s.parts, units));
    const int64_t own = s.parts / threads; // no part is without rows
    if (planes == 1 && s.parts % threads == 0 && own <= fc_ceil_div(p->axis[1].out / threads, s.unit)) s.each = own;
    const int64_t rows_each = fc_ceil_div(p->axis[1].out, s.parts / s.each);
    const int64_t share = fc_min(rows_each, s.unit * fc_ceil_div(fc_ceil_div(rows_each, s.unit), s.each));
    const size_t copied = s.copies ? fc_align((size_t)copy_bytes(p, plan->kernels, share)) : 0;
    fc_list_scratch(list, 0, copied ? copied : panel_bytes(plan));
    const void *context = fc_list_keep(list, &s, sizeof s);
    const fc_stage_fn task = over_channels(p) ? channels_task : in_place(p) ? in_place_task : padded_task;
    fc_list_stage(list, plan, task, planes * s.parts * s.spans, context);
}

static const char *form(const fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    if (over_channels(p))
        return copied_rows(p, plan->kernels, &plan->machine) ? "over channels, copied" : "over channels";
    return in_place(p) ? "over pixels, in place" : tall(p) ? "over pixels, tall" : "over pixels";
}

const fc_kind fc_kind_depthwise = {
    .name = "depthwise",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .refuse = refuse,
    .cost = cost,
    .packing = fc_cost_packing,
    .layout = layout,
    .pack = pack,
    .stages = stages,
    .form = form,
};
