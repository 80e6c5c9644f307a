// SPDX-License-Identifier: BSD-3-Clause
//
// convert.c - tensors of float16, summed in float32: a float32 plan between two conversions.
//
//   for each block   src and residual to float32, the latter to where the result will be; plan; result to dst
//
// A block is some images, or some groups of one image where groups lie side by side, or a band of rows of one image with
// the rows around it, zeros for padding: few enough that float32 stays in the cache of the thread that converts, computes
// and converts back, and enough that reading the weights once per block counts for little.  Where that leaves too few
// blocks, all threads share each of them, and pay for fetching from each other's caches what another has converted.
#include "core/plan.h"

enum { FC_BLOCK_ELEMENTS = 32768, FC_PIECE = 8192 };

// The state of a plan: some images, some groups of one image, or a band of rows of one image.
typedef struct blocks {
    int64_t images, groups, group_blocks, bands, blocks; // of a block; per image; per image; in all
    int64_t src, dst;                                    // elements of a block in float32
    int64_t axis, rows, in_rows;                         // of a band: along the outermost axis of more than one element
    int64_t src_row, src_planes, dst_row, dst_planes;    // an image is [planes][axis][row] without gaps
} blocks;

static const blocks *blocks_of(const fc_plan *plan) { return plan->state; }

static size_t src_bytes(const blocks *b) { return fc_align((size_t)b->src * sizeof(float)); }
static size_t dst_bytes(const blocks *b) { return fc_align((size_t)b->dst * sizeof(float)); }

// A piece of `count` numbers from float16 to float32, or back.
static void widen_piece(const fc_kernels *k, const void *in, void *out, int64_t count, int64_t piece) {
    const int64_t first = piece * FC_PIECE;
    k->widen((const uint16_t *)in + first, (float *)out + first, fc_min(FC_PIECE, count - first));
}

static void narrow_piece(const fc_kernels *k, const void *in, void *out, int64_t count, int64_t piece) {
    const int64_t first = piece * FC_PIECE;
    k->narrow((const float *)in + first, (uint16_t *)out + first, fc_min(FC_PIECE, count - first));
}

// ---------------------------------------------------------------------------------------------------------- packing

typedef struct widen_job {
    const fc_kernels *kernels;
    int64_t count;
    const void *in;
    void *out;
} widen_job;

static void widen_task(void *context, int64_t task, int thread) {
    (void)thread;
    const widen_job *job = context;
    widen_piece(job->kernels, job->in, job->out, job->count, task);
}

static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const blocks *b = blocks_of(plan);
    const fc_part *part = plan->parts;
    const int64_t weights = p->groups * fc_weights(p), out = p->groups * p->out_channels;
    float *wide = fc_scratch_acquire((size_t)(weights + out) * sizeof(float)),
          *wide_bias = bias ? wide + weights : NULL;
    if (!wide) return FC_NO_MEMORY;
    widen_job job = {plan->kernels, weights, wei, wide};
    const int worthwhile = fc_worthwhile_threads(0.1e-9 * (double)weights, threads);
    fc_parallel(fc_ceil_div(weights, FC_PIECE), worthwhile, widen_task, &job);
    if (bias) plan->kernels->widen(bias, wide_bias, out);
    fc_status status = FC_OK;
    for (int64_t i = 0; i < b->group_blocks && status == FC_OK; i++)
        status = fc_plan_pack(part->plan, wide + i * b->groups * p->wei.group,
                              bias ? wide_bias + i * b->groups * p->out_channels : NULL,
                              (char *)packed + (size_t)i * part->packed, threads);
    fc_scratch_release(wide);
    return status;
}

// ------------------------------------------------------------------------------------- blocks that a thread has alone

// A block at work: the arrays of the whole, and the thread's own float32 block of src and dst with scratch behind them.
typedef struct block_job {
    const fc_plan *plan;
    const fc_schedule *schedule; // of the part
    const uint16_t *src, *residual;
    char *packed;
    uint16_t *dst;
    float *block_src, *block_dst;
    char *rest;
} block_job;

static void run_part(const block_job *job, char *packed) {
    const fc_operands operands = {
        .src = job->block_src, .wei = packed, .residual = job->residual ? job->block_dst : NULL, .dst = job->block_dst};
    fc_schedule_run_alone(job->schedule, &operands, job->rest);
}

