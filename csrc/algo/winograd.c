// SPDX-License-Identifier: BSD-3-Clause
//
// winograd.c - 3x3 convolutions of stride 1 by F(m x m, 3 x 3), m = 2, 3, 4: (m + 2)^2 multiplications where the direct
// sum has 9 m^2, hence a ratio of 2.25, 3.24 and 4.
//
//   input     V[point][tile][channel]      = B^T d B      for every tile and channel
//   multiply  M[point][tile][out channel]  = V[point] * U[point], (m + 2)^2 GEMMs
//   output    dst                          = A^T M A + bias, residual, clamp
//
// V and M would be gigabytes for large images, so tiles are taken in chunks, in one of two ways:
//
//   fused     each thread takes a chunk that fits its L2 through all three stages. All of U is read once per chunk.
//   staged    all threads share a large chunk and go through the stages together. U is read once per chunk, V and M
//             travel through L3. For layers whose U is large and whose tiles are few.
//
// The mode with less traffic per tile is taken. Either way the arithmetic of a tile is the same.
#include "algo/plan.h"
#include "kernels/winograd_points.h"

enum { FC_FUSED_BYTES = 704 << 10, FC_STAGED_BYTES = 12 << 20, FC_WINOGRAD_BLOCK_K = 256, FC_INPUT_CHANNELS = 64 };

static fc_winograd_layout shape_of(const fc_problem *p, const fc_kernels *k, int64_t m) {
    fc_winograd_layout w = {.tile = m, .alpha = m + 2};
    w.tiles_h = fc_ceil_div(p->axis[1].out, m);
    w.tiles_w = fc_ceil_div(p->axis[2].out, m);
    w.tiles = p->batch * p->axis[0].out * w.tiles_h * w.tiles_w;
    // One cache line off a power of two, so that the rows of a GEMM tile spread over the sets of L1.
    w.row_in = fc_round_up(p->in_channels, 16) + 16;
    w.row_out = fc_round_up(p->out_channels, k->nr);
    const int64_t points = w.alpha * w.alpha, per_tile = points * (w.row_in + w.row_out) * k->element;
    const int64_t weights = points * p->in_channels * w.row_out * k->element;
    const int64_t fused = fc_max(1, FC_FUSED_BYTES / per_tile);
    w.fused = w.tiles >= 4 * fused && weights / fused < 2 * per_tile;
    w.chunk = fc_min(fc_max(1, w.tiles), w.fused ? fused : fc_max(1, FC_STAGED_BYTES / per_tile));
    w.chunk = fc_ceil_div(w.tiles, fc_max(1, fc_ceil_div(w.tiles, fc_max(1, w.chunk)))); // chunks of even size
    return w;
}

static const char *refuse(const fc_problem *p, const fc_kernels *k) {
    (void)k;
    if (p->dtype != FC_F32) return "float64 asks for more accuracy than Winograd's transforms keep";
    if (p->axis[0].kernel != 1 || p->axis[1].kernel != 3 || p->axis[2].kernel != 3) return "only 3x3 kernels";
    for (int i = 1; i < FC_AXES; i++) {
        if (p->axis[i].stride != 1) return "only stride 1";
        if (p->axis[i].dilation != 1) return "only dilation 1";
    }
    return NULL;
}

static double cost(const fc_problem *p, const fc_kernels *k, int64_t m) {
    const fc_winograd_layout w = shape_of(p, k, m);
    const double points = (double)(w.alpha * w.alpha), tiles = (double)(w.tiles * p->groups);
    const double rows = (double)fc_min(w.chunk, k->mr), short_rows = rows / fmax(rows, 4.0);
    const double vectors =
        points * tiles * ((double)fc_round_up(p->in_channels, k->vl) + (double)w.row_out) / (double)k->vl;
    const double weights = points * (double)(p->in_channels * w.row_out * p->groups * k->element);
    const double passes = w.fused ? (double)fc_ceil_div(w.tiles, fc_max(1, w.chunk)) : 1.0;
    const double travel = w.fused ? 0.0 : 2.0 * vectors * (double)(k->vl * k->element) / 25e9;
    return 3 * fc_cost_fixed() + fc_cost_macs(points * tiles * (double)(p->in_channels * w.row_out), k) / short_rows +
           4.5e-9 * vectors + travel + fmin(passes, 4.0) * fc_cost_weights(weights);
}

