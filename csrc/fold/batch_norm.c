// SPDX-License-Identifier: BSD-3-Clause
//
// batch_norm.c - what batch norm does in training to large arrays: two passes, numbers of channels in double between them.
// Where caches hold a block of channels, one task takes it through both, which saves reading memory twice.
//
// Moments are of chunks, whose numbers stay in the second-level cache while they are centred at their mean: there the sum
// of their squares does not cancel.  Chunks are joined in their order (Chan, Golub and LeVeque 1983), with D the difference
// of their means:  n = n1 + n2;  mean = mean1 + D n2 / n;  squares = squares1 + squares2 + D^2 n1 n2 / n.
#include "fold/fold.h"

enum { FC_BATCH_JOINS = 64 }; // blocks of a task that joins what chunks came to

fc_status fc_check_batch_norm(const void *problem, char message[FC_MESSAGE]) {
    const fc_batch_norm *b = problem;
    int kept = 0;
    FC_CHECK(b->kind >= 0 && b->kind < FC_BATCH_KINDS, "kind %d is unknown", (int)b->kind);
    FC_CHECK(b->second >= -fc_largest && b->second <= fc_largest, "the second result is more than 2^48 elements away");
    FC_CHECK(b->low <= b->high, "the bounds are not ordered");
    const fc_status status = fc_fold_check(b->axis, b->rank, b->dtype, message);
    for (int i = 0; i < b->rank && status == FC_OK; i++) kept += !b->axis[i].folded;
    FC_CHECK(status != FC_OK || kept == 1, "%d axes of channels", kept);
    return status;
}

typedef struct batch_norm {
    fc_folding folding;
    int64_t channels;
    int fits; // a block, into caches
} batch_norm;

static int is_moments(const fc_batch_norm *b) { return b->kind == FC_BATCH_MOMENTS || b->kind == FC_BATCH_TRAIN; }
static int is_sums(const fc_batch_norm *b) { return b->kind == FC_BATCH_SUMS || b->kind == FC_BATCH_GRADIENT; }
static int finds(const fc_batch_norm *b) { return is_moments(b) || is_sums(b); }
static int spreads(const fc_batch_norm *b) { return b->kind != FC_BATCH_MOMENTS && b->kind != FC_BATCH_SUMS; }
static int both(const fc_batch_norm *b) { return finds(b) && spreads(b); }
static int is_backward(const fc_batch_norm *b) { return b->kind == FC_BATCH_BACKWARD || b->kind == FC_BATCH_GRADIENT; }

static double cost(const fc_request *request) {
    const fc_batch_norm *b = request->op->problem;
    const fc_folding f = fc_folding_of(b->axis, b->rank, request->kernels->vl, 1);
    return fc_fold_cost(&f, request->kernels, (is_backward(b) ? 3 : 2) + (both(b) ? 1 + is_backward(b) : 0), 0);
}

// What both passes read of a block of so many channels.
static double block_bytes(const fc_batch_norm *b, const fc_folding *f, int64_t width) {
    const double element = b->dtype == FC_F32 ? sizeof(float) : sizeof(double);
    return (double)(width * f->count) * element * (is_backward(b) ? 2 : 1);
}

// Blocks of as many channels as caches hold from one pass to the other, if they hold one.  Planes whose distance is a power
// of two throw each other out of the second level, but not out of the third.
static void narrow_blocks(const fc_batch_norm *b, fc_folding *f, double room) {
    const int64_t width = fc_min(f->width, (int64_t)(room / fmax(1, block_bytes(b, f, 1))));
    if (f->over_lanes || width < 1) return;
    f->blocks = f->blocks / f->widths * fc_ceil_div(f->side.count, width);
    f->widths = fc_ceil_div(f->side.count, width);
    f->width = width;
}

static fc_status layout(fc_plan *plan, const fc_request *request, char message[FC_MESSAGE]) {
    (void)message;
    fc_batch_norm *b = &plan->batch_norm;
    batch_norm *s = plan->state = calloc(1, sizeof *s);
    if (!s) return FC_NO_MEMORY;
    s->channels = 1;
    for (int i = 0; i < b->rank; i++) {
        if (b->kind == FC_BATCH_MOMENTS) b->axis[i].wei = 0; // which is not read
        if (!spreads(b) && b->axis[i].folded) b->axis[i].dst = 0;
        if (!b->axis[i].folded) s->channels = b->axis[i].count;
    }
    s->folding = fc_folding_of(b->axis, b->rank, request->kernels->vl, 1);
    const fc_machine *machine = &request->options->machine;
    const double room = fmax((double)machine->l2 / 2, (double)machine->l3 / 16);
    if (both(b)) narrow_blocks(b, &s->folding, room);
    s->fits = both(b) && block_bytes(b, &s->folding, s->folding.width) <= room;
    return FC_OK;
}

