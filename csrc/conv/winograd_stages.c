// SPDX-License-Identifier: BSD-3-Clause
//
// winograd_stages.c - how a plan of winograd.c runs: the stages of a chunk of tiles, by one thread or by all, and with weights
// that are transformed before or in passing.
#include "conv/activate.h"
#include "conv/winograd_plan.h"

enum { FC_WINOGRAD_BLOCK_K = 512 };

// Tiles of a chunk: as many as may be, in chunks of even size, and as many chunks for each thread.
static int64_t chunk_of(const fc_winograd *w, int64_t groups, int threads) {
    int64_t chunks = fc_max(1, fc_ceil_div(w->tiles, w->most));
    if (w->fused && groups % threads && chunks < 16 * threads) chunks = fc_round_up(chunks, threads);
    return fc_max(1, fc_ceil_div(w->tiles, chunks));
}

// Elements between points of V and of M.
static int64_t v_point(const fc_winograd *w, int64_t count) { return fc_odd_lines(count * w->pitch); }
static int64_t m_point(const fc_plan *plan, int64_t count) {
    return fc_odd_lines(count * fc_winograd_of(plan)->gemm->nr);
}

static size_t v_bytes(const fc_plan *plan, int64_t chunk) {
    const fc_winograd *w = fc_winograd_of(plan);
    return fc_align((size_t)(w->form.points * v_point(w, chunk) * plan->kernels->element));
}

// Of one block of output channels.
static size_t m_bytes(const fc_plan *plan, int64_t chunk) {
    return fc_align((size_t)(fc_winograd_of(plan)->form.points * m_point(plan, chunk) * plan->kernels->element));
}

// ----------------------------------------------------------------------------------------------------------- stages

// A chunk of tiles of one group on its way through the stages.
typedef struct winograd_chunk {
    const fc_plan *plan;
    const char *src, *weights, *taps, *bias, *residual;
    char *dst, *v, *m;
    int64_t taps_part; // bytes from block to block of output channels
    int64_t first, count;
} winograd_chunk;

static fc_winograd_tiles stage_of(const winograd_chunk *c, int64_t tile0, int64_t tile1) {
    const fc_winograd *w = fc_winograd_of(c->plan);
    return (fc_winograd_tiles){
        .problem = &c->plan->problem,
        .form = w->form,
        .tiles_h = w->tiles_h,
        .tiles_w = w->tiles_w,
        .tile = c->first + tile0,
        .count = tile1 - tile0,
    };
}

// Of one block of taps.
static void input_stage(const winograd_chunk *c, int64_t tile0, int64_t tile1, int64_t block, int64_t channel0,
                        int64_t channel1) {
    const fc_kernels *k = c->plan->kernels;
    const fc_problem *p = &c->plan->problem;
    const fc_winograd *w = fc_winograd_of(c->plan);
    fc_winograd_tiles work = stage_of(c, tile0, tile1);
    int64_t taps[FC_AXES];
    fc_winograd_block_at(&w->form, block, taps);
    for (int i = 0; i < FC_AXES; i++) work.shift[i] = taps[i] * p->axis[i].dilation;
    work.src = c->src;
    work.channel = channel0;
    work.channels = channel1 - channel0;
    work.points = c->v + (tile0 * w->pitch + block * p->in_channels) * k->element;
    work.point = v_point(w, c->count);
    work.pitch = w->pitch;
    k->winograd_input(&work);
}