// The input rows of a band, those outside of the image as zeros.
static void widen_band(const block_job *job, const uint16_t *image, int64_t band) {
    const blocks *b = blocks_of(job->plan);
    const fc_axis *a = &job->plan->problem.axis[b->axis];
    const int64_t top = band * b->rows * a->stride - a->pad;
    const int64_t low = fc_min(fc_max(-top, 0), b->in_rows), high = fc_max(low, fc_min(a->in - top, b->in_rows));
    float *out = job->block_src;
    for (int64_t plane = 0; plane < b->src_planes; plane++, image += a->in * b->src_row) {
        memset(out, 0, (size_t)(low * b->src_row) * sizeof *out);
        job->plan->kernels->widen(image + (top + low) * b->src_row, out + low * b->src_row, (high - low) * b->src_row);
        memset(out + high * b->src_row, 0, (size_t)((b->in_rows - high) * b->src_row) * sizeof *out);
        out += b->in_rows * b->src_row;
    }
}

// The last band may reach beyond the image; what it computes there goes nowhere.
static void run_band(const block_job *job, int64_t block) {
    const blocks *b = blocks_of(job->plan);
    const fc_kernels *k = job->plan->kernels;
    const fc_axis *a = &job->plan->problem.axis[b->axis];
    const int64_t image = block / b->bands, band = block % b->bands;
    const int64_t count = fc_min(b->rows, a->out - band * b->rows) * b->dst_row;
    const int64_t first = image * b->dst_planes * a->out * b->dst_row + band * b->rows * b->dst_row;
    widen_band(job, job->src + image * b->src_planes * a->in * b->src_row, band);
    if (job->residual) {
        memset(job->block_dst, 0, (size_t)b->dst * sizeof(float));
        for (int64_t plane = 0; plane < b->dst_planes; plane++)
            k->widen(job->residual + first + plane * a->out * b->dst_row, job->block_dst + plane * b->rows * b->dst_row,
                     count);
    }
    run_part(job, job->packed);
    for (int64_t plane = 0; plane < b->dst_planes; plane++)
        k->narrow(job->block_dst + plane * b->rows * b->dst_row, job->dst + first + plane * a->out * b->dst_row, count);
}

static void run_block(const block_job *job, int64_t block) {
    const blocks *b = blocks_of(job->plan);
    const fc_kernels *k = job->plan->kernels;
    k->widen(job->src + block * b->src, job->block_src, b->src);
    if (job->residual) k->widen(job->residual + block * b->dst, job->block_dst, b->dst);
    run_part(job, job->packed + (size_t)(block % b->group_blocks) * job->plan->parts->packed);
    k->narrow(job->block_dst, job->dst + block * b->dst, b->dst);
}

static void block_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const blocks *b = blocks_of(stage->plan);
    char *own = fc_own_scratch(call, thread);
    const block_job job = {
        .plan = stage->plan,
        .schedule = *(const fc_schedule *const *)stage->context,
        .src = fc_operand(call, stage->at.src),
        .residual = fc_operand(call, stage->at.residual),
        .packed = fc_operand(call, stage->at.wei),
        .dst = fc_operand(call, stage->at.dst),
        .block_src = (float *)own,
        .block_dst = (float *)(own + src_bytes(b)),
        .rest = own + src_bytes(b) + dst_bytes(b),
    };
    if (b->bands > 1) run_band(&job, task);
    else run_block(&job, task);
}

static void blocks_alone(const fc_plan *plan, fc_list *list) {
    const blocks *b = blocks_of(plan);
    const fc_schedule *part;
    const fc_status status = fc_plan_schedule(plan->parts->plan, 1, &part);
    if (status != FC_OK) {
        list->status = status;
        return;
    }
    fc_list_scratch(list, 0, src_bytes(b) + dst_bytes(b) + fc_schedule_scratch_bytes(part));
    fc_list_stage(list, plan, block_task, b->blocks, fc_list_keep(list, &part, sizeof part));
}

// ------------------------------------------------------------------------------------------ blocks that threads share

static void widen_stage(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const void *in = fc_operand(call, stage->at.src);
    if (in)
        widen_piece(stage->plan->kernels, in, fc_operand(call, stage->at.dst), *(const int64_t *)stage->context, task);
}

