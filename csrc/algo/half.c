// SPDX-License-Identifier: BSD-3-Clause
//
// half.c - float16 tensors: a float32 plan between two conversions.
//
//   for each block   src and residual to float32, the latter to where the result will be; plan; result to dst
//
// A block is some images, or some groups of one image where groups lie side by side, or a band of rows of one image with
// the rows around it, zeros for padding: few enough that float32 stays in the cache of the thread that converts, computes
// and converts back, and enough that reading the weights once per block counts for little.  Where that leaves too few
// blocks, all threads share each of them, and pay for fetching from each other's caches what another has converted.
#include "algo/plan.h"

enum { FC_BLOCK_ELEMENTS = 32768, FC_PIECE = 8192 };

typedef struct convert_job {
    const fc_kernels *kernels;
    int64_t count;
    const void *in;
    void *out;
} convert_job;

static void widen_task(void *context, int64_t task, int thread) {
    (void)thread;
    const convert_job *job = context;
    const int64_t first = task * FC_PIECE, count = fc_min(FC_PIECE, job->count - first);
    job->kernels->widen((const uint16_t *)job->in + first, (float *)job->out + first, count);
}

static void narrow_task(void *context, int64_t task, int thread) {
    (void)thread;
    const convert_job *job = context;
    const int64_t first = task * FC_PIECE, count = fc_min(FC_PIECE, job->count - first);
    job->kernels->narrow((const float *)job->in + first, (uint16_t *)job->out + first, count);
}

static int threads_for(int64_t count, int threads) { return fc_worthwhile_threads(0.1e-9 * (double)count, threads); }

void fc_half_widen(const fc_kernels *kernels, const void *in, void *out, int64_t count, int threads) {
    convert_job job = {kernels, count, in, out};
    fc_parallel(fc_ceil_div(count, FC_PIECE), threads_for(count, threads), widen_task, &job);
}

static void narrow(const fc_kernels *kernels, const void *in, void *out, int64_t count, int threads) {
    convert_job job = {kernels, count, in, out};
    fc_parallel(fc_ceil_div(count, FC_PIECE), threads_for(count, threads), narrow_task, &job);
}

static size_t block_bytes(const fc_plan *plan, int threads) {
    const fc_half_blocks *h = &plan->layout.half;
    const fc_plan *part = plan->parts->plan;
    return fc_align((size_t)h->src * sizeof(float)) + fc_align((size_t)h->dst * sizeof(float)) +
           fc_align(part->algorithm->scratch(part, threads));
}

// Whether each thread takes blocks of its own.
static int is_shared_out(const fc_plan *plan, int threads) {
    const fc_half_blocks *h = &plan->layout.half;
    return h->bands > 1 || h->blocks >= 2 * threads;
}

static size_t scratch(const fc_plan *plan, int threads) {
    return is_shared_out(plan, threads) ? (size_t)threads * block_bytes(plan, 1) : block_bytes(plan, threads);
}

// Weights and bias have been widened.
static void pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_half_blocks *h = &plan->layout.half;
    const fc_plan *part = plan->parts->plan;
    for (int64_t i = 0; i < h->group_blocks; i++)
        part->algorithm->pack(part, fc_at(wei, i * h->groups * plan->problem.wei.group, plan->kernels),
                              bias ? fc_at(bias, i * h->groups * plan->problem.out_channels, plan->kernels) : NULL,
                              (char *)packed + (size_t)i * plan->parts->packed, threads);
}

typedef struct half_job {
    const fc_plan *plan;
    const uint16_t *src, *residual;
    const char *packed;
    uint16_t *dst;
    char *scratch;
} half_job;