// A block [k0, k1) of the sums M[point] of one block of output channels, by the weights `u` of that.
static void multiply_block(const winograd_chunk *c, int64_t point, int64_t part, int64_t k0, int64_t k1, const char *u,
                           char *m) {
    const fc_winograd *w = fc_winograd_of(c->plan);
    const int64_t zero = 0, rows = fc_ceil_div(c->count, w->gemm->mr), element = c->plan->kernels->element;
    const char *v = c->v + (point * v_point(w, c->count) + k0) * element;
    const int64_t columns = fc_min(w->gemm->nr, c->plan->problem.out_channels - part * w->gemm->nr);
    const int64_t ahead_step = fc_ceil_div(w->gemm->nr * element, rows);
    fc_gemm_tile tile = {
        .columns = columns,
        .a_row = w->pitch,
        .segments = 1,
        .a_segment = &zero,
        .depth = k1 - k0,
        .first = k0 == 0,
        .b = u,
        .ahead = u + (k1 - k0) * w->gemm->nr * element,
        .ahead_step = ahead_step,
    };
    m += point * m_point(c->plan, c->count) * element;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t t0 = r * c->count / rows, t1 = (r + 1) * c->count / rows;
        tile.m = t1 - t0;
        tile.a = v + t0 * w->pitch * element;
        tile.sums = m + t0 * w->gemm->nr * element;
        w->gemm->run(&tile);
        tile.ahead = (const char *)tile.ahead + tile.depth * ahead_step;
    }
}

// M[point] of one block of output channels; `m` is the block's.
static void multiply_stage(const winograd_chunk *c, int64_t point, int64_t part, char *m) {
    const fc_winograd *w = fc_winograd_of(c->plan);
    const int64_t at = part * fc_winograd_u_part(w) + point * fc_winograd_u_point(w, w->depth);
    for (int64_t k0 = 0; k0 < w->depth; k0 += FC_WINOGRAD_BLOCK_K)
        multiply_block(c, point, part, k0, fc_min(k0 + FC_WINOGRAD_BLOCK_K, w->depth),
                       c->weights + (at + k0 * w->gemm->nr) * c->plan->kernels->element, m);
}

// The outputs of `work`, which have been stored, one row of tiles after the other.
static void activate(const winograd_chunk *c, const fc_winograd_tiles *work) {
    const fc_problem *p = &c->plan->problem;
    const int64_t m = work->form.m, rows = work->form.sides == 2 ? m : 1, end = work->tile + work->count;
    for (int64_t tile = work->tile, tiles; tile < end; tile += tiles) {
        const int64_t line = tile / work->tiles_w, plane = line / work->tiles_h;
        const int64_t x = tile % work->tiles_w * m, y = line % work->tiles_h * rows;
        tiles = fc_min(end, (line + 1) * work->tiles_w) - tile;
        const int64_t at = plane / p->axis[0].out * p->dst.outer + plane % p->axis[0].out * p->dst.axis[0] +
                           y * p->dst.axis[1] + x * p->dst.axis[2] + work->channel * p->dst.channel;
        const fc_box box = {
            {work->channels, fc_min(rows, p->axis[1].out - y), fc_min(tiles * m, p->axis[2].out - x)},
            {p->dst.channel, p->dst.axis[1], p->dst.axis[2]},
        };
        fc_activate_box(c->plan, (char *)work->dst + at * c->plan->kernels->element, &box);
    }
}

static void output_stage(const winograd_chunk *c, int64_t tile0, int64_t tile1, int64_t part, const char *m) {
    const fc_kernels *k = c->plan->kernels;
    const int64_t nr = fc_winograd_of(c->plan)->gemm->nr;
    fc_winograd_tiles work = stage_of(c, tile0, tile1);
    const fc_problem *p = &c->plan->problem;
    work.src = c->src;
    work.dst = c->dst;
    work.residual = p->pooled ? NULL : c->residual;
    work.wei = c->taps + part * c->taps_part;
    work.bias = c->bias;
    work.channel = part * nr;
    work.channels = fc_min(nr, p->out_channels - work.channel);
    work.points = (char *)m + tile0 * nr * k->element;
    work.point = m_point(c->plan, c->count);
    work.pitch = nr;
    k->winograd_output(&work);
    if (fc_activates(c->plan)) activate(c, &work);
}

// ---------------------------------------------------------------------------------------------------------- running

// Tiles [first, first + count) of a group; of a fused stage, of every task as many.
typedef struct winograd_share {
    int64_t group, first, count;
    int64_t tile_parts, channel_parts; // how a stage that threads share is cut into tasks
} winograd_share;

