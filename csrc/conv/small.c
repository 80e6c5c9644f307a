// SPDX-License-Identifier: BSD-3-Clause
//
// small.c - convolutions of batches of small images, whose rows would fill a tile badly: a tile's rows are one position in
// many images, and each tap is a product of its own, which is left out where the tap sees nothing but padding.
//
//   dst[position][image][o] = sum over taps t that see the image, and channels c, of X[position + t][image][c] * W[t][c][o]
//
// X is a copy with channels last.  Of a 3x3 kernel on 2x2 pixels four taps of nine see the image.
//
// Such layers have many more weights than pixels.  Those of a call are packed by the task that multiplies by them, a chunk
// of input channels at a time, and so travel from memory once, where packing all of them first would write and read them
// again.
#include "conv/small.h"
#include "conv/activate.h"
#include "conv/winograd.h" // fc_odd_lines

// Pixels of all images, of which sums are kept; channels of a chunk, and taps of it whose places a stack has room for.
enum { FC_SMALL_PIXELS = 1024, FC_CHUNK = 128, FC_CHUNK_PLACES = 2048 };

// What is read and what is written, forward or from the gradient of dst to that of src.
typedef struct flow {
    const fc_view *from, *to;
    int64_t from_size[FC_AXES], to_size[FC_AXES];
    int64_t in, out; // channels
    fc_view wei;     // outer: of the channels that are written
    int backward;
} flow;

static flow flow_of(const fc_problem *p) {
    flow f = {.from = &p->src, .to = &p->dst, .in = p->in_channels, .out = p->out_channels, .wei = p->wei};
    f.backward = p->direction == FC_BACKWARD_INPUT;
    if (f.backward) {
        f = (flow){.from = &p->dst, .to = &p->src, .in = p->out_channels, .out = p->in_channels, .wei = p->wei};
        f.backward = 1;
        f.wei.outer = p->wei.channel;
        f.wei.channel = p->wei.outer;
    }
    for (int i = 0; i < FC_AXES; i++) {
        f.from_size[i] = f.backward ? p->axis[i].out : p->axis[i].in;
        f.to_size[i] = f.backward ? p->axis[i].in : p->axis[i].out;
    }
    return f;
}

static int64_t pixels_of(const int64_t size[FC_AXES]) { return size[0] * size[1] * size[2]; }

// The state of a plan.
typedef struct small {
    const fc_gemm_kernel *kernel; // over channels: images for rows
    int64_t pitch;                // of the copy, from image to image of a pixel
    int64_t rows;                 // tiles of images
    int64_t chunk, chunks;        // channels that are read
    int64_t parts;                // blocks of nr channels that are written
    // The first and the last tap that a position is written by, along each axis; filled in with the plan.
    int16_t first[FC_AXES][FC_SMALL_PIXELS], last[FC_AXES][FC_SMALL_PIXELS];
} small;

static const small *small_of(const fc_plan *plan) { return plan->state; }

static void shape(small *s, const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const flow f = flow_of(p);
    s->kernel = &r->kernels->gemm_channels;
    s->pitch = fc_odd_lines(f.in);
    s->rows = fc_ceil_div(p->batch, s->kernel->mr);
    s->chunk = fc_even(f.in, FC_CHUNK);
    s->chunks = fc_ceil_div(f.in, fc_max(1, s->chunk));
    s->parts = fc_ceil_div(f.out, s->kernel->nr);
}

int64_t fc_small_seen(const fc_axis *a, int64_t k, int64_t *end) {
    const int64_t from = k * a->dilation - a->pad; // of output 0
    *end = from < a->in ? fc_min(a->out, (a->in - 1 - from) / a->stride + 1) : 0;
    return from < 0 ? fc_ceil_div(-from, a->stride) : 0;
}

// Pairs along an axis.
static int64_t pairs_of(const fc_axis *a) {
    int64_t pairs = 0;
    for (int64_t k = 0, end; k < a->kernel; k++) {
        const int64_t first = fc_small_seen(a, k, &end);
        pairs += fc_max(0, end - first);
    }
    return pairs;
}

int64_t fc_small_pairs(const fc_problem *p) {
    return pairs_of(&p->axis[0]) * pairs_of(&p->axis[1]) * pairs_of(&p->axis[2]);
}