// The input rows of a band, those outside of the image as zeros.
static void widen_band(const half_job *job, const uint16_t *image, float *out, int64_t band) {
    const fc_half_blocks *h = &job->plan->layout.half;
    const fc_axis *a = &job->plan->problem.axis[h->axis];
    const int64_t top = band * h->rows * a->stride - a->pad;
    const int64_t low = fc_min(fc_max(-top, 0), h->in_rows), high = fc_max(low, fc_min(a->in - top, h->in_rows));
    for (int64_t plane = 0; plane < h->src_planes; plane++, image += a->in * h->src_row) {
        memset(out, 0, (size_t)(low * h->src_row) * sizeof *out);
        job->plan->kernels->widen(image + (top + low) * h->src_row, out + low * h->src_row, (high - low) * h->src_row);
        memset(out + high * h->src_row, 0, (size_t)((h->in_rows - high) * h->src_row) * sizeof *out);
        out += h->in_rows * h->src_row;
    }
}

// A band by one thread.  The last one may reach beyond the image; what it computes there goes nowhere.
static void run_band(const half_job *job, int64_t block, char *src, char *dst, char *rest) {
    const fc_half_blocks *h = &job->plan->layout.half;
    const fc_plan *part = job->plan->parts->plan;
    const fc_axis *a = &job->plan->problem.axis[h->axis];
    const int64_t image = block / h->bands, band = block % h->bands;
    const int64_t count = fc_min(h->rows, a->out - band * h->rows) * h->dst_row;
    const int64_t first = image * h->dst_planes * a->out * h->dst_row + band * h->rows * h->dst_row;
    float *block_dst = (float *)dst;
    widen_band(job, job->src + image * h->src_planes * a->in * h->src_row, (float *)src, band);
    if (job->residual) {
        memset(dst, 0, (size_t)h->dst * sizeof(float));
        for (int64_t plane = 0; plane < h->dst_planes; plane++)
            part->kernels->widen(job->residual + first + plane * a->out * h->dst_row,
                                 block_dst + plane * h->rows * h->dst_row, count);
    }
    part->algorithm->execute(part, src, job->packed, job->residual ? dst : NULL, dst, rest, 1);
    for (int64_t plane = 0; plane < h->dst_planes; plane++)
        part->kernels->narrow(block_dst + plane * h->rows * h->dst_row, job->dst + first + plane * a->out * h->dst_row,
                              count);
}

static void run_block(const half_job *job, int64_t block, int64_t place, int threads) {
    const fc_half_blocks *h = &job->plan->layout.half;
    const fc_plan *part = job->plan->parts->plan;
    char *src = job->scratch + (size_t)place * block_bytes(job->plan, threads);
    char *dst = src + fc_align((size_t)h->src * sizeof(float));
    char *rest = dst + fc_align((size_t)h->dst * sizeof(float));
    if (h->bands > 1) {
        run_band(job, block, src, dst, rest);
        return;
    }
    const char *packed = job->packed + (size_t)(block % h->group_blocks) * job->plan->parts->packed;
    fc_half_widen(part->kernels, job->src + block * h->src, src, h->src, threads);
    if (job->residual) fc_half_widen(part->kernels, job->residual + block * h->dst, dst, h->dst, threads);
    part->algorithm->execute(part, src, packed, job->residual ? dst : NULL, dst, rest, threads);
    narrow(part->kernels, dst, job->dst + block * h->dst, h->dst, threads);
}

static void block_task(void *context, int64_t task, int thread) { run_block(context, task, thread, 1); }

static void execute(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                    void *scratch_memory, int threads) {
    half_job job = {plan, src, residual, packed, dst, scratch_memory};
    const int64_t blocks = plan->layout.half.blocks;
    if (is_shared_out(plan, threads)) fc_parallel(blocks, threads, block_task, &job);
    else
        for (int64_t block = 0; block < blocks; block++) run_block(&job, block, 0, threads);
}

static const fc_algorithm half_algorithm = {"float16", NULL, NULL, NULL, NULL, scratch, pack, execute, NULL};

// ---------------------------------------------------------------------------------------------------------- layout

// The first divisor of `all` from `wanted` on, or all: no search goes further than to twice what is wanted.
static int64_t divisor_from(int64_t all, int64_t wanted) {
    for (int64_t n = wanted; n < fc_min(all, 2 * wanted); n++)
        if (all % n == 0) return n;
    return all;
}