static winograd_chunk chunk_at(const fc_stage *stage, const fc_call *call, int64_t group, int64_t first,
                               int64_t count) {
    const fc_plan *plan = stage->plan;
    const fc_problem *p = &plan->problem;
    const fc_winograd *w = fc_winograd_of(plan);
    const int64_t element = plan->kernels->element, row = w->parts * w->gemm->nr;
    const int64_t taps_part = fc_winograd_taps_part(plan) * element;
    const char *packed = fc_operand(call, stage->at.wei), *residual = fc_operand(call, stage->at.residual);
    winograd_chunk c = {
        .plan = plan,
        .src = (const char *)fc_operand(call, stage->at.src) + group * p->src.group * element,
        .bias = packed + group * row * element,
        .weights = packed + p->groups * row * element,
        .residual = residual ? residual + group * p->dst.group * element : NULL,
        .dst = (char *)fc_operand(call, stage->at.dst) + group * p->dst.group * element,
        .first = first,
        .count = count,
    };
    if (w->passing) {
        memcpy(&c.weights, c.weights, sizeof c.weights);
        c.weights += group * p->wei.group * element;
        return c;
    }
    const int64_t u = w->parts * fc_winograd_u_part(w) * element;
    c.taps = c.weights + p->groups * u + group * w->parts * taps_part;
    c.taps_part = taps_part;
    c.weights += group * u;
    return c;
}

static void fused_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_winograd *w = fc_winograd_of(plan);
    const winograd_share *share = stage->context;
    const int64_t chunks = fc_ceil_div(w->tiles, share->count), first = task % chunks * share->count;
    winograd_chunk c = chunk_at(stage, call, task / chunks, first, fc_min(share->count, w->tiles - first));
    c.v = fc_own_scratch(call, thread);
    c.m = c.v + v_bytes(plan, share->count);
    for (int64_t block = 0; block < fc_winograd_blocks(&w->form); block++)
        input_stage(&c, 0, c.count, block, 0, plan->problem.in_channels);
    for (int64_t part = 0; part < w->parts; part++) {
        for (int64_t point = 0; point < w->form.points; point++) multiply_stage(&c, point, part, c.m);
        output_stage(&c, 0, c.count, part, c.m);
    }
}

// A chunk that all threads share: V, then M of each block of output channels.
static winograd_chunk shared_chunk(const fc_stage *stage, const fc_call *call) {
    const winograd_share *share = stage->context;
    winograd_chunk c = chunk_at(stage, call, share->group, share->first, share->count);
    c.v = fc_operand(call, stage->at.shared);
    c.m = c.v + v_bytes(stage->plan, share->count);
    return c;
}

static char *m_of(const winograd_chunk *c, int64_t part) { return c->m + (size_t)part * m_bytes(c->plan, c->count); }

static void input_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk c = shared_chunk(stage, call);
    const winograd_share *share = stage->context;
    const int64_t channels = c.plan->problem.in_channels, parts = fc_ceil_div(channels, FC_INPUT_CHANNELS);
    const int64_t blocks = fc_winograd_blocks(&fc_winograd_of(c.plan)->form);
    const int64_t channel = fc_digit(&task, parts) * FC_INPUT_CHANNELS, block = fc_digit(&task, blocks), t = task;
    input_stage(&c, t * c.count / share->tile_parts, (t + 1) * c.count / share->tile_parts, block, channel,
                fc_min(channel + FC_INPUT_CHANNELS, channels));
}

static void multiply_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk c = shared_chunk(stage, call);
    const fc_winograd *w = fc_winograd_of(c.plan);
    const winograd_share *share = stage->context;
    const int64_t slice = task % share->channel_parts, point = task / share->channel_parts;
    const int64_t end = (slice + 1) * w->parts / share->channel_parts;
    for (int64_t part = slice * w->parts / share->channel_parts; part < end; part++)
        multiply_stage(&c, point, part, m_of(&c, part));
}