static fc_status layout(fc_plan *plan, int64_t m) {
    const fc_problem *p = &plan->problem;
    plan->layout.winograd = shape_of(p, plan->kernels, m);
    const fc_winograd_layout *w = &plan->layout.winograd;
    plan->packed_bytes =
        (size_t)(p->groups * w->row_out * (1 + w->alpha * w->alpha * p->in_channels) * plan->kernels->element);
    return FC_OK;
}

static size_t points_bytes(const fc_plan *plan, int64_t row) {
    const fc_winograd_layout *w = &plan->layout.winograd;
    return fc_align((size_t)(w->alpha * w->alpha * w->chunk * row * plan->kernels->element));
}

static size_t scratch(const fc_plan *plan, int threads) {
    const fc_winograd_layout *w = &plan->layout.winograd;
    const size_t chunk = points_bytes(plan, w->row_in) + points_bytes(plan, w->row_out);
    return w->fused ? (size_t)threads * chunk : chunk;
}

// ---------------------------------------------------------------------------------------------------------- weights

typedef struct pack_job {
    const fc_plan *plan;
    const float *wei;
    float *weights; // U [group][point][tile of nr channels][k][nr]
} pack_job;

static void pack_task(void *context, int64_t task, int thread) {
    (void)thread;
    static const double g2[4][3] = FC_F2_G, g3[5][3] = FC_F3_G, g4[6][3] = FC_F4_G;
    const pack_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_problem *p = &plan->problem;
    const fc_winograd_layout *w = &plan->layout.winograd;
    const double (*g)[3] = w->tile == 2 ? g2 : w->tile == 3 ? g3 : g4;
    const int64_t nr = plan->kernels->nr, parts = w->row_out / nr, part = task % parts, group = task / parts;
    const fc_winograd_weights work = {
        .problem = p,
        .wei = job->wei + group * p->wei.group + part * nr * p->wei.outer,
        .channels = fc_min(nr, p->out_channels - part * nr),
        .alpha = w->alpha,
        .g = g,
        .points = job->weights + (group * w->alpha * w->alpha * w->row_out + part * nr) * p->in_channels,
        .point = w->row_out * p->in_channels,
    };
    plan->kernels->winograd_weights(&work);
}

static void pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const fc_winograd_layout *w = &plan->layout.winograd;
    float *padded = packed;
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t o = 0; o < w->row_out; o++)
            *padded++ = bias && o < p->out_channels ? ((const float *)bias)[g * p->out_channels + o] : 0.0f;
    pack_job job = {plan, wei, padded};
    const double seconds = 8e-9 * (double)(p->groups * w->row_out * p->in_channels);
    fc_parallel(p->groups * w->row_out / plan->kernels->nr, fc_worthwhile_threads(seconds, threads), pack_task, &job);
}

// ----------------------------------------------------------------------------------------------------------- stages

// A chunk of tiles of one group on its way through the stages.
typedef struct winograd_chunk {
    const fc_plan *plan;
    const char *src, *weights, *bias, *residual;
    char *dst, *v, *m;
    int64_t first, count;
    int64_t tile_parts, channel_parts; // staged: how a stage is cut into tasks
} winograd_chunk;

static fc_winograd_tiles stage_of(const winograd_chunk *c, int64_t tile0, int64_t tile1) {
    const fc_winograd_layout *w = &c->plan->layout.winograd;
    return (fc_winograd_tiles){
        .problem = &c->plan->problem,
        .tiles_h = w->tiles_h,
        .tiles_w = w->tiles_w,
        .tile = c->first + tile0,
        .count = tile1 - tile0,
    };
}

