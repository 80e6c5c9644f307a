// SPDX-License-Identifier: BSD-3-Clause
//
// pack.c - weights into the tiles that the kernels read.
#include "conv/gemm/gemm.h"

enum { FC_PLACES = 1536 };

// Where a tile of the block [k0, k1) starts in the packed weights of a group.
static int64_t tile_start(const fc_plan *plan, int64_t tile, int64_t k0, int64_t k1) {
    return k0 * fc_gemm_packed_channels(plan) + tile * fc_gemm_of(plan)->out_tile * (k1 - k0);
}

typedef struct pack_job {
    const fc_plan *plan;
    const char *wei;
    char *weights;
    int64_t channels; // input channels of a task, where weights are packed in the order of the source
} pack_job;

static fc_weight_order order_of(const fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    const fc_gemm *g = fc_gemm_of(plan);
    return (fc_weight_order){
        .out_channels = p->out_channels,
        .channels = p->in_channels,
        .block = g->order,
        .taps = {p->axis[0].kernel, p->axis[1].kernel, p->axis[2].kernel},
        .view = p->wei,
        .tile = g->out_tile,
        .padded = g->over_channels,
        .in_order = (g->order == 1 || fc_taps(p) == 1) && fc_weights_adjoin(p),
    };
}

void fc_gemm_pack_tile(const fc_plan *plan, const void *wei, int64_t tile, int64_t k0, int64_t k1, void *packed) {
    const fc_weight_order order = order_of(plan);
    fc_gemm_of(plan)->kernel->pack(&order, wei, packed, k0, k1, tile);
}

// A tile by a block of k.
static void pack_task(void *context, int64_t task, int thread) {
    (void)thread;
    const pack_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_gemm *g = fc_gemm_of(plan);
    const fc_problem *p = &plan->problem;
    const int64_t tile = task % g->out_tiles, block = task / g->out_tiles % g->blocks;
    const int64_t group = task / g->out_tiles / g->blocks;
    int64_t k0, k1;
    fc_gemm_block(g, block, &k0, &k1);
    const int64_t offset = group * g->group_packed + tile_start(plan, tile, k0, k1);
    const int64_t element = fc_bytes(g->kernel->types.weight);
    fc_gemm_pack_tile(plan, job->wei + group * p->wei.group * element, tile, k0, k1, job->weights + offset * element);
}

// A tile by some input channels with all of their taps, read once and in order.
static void pack_channels_task(void *context, int64_t task, int thread) {
    (void)thread;
    const pack_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_gemm *g = fc_gemm_of(plan);
    const fc_problem *p = &plan->problem;
    const int64_t parts = fc_ceil_div(p->in_channels, job->channels), taps = fc_taps(p);
    const int64_t tile = task % g->out_tiles, part = task / g->out_tiles % parts, group = task / g->out_tiles / parts;
    const int64_t c0 = part * job->channels, c1 = fc_min(p->in_channels, c0 + job->channels);
    int64_t places[FC_PLACES];
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t c = c0, k0, k1; c < c1;) {
            const int64_t k = tap * p->in_channels + c;
            fc_gemm_block(g, k / g->span * fc_gemm_blocks_per_span(g) + k % g->span / g->block, &k0, &k1);
            const int64_t end = fc_min(c1, c + k1 - k);
            int64_t at = tile_start(plan, tile, k0, k1) + (k - k0) * g->out_tile;
            for (; c < end; c++, at += g->out_tile) places[(c - c0) * taps + tap] = at;
        }
    fc_weight_order order = order_of(plan);
    order.places = places;
    const int64_t element = fc_bytes(g->kernel->types.weight);
    g->kernel->pack(&order, job->wei + group * p->wei.group * element, job->weights + group * g->group_packed * element,
                    c0 * taps, c1 * taps, tile);
}

fc_status fc_gemm_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const int64_t element = fc_bytes(p->types.destination), out = fc_gemm_packed_channels(plan);
    const size_t row = (size_t)(p->out_channels * element);
    memset(packed, 0, fc_gemm_bias_bytes(plan));
    for (int64_t g = 0; bias && g < p->groups; g++)
        memcpy((char *)packed + g * out * element, (const char *)bias + (size_t)g * row, row);
    if (fc_gemm_of(plan)->depth == 0) return FC_OK;
    pack_job job = {.plan = plan, .wei = wei, .weights = (char *)packed + fc_gemm_bias_bytes(plan)};
    const fc_gemm *g = fc_gemm_of(plan);
    if (g->in_passing) {
        memcpy(job.weights, &wei, sizeof wei);
        return FC_OK;
    }
    const int worthwhile = fc_worthwhile_threads(0.2e-9 * (double)(g->depth * out * p->groups), threads);
    if (g->order > 1 && fc_taps(p) > 1 && fc_taps(p) <= FC_PLACES && fc_weights_adjoin(p)) {
        job.channels = fc_max(1, fc_min(64, FC_PLACES / fc_taps(p)));
        const int64_t parts = fc_ceil_div(p->in_channels, job.channels);
        fc_parallel(p->groups * parts * g->out_tiles, worthwhile, pack_channels_task, &job);
    } else fc_parallel(p->groups * g->blocks * g->out_tiles, worthwhile, pack_task, &job);
    return FC_OK;
}

static void stage_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    char *packed = fc_operand(call, stage->at.wei);
    const size_t bias = fc_gemm_bias_bytes(stage->plan);
    const pack_job job = {.plan = stage->plan, .wei = fc_operand(call, stage->at.other[0]), .weights = packed + bias};
    if (task == 0) memset(packed, 0, bias);
    pack_task((void *)&job, task, thread);
}

void fc_gemm_pack_stage(const fc_plan *plan, fc_list *list) {
    const fc_gemm *g = fc_gemm_of(plan);
    fc_list_stage(list, plan, stage_task, plan->problem.groups * g->blocks * g->out_tiles, NULL);
}