// A block of output channels of all tiles: its weights are transformed, some input channels at a time, and meet V at once. Of
// a thread's own are U of those, the weights as they are, and M.
static void passing_task(const fc_stage *stage, fc_call *call, int64_t part, int thread) {
    winograd_chunk c = shared_chunk(stage, call);
    const fc_plan *plan = c.plan;
    const fc_winograd *w = fc_winograd_of(plan);
    const int64_t point = fc_winograd_u_point(w, w->passing), taps = fc_taps(&plan->problem) * w->gemm->nr;
    float *const u = fc_own_scratch(call, thread), *const weights = u + w->form.points * point;
    c.taps = (const char *)weights;
    c.m = (char *)(weights + fc_winograd_taps_part(plan));
    for (int64_t k0 = 0, k1; k0 < w->depth && !fc_must_stop(); k0 = k1) {
        k1 = fc_min(k0 + w->passing, w->depth);
        const fc_winograd_packing packing = {
            .wei = (const float *)c.weights,
            .part = part,
            .channel = k0,
            .channels = k1 - k0,
            .points = u,
            .point = point,
            .taps = weights + k0 * taps,
        };
        fc_winograd_pack_part(plan, &packing);
        for (int64_t i = 0; i < w->form.points; i++)
            multiply_block(&c, i, part, k0, k1, (const char *)(u + i * point), c.m);
    }
    output_stage(&c, 0, c.count, part, c.m);
}

static void output_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const winograd_chunk c = shared_chunk(stage, call);
    const winograd_share *share = stage->context;
    const int64_t part = fc_digit(&task, fc_winograd_of(c.plan)->parts), t = task;
    output_stage(&c, t * c.count / share->tile_parts, (t + 1) * c.count / share->tile_parts, part, m_of(&c, part));
}

static void shared_stages(const fc_plan *plan, int64_t most, int threads, fc_list *list) {
    const fc_problem *p = &plan->problem;
    const fc_winograd *w = fc_winograd_of(plan);
    const int64_t inputs = fc_winograd_blocks(&w->form) * fc_ceil_div(p->in_channels, FC_INPUT_CHANNELS);
    for (int64_t group = 0; group < p->groups; group++)
        for (int64_t first = 0; first < w->tiles; first += most) {
            winograd_share share = {.group = group, .first = first, .count = fc_min(most, w->tiles - first)};
            share.tile_parts = fc_ceil_div(share.count, w->tiles_w);
            share.channel_parts = w->form.points % threads ? fc_min(w->parts, threads) : 1;
            const void *context = fc_list_keep(list, &share, sizeof share);
            fc_list_stage(list, plan, input_task, share.tile_parts * inputs, context);
            if (w->passing) {
                fc_list_stage(list, plan, passing_task, w->parts, context);
                continue;
            }
            fc_list_stage(list, plan, multiply_task, w->form.points * share.channel_parts, context);
            fc_list_stage(list, plan, output_task, share.tile_parts * w->parts, context);
        }
}

void fc_winograd_stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_winograd *w = fc_winograd_of(plan);
    const int64_t groups = plan->problem.groups, chunk = w->passing ? w->tiles : chunk_of(w, groups, threads);
    const size_t v = v_bytes(plan, chunk), m = m_bytes(plan, chunk);
    if (w->passing) {
        const int64_t weights = w->form.points * fc_winograd_u_point(w, w->passing) + fc_winograd_taps_part(plan);
        fc_list_scratch(list, v, (size_t)(weights * plan->kernels->element) + m);
        shared_stages(plan, chunk, threads, list);
    } else if (w->fused) {
        fc_list_scratch(list, 0, v + m);
        const winograd_share share = {.count = chunk};
        const void *context = fc_list_keep(list, &share, sizeof share);
        fc_list_stage(list, plan, fused_task, fc_ceil_div(w->tiles, chunk) * groups, context);
    } else {
        fc_list_scratch(list, v + (size_t)w->parts * m, 0);
        shared_stages(plan, chunk, threads, list);
    }
}