// ------------------------------------------------------------------------------------------------------------- running

static double value_at(const fc_kernels *k, const void *p, int64_t i) {
    return k->dtype == FC_F32 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}

static void set_value(const fc_kernels *k, void *p, int64_t i, double value) {
    if (k->dtype == FC_F32) ((float *)p)[i] = (float)value;
    else ((double *)p)[i] = value;
}

static double rounded(const fc_kernels *k, double value) { return k->dtype == FC_F32 ? (double)(float)value : value; }

// Arrays of T in double and back, without a question for each number: of channels last there is one for each of some ten.
static void widen(const fc_kernels *k, double *out, const void *in, int64_t count) {
    if (k->dtype == FC_F32)
        for (int64_t i = 0; i < count; i++) out[i] = (double)((const float *)in)[i];
    else memcpy(out, in, (size_t)count * sizeof *out);
}

static void narrow(const fc_kernels *k, void *out, const double *in, int64_t count) {
    if (k->dtype == FC_F32)
        for (int64_t i = 0; i < count; i++) ((float *)out)[i] = (float)in[i];
    else memcpy(out, in, (size_t)count * sizeof *in);
}

static int64_t width_of(const fc_folding *f, const fc_piece *p) { return f->over_lanes ? p->columns : p->groups; }

// A task's chunk, and the kernels' work on it.
static fc_batch_norm_work work_on(const fc_stage *stage, fc_call *call, int64_t block, const fc_piece *p) {
    const fc_batch_norm *b = &stage->plan->batch_norm;
    const batch_norm *s = stage->plan->state;
    const fc_folding *f = &s->folding;
    const int64_t element = stage->plan->kernels->element;
    const char *g = fc_operand(call, stage->at.other[0]);
    const char *vectors = fc_operand(call, both(b) ? stage->at.further : stage->at.other[1]);
    const char *of_channels[FC_BATCH_VECTORS];
    for (int i = 0; i < FC_BATCH_VECTORS; i++) // one axis is kept, so that blocks follow each other along it
        of_channels[i] = vectors ? vectors + (i * s->channels + block * f->width) * element : NULL;
    return (fc_batch_norm_work){
        .backward = is_backward(b),
        .each = f->over_lanes,
        .groups = p->groups,
        .rows = p->rows,
        .columns = p->columns,
        .x_group = f->side.src,
        .x_row = f->row.src,
        .x_column = f->lane.src,
        .g_group = f->side.wei,
        .g_row = f->row.wei,
        .g_column = f->lane.wei,
        .dst_group = f->side.dst,
        .dst_row = f->row.dst,
        .dst_column = f->lane.dst,
        .x = (const char *)fc_operand(call, stage->at.src) + p->src * element,
        .g = g ? g + p->wei * element : NULL,
        .dst = (char *)fc_operand(call, stage->at.dst) + p->dst * element,
        .mean = of_channels[0],
        .scale = of_channels[1],
        .shift = of_channels[2],
        .a = of_channels[3],
        .b = of_channels[4],
        .c = of_channels[5],
        .low = b->low,
        .high = b->high,
    };
}

static double *found_of(const fc_stage *stage, fc_call *call, int64_t block, int64_t chunk) {
    const fc_folding *f = &((const batch_norm *)stage->plan->state)->folding;
    return (double *)fc_operand(call, stage->at.shared) + (block * f->chunks + chunk) * 2 * f->width;
}