// The taps that each position along an axis is written by; whether all of them are.
static int find_taps(const fc_axis *a, int backward, int16_t *first, int16_t *last) {
    const int64_t size = backward ? a->in : a->out;
    for (int64_t i = 0; i < size; i++) last[i] = -1;
    for (int64_t k = 0, end; k < a->kernel; k++)
        for (int64_t out = fc_small_seen(a, k, &end); out < end; out++) {
            const int64_t to = backward ? fc_small_input(a, k, out) : out;
            if (last[to] < 0) first[to] = (int16_t)k;
            last[to] = (int16_t)k;
        }
    for (int64_t i = 0; i < size; i++)
        if (last[i] < 0) return 0;
    return 1;
}

const char *fc_small_refuses(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    if (r->options->algorithm != FC_AUTO) return "another algorithm was asked for";
    if (p->batch < 4) return "too few images";
    for (int i = 0; i < FC_AXES; i++)
        if (fc_max(p->axis[i].in, p->axis[i].out) > FC_SMALL_PIXELS || p->axis[i].kernel > FC_SMALL_KERNEL)
            return "too many pixels or taps";
    if (fc_taps(p) > FC_SMALL_KERNEL) return "too many taps";
    const int64_t in = p->axis[0].in * p->axis[1].in * p->axis[2].in, out = fc_positions(p);
    if (p->batch * (p->direction == FC_BACKWARD_INPUT ? fc_max(out / 4, in) : fc_max(in / 4, out)) > FC_SMALL_PIXELS)
        return "too many pixels";
    return p->in_channels == 0 || p->out_channels == 0 ? "no channels" : NULL;
}

void fc_small_copy(const fc_kernels *k, const fc_view *view, const int64_t size[FC_AXES], int64_t channels,
                   const void *image, void *pixels, int64_t pitch) {
    const int one = view->axis[1] == size[2] * view->axis[2]; // row
    const int64_t rows = one ? 1 : size[1], columns = one ? size[1] * size[2] : size[2];
    for (int64_t row = 0; row < size[0] * rows; row++) {
        const int64_t at = row / rows * view->axis[0] + row % rows * view->axis[1];
        const fc_rectangle work = {
            .src = (const char *)image + at * k->element,
            .dst = (char *)pixels + row * columns * pitch * k->element,
            .rows = columns,
            .columns = channels,
            .src_row = view->axis[2],
            .src_column = view->channel,
            .dst_row = pitch,
            .dst_column = 1,
        };
        k->rectangle(&work);
    }
}

// A batch is summed in another order than an image.
static const char *refusal(const fc_request *r) {
    if (!r->options->borrows) return "weights do not stay where they are";
    if (r->options->batch_invariant) return "an image's bits would depend on the batch";
    const char *const refusal = fc_small_refuses(r);
    const fc_problem *p = r->op->problem;
    int16_t first[FC_SMALL_PIXELS], last[FC_SMALL_PIXELS];
    for (int i = 0; i < FC_AXES && !refusal; i++)
        if (!find_taps(&p->axis[i], p->direction == FC_BACKWARD_INPUT, first, last))
            return "some of what is written is an empty sum";
    return refusal;
}

static fc_verdict ask(const fc_request *r) {
    fc_verdict v = {.refusal = refusal(r), .cost = INFINITY};
    if (v.refusal) return v;
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const flow f = flow_of(p);
    small s;
    shape(&s, r);
    const double groups = (double)p->groups, batch = (double)p->batch, pairs = (double)fc_small_pairs(p);
    const double m = batch / (double)s.rows, out = (double)(s.parts * s.kernel->nr);
    const double macs = groups * batch * pairs * (double)f.in * out * fmax(m, 4.0) / m;
    const double products = groups * pairs * (double)(s.rows * s.chunks * s.parts);
    const double weights = groups * (double)(fc_weights(p) * k->element);
    const double read = groups * batch * (double)(pixels_of(f.from_size) * f.in);
    const double written = groups * batch * (double)pixels_of(f.to_size) * out;
    v.cost = 2 * c->fixed + fc_cost_packing(r) + fmax(fc_cost_macs(macs, k, c), fc_cost_weights(weights, r->options)) +
             c->product * products + fc_cost_elements(read, c) +
             (f.to->channel == 1 ? 0 : fc_cost_elements(written, c));
    return v;
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    const fc_problem *p = &plan->problem;
    const flow f = flow_of(p);
    small *s = plan->state = malloc(sizeof *s);
    if (!s) return FC_NO_MEMORY;
    shape(s, r);
    for (int i = 0; i < FC_AXES; i++) (void)find_taps(&p->axis[i], f.backward, s->first[i], s->last[i]);
    plan->id = FC_DIRECT;
    plan->packing[0] = -2; // unlike whatever is packed in earnest
    plan->packed_bytes = sizeof(fc_borrowed);
    return FC_OK;
}

// ---------------------------------------------------------------------------------------------------------- weights