static void narrow_stage(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    narrow_piece(stage->plan->kernels, fc_operand(call, stage->at.src), fc_operand(call, stage->at.dst),
                 *(const int64_t *)stage->context, task);
}

static void convert(const fc_plan *plan, fc_list *list, fc_stage_fn run, fc_place from, fc_place to,
                    const int64_t *count) {
    list->at.src = from;
    list->at.dst = to;
    fc_list_stage(list, plan, run, fc_ceil_div(*count, FC_PIECE), count);
}

// One block after the other, all in the same place.
static void blocks_shared(const fc_plan *plan, int threads, fc_list *list) {
    const blocks *b = blocks_of(plan);
    const fc_part *part = plan->parts;
    const fc_places at = list->at;
    const fc_place src = at.shared, dst = fc_behind(src, (int64_t)src_bytes(b));
    fc_place rest = dst;
    rest.given = at.residual.given; // there is one where the whole has one
    for (int64_t block = 0; block < b->blocks; block++) {
        convert(plan, list, widen_stage, fc_behind(at.src, 2 * block * b->src), src, &b->src);
        list->order = FC_BESIDE;
        convert(plan, list, widen_stage, fc_behind(at.residual, 2 * block * b->dst), dst, &b->dst);
        list->at = (fc_places){.src = src,
                               .wei = fc_behind(at.wei, block % b->group_blocks * (int64_t)part->packed),
                               .residual = rest,
                               .dst = dst,
                               .shared = fc_behind(dst, (int64_t)dst_bytes(b))};
        part->plan->kind->stages(part->plan, threads, list);
        convert(plan, list, narrow_stage, dst, fc_behind(at.dst, 2 * block * b->dst), &b->dst);
        list->at = at;
    }
    fc_list_scratch(list, src_bytes(b) + dst_bytes(b), 0);
}

// Whether each thread takes blocks of its own.
static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const blocks *b = blocks_of(plan);
    if (b->bands > 1 || b->blocks >= 2 * threads) blocks_alone(plan, list);
    else blocks_shared(plan, threads, list);
}

// ---------------------------------------------------------------------------------------------------------- layout

// The first divisor of `all` from `wanted` on, or all: no search goes further than to twice what is wanted.
static int64_t divisor_from(int64_t all, int64_t wanted) {
    for (int64_t n = wanted; n < fc_min(all, 2 * wanted); n++)
        if (all % n == 0) return n;
    return all;
}

// Rows of a band: whole Winograd tiles, so that each output keeps its place in its tile; twice as many for a GEMM, whose
// strips are wide; all rows where bands would be too few, or would read more weights than pixels.
static int64_t band_rows(const fc_problem *p, const blocks *b, const fc_kind *kind) {
    const fc_axis *a = &p->axis[b->axis];
    // Tiles of a dilated convolution are tiles of its phases (conv/dilated.c).
    const int64_t phases = a->kernel > 1 && kind->rows > 1 ? a->dilation : 1;
    const int64_t tile = phases > a->out ? a->out : kind->rows * phases, wide = kind->traits & FC_WIDE_TASKS ? 2 : 1;
    const int64_t per_row = b->src_planes * b->src_row * a->stride + b->dst_planes * b->dst_row;
    const int64_t points = kind->rows > 1 ? kind->rows + 2 : 3;
    const int64_t weights = p->groups * fc_weights(p) * points * points / 9;
    const int64_t wanted = fc_max(wide * FC_BLOCK_ELEMENTS, weights / 4);
    const int64_t rows = tile * fc_max(1, (wanted + per_row * tile / 2) / (per_row * tile));
    const int64_t in_rows = (rows - 1) * a->stride + (a->kernel - 1) * a->dilation + 1;
    return 4 * rows <= a->out + rows - 1 && in_rows <= a->in ? rows : a->out;
}

// Strides of a view once its axis has `to` elements instead of `from`.
static fc_view resized(fc_view v, int64_t row, int64_t from, int64_t to) {
    int64_t *const strides[] = {&v.group, &v.outer, &v.channel, &v.axis[0], &v.axis[1], &v.axis[2]};
    for (int i = 0; i < 3 + FC_AXES; i++)
        if (*strides[i] >= row * from) *strides[i] = *strides[i] / from * to;
    return v;
}