// Mean and sum of squared differences from it, of a chunk: the mean as a sum of differences from the first number, which
// loses nothing where it is far from zero; the squares about the mean as kernels have it, rounded, and set right for that:
// sum (x - c)^2 = sum (x - mean)^2 + count (c - mean)^2.
static void find_moments(const fc_stage *stage, const fc_batch_norm_work *w, int64_t width, char *room, double *found) {
    const fc_kernels *k = stage->plan->kernels;
    const double count = (double)(w->rows * (w->each ? 1 : w->columns));
    double *squares = found + width, *rounded = (double *)(room + 2 * width * (int64_t)sizeof(double));
    char *centre = room, *total = room + width * k->element;
    const int64_t side = w->each ? w->x_column : w->x_group;
    for (int64_t i = 0; i < width; i++) {
        const double first = value_at(k, w->x, i * side);
        found[i] = isfinite(first) ? first : 0;
    }
    narrow(k, centre, found, width);
    fc_fold work = {
        .kind = FC_FOLD_CENTRED,
        .groups = w->groups,
        .rows = w->rows,
        .columns = w->columns,
        .group = w->x_group,
        .row = w->x_row,
        .column = w->x_column,
        .src = w->x,
        .centre = centre,
        .total = total,
    };
    fc_fold_fn *fold = w->each ? k->fold_columns : k->fold_all;
    fold(&work);
    widen(k, squares, total, width);
    for (int64_t i = 0; i < width; i++) found[i] += squares[i] / count;
    narrow(k, centre, found, width);
    work.kind = FC_FOLD_SQUARES;
    fold(&work);
    widen(k, rounded, centre, width);
    widen(k, squares, total, width);
    for (int64_t i = 0; i < width; i++) {
        const double off = rounded[i] - found[i];
        squares[i] -= count * off * off;
    }
}

static void find_piece(const fc_stage *stage, fc_call *call, int64_t block, int64_t chunk, char *room) {
    const fc_batch_norm *b = &stage->plan->batch_norm;
    const fc_folding *f = &((const batch_norm *)stage->plan->state)->folding;
    const fc_kernels *k = stage->plan->kernels;
    const fc_piece p = fc_fold_piece(f, block, chunk);
    fc_batch_norm_work work = work_on(stage, call, block, &p);
    const int64_t width = width_of(f, &p);
    double *found = found_of(stage, call, block, chunk);
    if (is_moments(b)) {
        find_moments(stage, &work, width, room, found);
        return;
    }
    for (int t = 0; t < 2; t++) work.total[t] = room + t * width * k->element;
    k->batch_norm_sums(&work);
    widen(k, found, room, 2 * width);
}

static void find_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const fc_folding *f = &((const batch_norm *)stage->plan->state)->folding;
    find_piece(stage, call, task / f->chunks, task % f->chunks, fc_own_scratch(call, thread));
}

static void join_moments(double *mean, double *squares, double *count, const double *found, int64_t width,
                         double more) {
    const double all = *count + more;
    for (int64_t i = 0; i < width; i++) {
        const double difference = found[i] - mean[i];
        mean[i] = *count > 0 ? mean[i] + difference * (more / all) : found[i];
        squares[i] += found[width + i] + (*count > 0 ? difference * difference * (*count * more / all) : 0);
    }
    *count = all;
}

// What the second pass reads of channel i, and what callers ask for, from what the first has found.
static void conclude(const fc_stage *stage, fc_call *call, int64_t i, double first, double second) {
    enum { MEAN, SCALE, SHIFT, A, B, C, VARIANCE, OF_SHIFT, OF_GAIN };
    const fc_batch_norm *b = &stage->plan->batch_norm;
    const batch_norm *s = stage->plan->state;
    const fc_kernels *k = stage->plan->kernels;
    const void *gains = fc_operand(call, stage->at.other[1]);
    char *vectors = fc_operand(call, stage->at.further);
    const int64_t channels = s->channels;
    const double gain = gains ? value_at(k, gains, i) : 1;
    if (is_moments(b)) set_value(k, vectors, VARIANCE * channels + i, second);
    const double q = 1 / sqrt(value_at(k, vectors, VARIANCE * channels + i) + b->eps), a = gain * q;
    if (is_moments(b)) {
        set_value(k, vectors, MEAN * channels + i, first);
        set_value(k, vectors, SCALE * channels + i, a);
        return;
    }
    first = rounded(k, first);
    second = rounded(k, second) * q;
    set_value(k, vectors, OF_SHIFT * channels + i, first);
    set_value(k, vectors, OF_GAIN * channels + i, second);
    set_value(k, vectors, A * channels + i, a);
    set_value(k, vectors, B * channels + i, -a * q * second / (double)s->folding.count);
    set_value(k, vectors, C * channels + i, -a * first / (double)s->folding.count);
}