static int64_t chunk_start(const fc_plan *plan, int64_t chunk) {
    return fc_min(flow_of(&plan->problem).in, chunk * small_of(plan)->chunk);
}

// A chunk of a block of output channels: [tap][channel][nr].
static void pack_chunk(const fc_plan *plan, const char *wei, int64_t group, int64_t part, int64_t chunk, char *packed) {
    const fc_problem *p = &plan->problem;
    const flow f = flow_of(p);
    const small *s = small_of(plan);
    const int64_t taps = fc_taps(p), c0 = chunk_start(plan, chunk), count = chunk_start(plan, chunk + 1) - c0;
    fc_weight_order order = {
        .out_channels = f.out,
        .channels = f.in,
        .block = s->chunk,
        .taps = {p->axis[0].kernel, p->axis[1].kernel, p->axis[2].kernel},
        .view = f.wei,
        .tile = s->kernel->nr,
        .padded = 1,
    };
    int64_t places[FC_CHUNK_PLACES];
    if (!f.backward && fc_weights_adjoin(p) && count * taps <= FC_CHUNK_PLACES) {
        for (int64_t c = 0; c < count; c++)
            for (int64_t tap = 0; tap < taps; tap++) places[c * taps + tap] = (tap * count + c) * s->kernel->nr;
        order.places = places;
    }
    s->kernel->pack(&order, wei + group * p->wei.group * plan->kernels->element, packed, c0 * taps, (c0 + count) * taps,
                    part);
}

static void copy_bias(const fc_plan *plan, const void *bias, int64_t group, int64_t part, char *to) {
    const int64_t element = plan->kernels->element, nr = small_of(plan)->kernel->nr, out = flow_of(&plan->problem).out;
    const int64_t count = fc_min(nr, out - part * nr);
    memset(to, 0, (size_t)(nr * element));
    if (bias) memcpy(to, (const char *)bias + (group * out + part * nr) * element, (size_t)(count * element));
}

// ----------------------------------------------------------------------------------------------------------- stages

// Elements of the copy of a group: [pixel][image][channel].
static int64_t copy_elements(const fc_plan *plan) {
    return pixels_of(flow_of(&plan->problem).from_size) * plan->problem.batch * small_of(plan)->pitch;
}

// An image of a group.
static void copy_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const fc_plan *plan = stage->plan;
    const flow f = flow_of(&plan->problem);
    const small *s = small_of(plan);
    const int64_t element = plan->kernels->element, batch = plan->problem.batch;
    const int64_t image = task % batch, group = task / batch;
    const char *src = fc_operand(call, stage->at.src);
    char *copy = fc_operand(call, stage->at.shared);
    fc_small_copy(plan->kernels, f.from, f.from_size, f.in,
                  src + (group * f.from->group + image * f.from->outer) * element,
                  copy + (group * copy_elements(plan) + image * s->pitch) * element, batch * s->pitch);
}

// Where the scratch of a thread lies: the weights of a chunk, if they are borrowed, a bias, and sums
// [position][image][nr].
typedef struct small_share {
    size_t bias, sums, bytes;
} small_share;

static small_share share_of(const fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    const small *s = small_of(plan);
    const int64_t row = s->kernel->nr * plan->kernels->element;
    small_share share = {.bias = fc_align((size_t)(s->chunk * fc_taps(p) * row))};
    share.sums = share.bias + fc_align((size_t)row);
    share.bytes = share.sums + fc_align((size_t)(pixels_of(flow_of(p).to_size) * p->batch * row));
    return share;
}

typedef struct small_task {
    const fc_plan *plan;
    flow flow;
    const char *copy; // of the group
    char *sums;
    fc_gemm_tile tile; // with the weights of the tap at hand
    fc_run run;
    int64_t row_offset[FC_MAX_MR];
    int64_t channel, tap[FC_AXES];
    int begins, ends; // the channels at hand: the first, the last
} small_task;