// Rows of a band: whole Winograd tiles, so that each output keeps its place in its tile; twice as many for a GEMM, whose
// strips are wide; all rows where bands would be too few, or would read more weights than pixels.
static int64_t band_rows(const fc_plan *plan, fc_algo_id id) {
    const fc_problem *p = &plan->problem;
    const fc_half_blocks *h = &plan->layout.half;
    const fc_axis *a = &p->axis[h->axis];
    const int64_t tile = id == FC_WINOGRAD_F2   ? 2
                         : id == FC_WINOGRAD_F3 ? 3
                         : id == FC_WINOGRAD_F4 ? 4
                         : id == FC_WINOGRAD_F6 ? 6
                                                : 1;
    const int64_t per_row = h->src_planes * h->src_row * a->stride + h->dst_planes * h->dst_row;
    const int64_t weights = p->groups * fc_weights(p) * (tile > 1 ? (tile + 2) * (tile + 2) : 9) / 9;
    const int64_t wanted = fc_max(
        plan->id <= FC_IM2COL || plan->id == FC_POINTWISE ? 2 * FC_BLOCK_ELEMENTS : FC_BLOCK_ELEMENTS, weights / 4);
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

fc_status fc_half_layout(fc_plan *plan, const fc_options *options, char message[FC_MESSAGE]) {
    const fc_problem *p = &plan->problem;
    int64_t inputs = p->in_channels;
    for (int i = 0; i < FC_AXES; i++) inputs *= p->axis[i].in;
    const int64_t outputs = p->out_channels * fc_positions(p), image = p->groups * (inputs + outputs);
    fc_half_blocks *h = &plan->layout.half;
    fc_problem part = *p;
    part.half = 0;
    h->axis = p->axis[0].in > 1 || p->axis[0].out > 1 || p->axis[0].kernel > 1 ? 0 : 1;
    fc_axis *a = &part.axis[h->axis];
    h->images = fc_min(
        p->batch, divisor_from(p->batch, fc_ceil_div(fc_max(FC_BLOCK_ELEMENTS, 2 * p->groups * fc_weights(p)), image)));
    h->groups = p->groups;
    h->rows = a->out;
    if (h->images == 1 && p->groups > 1 && p->src.group == inputs && p->dst.group == outputs)
        h->groups = fc_min(p->groups, divisor_from(p->groups, fc_ceil_div(FC_BLOCK_ELEMENTS, inputs + outputs)));
    else if (h->images == 1 && a->in > 1 && a->out > 1) {
        h->src_row = p->src.axis[h->axis];
        h->dst_row = p->dst.axis[h->axis];
        h->src_planes = p->groups * inputs / (h->src_row * a->in);
        h->dst_planes = p->groups * outputs / (h->dst_row * a->out);
        h->rows = band_rows(plan, plan->id);
    }
    h->group_blocks = p->groups / h->groups;
    h->bands = fc_ceil_div(a->out, h->rows);
    h->blocks = h->images ? p->batch / h->images * h->group_blocks * h->bands : 0;
    part.batch = h->images;
    part.groups = h->groups;
    h->src = h->images * h->groups * inputs;
    h->dst = h->images * h->groups * outputs;
    if (h->bands > 1) {
        h->in_rows = (h->rows - 1) * a->stride + (a->kernel - 1) * a->dilation + 1;
        h->src = h->src / a->in * h->in_rows;
        h->dst = h->dst / a->out * h->rows;
        part.src = resized(p->src, h->src_row, a->in, h->in_rows);
        part.dst = resized(p->dst, h->dst_row, a->out, h->rows);
        a->in = h->in_rows;
        a->out = h->rows;
        a->pad = 0;
    }
    plan->algorithm = &half_algorithm;
    plan->parts = calloc(1, sizeof *plan->parts);
    if (!plan->parts) return FC_NO_MEMORY;
    plan->part_count = 1;
    fc_options part_options = *options;
    part_options.algorithm = plan->id;
    const fc_status status = fc_plan_make(&part, &part_options, &plan->parts->plan, message);
    if (status != FC_OK) return status;
    plan->parts->packed = fc_align(plan->parts->plan->packed_bytes);
    plan->packed_bytes = (size_t)h->group_blocks * plan->parts->packed;
    return FC_OK;
}