static void join_block(const fc_stage *stage, fc_call *call, int64_t block, double *total) {
    const fc_batch_norm *b = &stage->plan->batch_norm;
    const fc_folding *f = &((const batch_norm *)stage->plan->state)->folding;
    const fc_kernels *k = stage->plan->kernels;
    const fc_piece head = fc_fold_piece(f, block, 0);
    const int64_t width = width_of(f, &head);
    double count = 0;
    memset(total, 0, (size_t)(2 * width) * sizeof *total);
    for (int64_t chunk = 0; chunk < f->chunks; chunk++) {
        const double *found = found_of(stage, call, block, chunk);
        const fc_piece p = fc_fold_piece(f, block, chunk);
        const double more = (double)(p.rows * (f->over_lanes ? 1 : p.columns));
        if (is_moments(b)) join_moments(total, total + width, &count, found, width, more);
        else
            for (int64_t i = 0; i < 2 * width; i++) total[i] += found[i];
    }
    if (is_moments(b))
        for (int64_t i = 0; i < width; i++) total[width + i] /= count;
    if (both(b)) {
        for (int64_t i = 0; i < width; i++) conclude(stage, call, block * f->width + i, total[i], total[width + i]);
        return;
    }
    char *dst = fc_operand(call, stage->at.dst);
    for (int64_t i = 0; i < width; i++) {
        set_value(k, dst, head.dst + i * f->side.dst, total[i]);
        set_value(k, dst, head.dst + i * f->side.dst + b->second, total[width + i]);
    }
}

static void join_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const fc_folding *f = &((const batch_norm *)stage->plan->state)->folding;
    const int64_t first = task * FC_BATCH_JOINS;
    for (int64_t block = first; block < fc_min(first + FC_BATCH_JOINS, f->blocks); block++)
        join_block(stage, call, block, fc_own_scratch(call, thread));
}

static void spread_piece(const fc_stage *stage, fc_call *call, int64_t block, int64_t chunk) {
    const fc_folding *f = &((const batch_norm *)stage->plan->state)->folding;
    const fc_piece p = fc_fold_piece(f, block, chunk);
    const fc_batch_norm_work work = work_on(stage, call, block, &p);
    stage->plan->kernels->batch_norm_spread(&work);
}

static void spread_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const fc_folding *f = &((const batch_norm *)stage->plan->state)->folding;
    // What was read last is still in caches.
    if (both(&stage->plan->batch_norm)) task = f->blocks * f->chunks - 1 - task;
    spread_piece(stage, call, task / f->chunks, task % f->chunks);
}

// Both passes through a block.
static void block_task(const fc_stage *stage, fc_call *call, int64_t block, int thread) {
    const fc_folding *f = &((const batch_norm *)stage->plan->state)->folding;
    for (int64_t chunk = 0; chunk < f->chunks; chunk++)
        find_piece(stage, call, block, chunk, fc_own_scratch(call, thread));
    join_block(stage, call, block, fc_own_scratch(call, thread));
    for (int64_t chunk = f->chunks; chunk-- > 0;) spread_piece(stage, call, block, chunk);
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_batch_norm *b = &plan->batch_norm;
    const batch_norm *s = plan->state;
    const fc_folding *f = &s->folding;
    const int64_t results = 2 * fc_max(1, f->width) * (int64_t)sizeof(double), pieces = f->blocks * f->chunks;
    if (f->blocks == 0 || f->count == 0) return;
    if (finds(b)) fc_list_scratch(list, (size_t)(pieces * results), fc_align((size_t)(results / 2 * 3)));
    if (s->fits && (threads == 1 || f->blocks >= 2 * threads)) {
        fc_list_stage(list, plan, block_task, f->blocks, NULL);
        return;
    }
    if (finds(b)) {
        fc_list_stage(list, plan, find_task, pieces, NULL);
        fc_list_stage(list, plan, join_task, fc_ceil_div(f->blocks, FC_BATCH_JOINS), NULL);
    }
    if (spreads(b)) fc_list_stage(list, plan, spread_task, pieces, NULL);
}

void fc_blend(fc_dtype dtype, void *running, const void *fresh, int64_t count, double momentum, double factor) {
    if (dtype == FC_F32) {
        float *r = running;
        for (int64_t i = 0; i < count; i++)
            r[i] = (float)((1 - momentum) * (double)r[i] + momentum * ((double)((const float *)fresh)[i] * factor));
    } else {
        double *r = running;
        for (int64_t i = 0; i < count; i++)
            r[i] = (1 - momentum) * r[i] + momentum * (((const double *)fresh)[i] * factor);
    }
}

static const fc_kind kind = {
    .name = "batch_norm",
    .traits = FC_SERVES_FORWARD,
    .rows = 1,
    .cost = cost,
    .layout = layout,
    .stages = stages,
};

const fc_kind *const fc_kinds_batch_norm[] = {&kind, NULL};