// The tap at hand at one output position of all images.
static void multiply(small_task *t, const int64_t out[FC_AXES]) {
    const fc_plan *plan = t->plan;
    const fc_problem *p = &plan->problem;
    const small *s = small_of(plan);
    const int64_t element = plan->kernels->element;
    int64_t from = 0, to = 0, offset = 0;
    int first = t->begins, last = t->ends;
    for (int i = 0; i < FC_AXES; i++) {
        const int64_t in = fc_small_input(&p->axis[i], t->tap[i], out[i]), at = t->flow.backward ? in : out[i];
        from = from * t->flow.from_size[i] + (t->flow.backward ? out[i] : in);
        to = to * t->flow.to_size[i] + at;
        offset += at * t->flow.to->axis[i];
        first = first && t->tap[i] == s->first[i][at];
        last = last && t->tap[i] == s->last[i][at];
    }
    t->tile.first = first;
    t->tile.last = last;
    for (int64_t r = 0; r < s->rows; r++) {
        const int64_t image = r * p->batch / s->rows;
        t->tile.m = (r + 1) * p->batch / s->rows - image;
        t->tile.a = t->tile.ahead = t->copy + ((from * p->batch + image) * s->pitch + t->channel) * element;
        t->tile.sums = t->sums + (to * p->batch + image) * s->kernel->nr * element;
        for (int64_t i = 0; last && i < t->tile.m; i++) t->row_offset[i] = offset + (image + i) * t->flow.to->outer;
        s->kernel->run(&t->tile);
        if (last && fc_activates(plan)) fc_activate_tile(plan, &t->tile);
    }
}

// The tap at hand at all positions that see the image by it.
static void each_position(small_task *t) {
    int64_t first[FC_AXES], end[FC_AXES], out[FC_AXES];
    for (int i = 0; i < FC_AXES; i++) first[i] = fc_small_seen(&t->plan->problem.axis[i], t->tap[i], &end[i]);
    for (out[0] = first[0]; out[0] < end[0]; out[0]++)
        for (out[1] = first[1]; out[1] < end[1]; out[1]++)
            for (out[2] = first[2]; out[2] < end[2]; out[2]++) multiply(t, out);
}

// A block of the channels of a group that are written.
static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const small *s = small_of(plan);
    const small_share *share = stage->context;
    const flow f = flow_of(p);
    const int64_t element = plan->kernels->element, nr = s->kernel->nr, zero = 0;
    const int64_t part = index % s->parts, group = index / s->parts;
    const int64_t at = (group * f.to->group + part * nr * f.to->channel) * element;
    const char *residual = fc_operand(call, stage->at.residual);
    char *own = fc_own_scratch(call, thread), *bias = own + share->bias;
    const fc_borrowed given = fc_borrowed_by(stage, call);
    copy_bias(plan, given.bias, group, part, bias);
    small_task t = {
        .plan = plan,
        .flow = f,
        .copy = (const char *)fc_operand(call, stage->at.shared) + group * copy_elements(plan) * element,
        .sums = own + share->sums,
        .tile = {.columns = fc_min(nr, f.out - part * nr),
                 .a_row = s->pitch,
                 .segments = 1,
                 .a_segment = &zero,
                 .dst = (char *)fc_operand(call, stage->at.dst) + at,
                 .residual = residual ? residual + at : NULL,
                 .bias = bias,
                 .run_count = 1,
                 .column_stride = f.to->channel,
                 .low = p->low,
                 .high = p->high},
    };
    t.run = (fc_run){0, t.tile.columns, 0};
    t.tile.runs = &t.run;
    t.tile.row_offset = t.row_offset;
    for (int64_t chunk = 0; chunk < s->chunks && !fc_must_stop(); chunk++) {
        t.channel = chunk_start(plan, chunk);
        t.begins = chunk == 0;
        t.ends = chunk + 1 == s->chunks;
        t.tile.depth = chunk_start(plan, chunk + 1) - t.channel;
        t.tile.b = own;
        pack_chunk(plan, given.wei, group, part, chunk, own);
        for (t.tap[0] = 0; t.tap[0] < p->axis[0].kernel; t.tap[0]++)
            for (t.tap[1] = 0; t.tap[1] < p->axis[1].kernel; t.tap[1]++)
                for (t.tap[2] = 0; t.tap[2] < p->axis[2].kernel; t.tap[2]++) {
                    each_position(&t);
                    t.tile.b = (const char *)t.tile.b + t.tile.depth * nr * element;
                }
    }
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    (void)threads;
    const fc_problem *p = &plan->problem;
    const small_share share = share_of(plan);
    fc_list_scratch(list, (size_t)(p->groups * copy_elements(plan) * plan->kernels->element), share.bytes);
    fc_list_stage(list, plan, copy_task, p->groups * p->batch, NULL);
    fc_list_stage(list, plan, task, p->groups * small_of(plan)->parts, fc_list_keep(list, &share, sizeof share));
}

static const char *form(const fc_plan *plan) {
    (void)plan;
    return "over images, weights in place";
}

const fc_kind fc_kind_small = {
    .name = "small",
    .traits = FC_SERVES_FORWARD | FC_SERVES_INPUT | FC_BY_PARTS,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = fc_borrow,
    .stages = stages,
    .form = form,
};