// Cuts the problem into blocks of at most so many images; the kind is that of the whole in float32.
static blocks cut(const fc_problem *p, int64_t most, const fc_kind *kind) {
    int64_t inputs = p->in_channels;
    for (int i = 0; i < FC_AXES; i++) inputs *= p->axis[i].in;
    const int64_t outputs = p->out_channels * fc_positions(p), image = p->groups * (inputs + outputs);
    blocks b = {.axis = p->axis[0].in > 1 || p->axis[0].out > 1 || p->axis[0].kernel > 1 ? 0 : 1};
    const fc_axis *a = &p->axis[b.axis];
    const int64_t wanted = fc_ceil_div(fc_max(FC_BLOCK_ELEMENTS, 2 * p->groups * fc_weights(p)), image);
    b.images = fc_min(most, divisor_from(p->batch, wanted));
    b.groups = p->groups;
    b.rows = a->out;
    if (b.images == 1 && p->groups > 1 && p->src.group == inputs && p->dst.group == outputs)
        b.groups = fc_min(p->groups, divisor_from(p->groups, fc_ceil_div(FC_BLOCK_ELEMENTS, inputs + outputs)));
    else if (b.images == 1 && a->in > 1 && a->out > 1) {
        b.src_row = p->src.axis[b.axis];
        b.dst_row = p->dst.axis[b.axis];
        b.src_planes = p->groups * inputs / (b.src_row * a->in);
        b.dst_planes = p->groups * outputs / (b.dst_row * a->out);
        b.rows = band_rows(p, &b, kind);
    }
    b.group_blocks = p->groups / b.groups;
    b.bands = fc_ceil_div(a->out, b.rows);
    b.blocks = b.images ? p->batch / b.images * b.group_blocks * b.bands : 0;
    b.src = b.images * b.groups * inputs;
    b.dst = b.images * b.groups * outputs;
    if (b.bands > 1) {
        b.in_rows = (b.rows - 1) * a->stride + (a->kernel - 1) * a->dilation + 1;
        b.src = b.src / a->in * b.in_rows;
        b.dst = b.dst / a->out * b.rows;
    }
    return b;
}

// The problem of a block, in float32.
static fc_problem block_problem(const fc_problem *p, const blocks *b) {
    fc_problem part = *p;
    fc_axis *a = &part.axis[b->axis];
    part.types = fc_types_of(p->types.accumulator);
    part.batch = b->images;
    part.groups = b->groups;
    if (b->bands > 1) {
        part.src = resized(p->src, b->src_row, a->in, b->in_rows);
        part.dst = resized(p->dst, b->dst_row, a->out, b->rows);
        a->in = b->in_rows;
        a->out = b->rows;
        a->pad = 0;
    }
    return part;
}

// Its weights are widened to be packed, and gone then.
static fc_options part_options(const fc_options *options) {
    fc_options part = *options;
    part.borrows = 0;
    return part;
}

static fc_verdict ask(const fc_request *r) {
    fc_problem whole = *(const fc_problem *)r->op->problem;
    whole.types = fc_types_of(whole.types.accumulator);
    const fc_options options = part_options(r->options);
    return r->planner->ask(&(fc_op){FC_CONV, &whole}, &options);
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    const fc_problem *p = &plan->problem;
    blocks *b = plan->state = malloc(sizeof *b);
    plan->parts = calloc(1, sizeof *plan->parts);
    if (!b || !plan->parts) return FC_NO_MEMORY;
    *b = cut(p, r->options->batch_invariant ? fc_min(1, p->batch) : p->batch, r->planner->kind(r->options->algorithm));
    plan->part_count = 1;
    const fc_problem part = block_problem(p, b);
    const fc_options options = part_options(r->options);
    const fc_status status = r->planner->plan(&(fc_op){FC_CONV, &part}, &options, &plan->parts->plan, message);
    if (status != FC_OK) return status;
    plan->parts->packed = fc_align(plan->parts->plan->packed_bytes);
    plan->packing[0] = b->group_blocks;
    plan->packed_bytes = (size_t)b->group_blocks * plan->parts->packed;
    return FC_OK;
}

const fc_kind fc_kind_convert = {
    .name = "convert",
    .traits = FC_SERVES_FORWARD | FC_CONVERTS,
    .rows = 1,
    .ask = ask,
    .layout = layout,
    .pack = pack,
    .stages = stages,
};