static void input_stage(const winograd_chunk *c, int64_t tile0, int64_t tile1, int64_t channel0, int64_t channel1) {
    const fc_kernels *k = c->plan->kernels;
    const fc_winograd_layout *w = &c->plan->layout.winograd;
    fc_winograd_tiles work = stage_of(c, tile0, tile1);
    work.src = c->src;
    work.channel = channel0;
    work.channels = channel1 - channel0;
    work.points = c->v + tile0 * w->row_in * k->element;
    work.point = c->count * w->row_in;
    work.row = w->row_in;
    (w->tile == 2 ? k->winograd_input_f2 : w->tile == 3 ? k->winograd_input_f3 : k->winograd_input_f4)(&work);
}

// M[point] for output channels [part0, part1), counted in tiles of nr.
static void multiply_stage(const winograd_chunk *c, int64_t point, int64_t part0, int64_t part1) {
    const fc_kernels *k = c->plan->kernels;
    const fc_problem *p = &c->plan->problem;
    const fc_winograd_layout *w = &c->plan->layout.winograd;
    const int64_t zero = 0, rows = fc_ceil_div(c->count, k->mr);
    const char *v = c->v + point * c->count * w->row_in * k->element;
    const char *u = c->weights + point * w->row_out * p->in_channels * k->element;
    char *m = c->m + point * c->count * w->row_out * k->element;
    fc_gemm_tile tile = {.columns = k->nr, .a_row = w->row_in, .segments = 1, .a_segment = &zero};
    for (int64_t part = part0; part < part1; part++)
        for (int64_t k0 = 0; k0 < p->in_channels; k0 += FC_WINOGRAD_BLOCK_K) {
            tile.depth = fc_min(FC_WINOGRAD_BLOCK_K, p->in_channels - k0);
            tile.first = k0 == 0;
            tile.b = u + (part * p->in_channels + k0) * k->nr * k->element;
            for (int64_t r = 0; r < rows; r++) {
                const int64_t t0 = r * c->count / rows, t1 = (r + 1) * c->count / rows;
                tile.m = t1 - t0;
                tile.a = v + (t0 * w->row_in + k0) * k->element;
                tile.sums = m + (part * c->count + t0) * k->nr * k->element;
                k->gemm_channels(&tile);
            }
        }
}

static void output_stage(const winograd_chunk *c, int64_t tile0, int64_t tile1, int64_t channel0, int64_t channel1) {
    const fc_kernels *k = c->plan->kernels;
    const fc_winograd_layout *w = &c->plan->layout.winograd;
    fc_winograd_tiles work = stage_of(c, tile0, tile1);
    work.dst = c->dst;
    work.residual = c->residual;
    work.bias = c->bias;
    work.channel = channel0;
    work.channels = channel1 - channel0;
    work.points = c->m + tile0 * k->nr * k->element;
    work.point = c->count * w->row_out;
    work.row = c->count * k->nr;
    (w->tile == 2 ? k->winograd_output_f2 : w->tile == 3 ? k->winograd_output_f3 : k->winograd_output_f4)(&work);
}

// ---------------------------------------------------------------------------------------------------------- running

typedef struct winograd_job {
    winograd_chunk chunk; // of group 0; fused: without v and m
    char *scratch;
} winograd_job;

static winograd_chunk group_of(const winograd_job *job, int64_t group) {
    winograd_chunk c = job->chunk;
    const fc_problem *p = &c.plan->problem;
    const fc_winograd_layout *w = &c.plan->layout.winograd;
    const int64_t element = c.plan->kernels->element;
    c.src += group * p->src.group * element;
    c.dst += group * p->dst.group * element;
    if (c.residual) c.residual += group * p->dst.group * element;
    c.bias += group * w->row_out * element;
    c.weights += group * w->alpha * w->alpha * w->row_out * p->in_channels * element;
    return c;
}

static void fused_task(void *context, int64_t task, int thread) {
    const winograd_job *job = context;
    const fc_plan *plan = job->chunk.plan;
    const fc_winograd_layout *w = &plan->layout.winograd;
    const int64_t chunks = fc_ceil_div(w->tiles, w->chunk);
    winograd_chunk c = group_of(job, task / chunks);
    c.first = task % chunks * w->chunk;
    c.count = fc_min(w->chunk, w->tiles - c.first);
    c.v = job->scratch + (size_t)thread * (points_bytes(plan, w->row_in) + points_bytes(plan, w->row_out));
    c.m = c.v + points_bytes(plan, w->row_in);
    input_stage(&c, 0, c.count, 0, plan->problem.in_channels);
    for (int64_t point = 0; point < w->alpha * w->alpha; point++)
        multiply_stage(&c, point, 0, w->row_out / plan->kernels->nr);
    output_stage(&c, 0, c.count, 0, plan->problem.out_channels);
}

static void input_task(void *context, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk *c = context;
    const int64_t t = task % c->tile_parts, channel = task / c->tile_parts * FC_INPUT_CHANNELS;
    input_stage(c, t * c->count / c->tile_parts, (t + 1) * c->count / c->tile_parts, channel,
                fc_min(channel + FC_INPUT_CHANNELS, c->plan->problem.in_channels));
}

static void multiply_task(void *context, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk *c = context;
    const fc_winograd_layout *w = &c->plan->layout.winograd;
    const int64_t parts = w->row_out / c->plan->kernels->nr, part = task % c->channel_parts;
    multiply_stage(c, task / c->channel_parts, part * parts / c->channel_parts, (part + 1) * parts / c->channel_parts);
}

static void output_task(void *context, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk *c = context;
    const int64_t t = task % c->tile_parts, channel = task / c->tile_parts * FC_INPUT_CHANNELS;
    output_stage(c, t * c->count / c->tile_parts, (t + 1) * c->count / c->tile_parts, channel,
                 fc_min(channel + FC_INPUT_CHANNELS, c->plan->problem.out_channels));
}

static void staged(const winograd_job *job, int threads) {
    const fc_plan *plan = job->chunk.plan;
    const fc_problem *p = &plan->problem;
    const fc_winograd_layout *w = &plan->layout.winograd;
    for (int64_t group = 0; group < p->groups; group++)
        for (int64_t first = 0; first < w->tiles; first += w->chunk) {
            winograd_chunk c = group_of(job, group);
            c.first = first;
            c.count = fc_min(w->chunk, w->tiles - first);
            c.v = job->scratch;
            c.m = c.v + points_bytes(plan, w->row_in);
            c.tile_parts = fc_ceil_div(c.count, w->tiles_w);
            c.channel_parts = fc_min(w->row_out / plan->kernels->nr, threads);
            fc_parallel(c.tile_parts * fc_ceil_div(p->in_channels, FC_INPUT_CHANNELS), threads, input_task, &c);
            fc_parallel(w->alpha * w->alpha * c.channel_parts, threads, multiply_task, &c);
            fc_parallel(c.tile_parts * fc_ceil_div(p->out_channels, FC_INPUT_CHANNELS), threads, output_task, &c);
        }
}

static void execute(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                    void *scratch_memory, int threads) {
    const fc_problem *p = &plan->problem;
    const fc_winograd_layout *w = &plan->layout.winograd;
    winograd_job job = {
        .chunk = {.plan = plan,
                  .src = src,
                  .bias = packed,
                  .weights = (const char *)packed + p->groups * w->row_out * plan->kernels->element,
                  .residual = residual,
                  .dst = dst},
        .scratch = scratch_memory,
    };
    if (w->fused) fc_parallel(fc_ceil_div(w->tiles, w->chunk) * p->groups, threads, fused_task, &job);
    else staged(&job, threads);
}

#define FC_WINOGRAD(m)                                                                                                 \
    static double cost_f##m(const fc_problem *p, const fc_kernels *k) { return cost(p, k, m); }                        \
    static fc_status layout_f##m(fc_plan *plan) { return layout(plan, m); }                                            \
    const fc_algorithm fc_algorithm_winograd_f##m = {"winograd_f" #m, NULL,    refuse, cost_f##m,                      \
                                                     layout_f##m,     scratch, pack,   execute};

FC_WINOGRAD(2)
FC_WINOGRAD(3)
FC_WINOGRAD(4)
