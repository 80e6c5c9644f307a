// SPDX-License-Identifier: BSD-3-Clause
//
// weight_winograd.c - the weight gradient by F(m, r), the transpose of the forward form: with y = A^T [(G w) * (B^T x)] A,
//
//   input     V[point][tile][block of taps][channel] = B^T x B
//   output    Z[point][tile][out channel]            = A d_dst A^T
//   multiply  S[point][out channel][column]          = sum over tiles of Z * V, a product per point whose depth are tiles
//   taps      d_wei                                  = G^T S G
//
// so that the sum over tiles costs the multiplications of the forward form, and the last transform is made once.  Tiles
// are taken in chunks: as many as keep V and Z in their share of L3, or in the size of S, which each chunk reads and writes.
// What one thread writes and another reads may take twice as long as from a cache of its own.  So one thread
//
//   in slices   has the V, Z and S of a slice of each chunk, where S is small enough for several; the last transform adds
//               them up
//   in blocks   multiplies a block of S and finds its taps, which then is never in memory, where one chunk is all and S
//               exceeds the share of L3: many channels, few tiles
//   in points   has those of a point, otherwise
//
// Slices do not depend on the threads, and so every sum is the same for any number of them.
//
// What is not finite in a tile, or overflows on its way, spoils every tap of the channels that it belongs to, some of which
// may not see it: at the border.  The last transform tells, and then the whole gradient is summed directly: the stages of a
// child that otherwise return at once.
#include "conv/winograd.h"
#include "grad/weight_taps.h"

enum { FC_TILES_K = 256, FC_SLICES = 4 }; // tiles of a block of the product: the error of sums, and Z in L1

// The state of a plan.
typedef struct winograd_grad {
    fc_winograd_form form;
    const fc_gemm_kernel *gemm; // over pixels: output channels for rows, columns of V for pixels
    int64_t tiles_h, tiles_w, tiles;
    int64_t most;                // tiles of a chunk
    int64_t columns, pitch;      // of V, and from tile to tile
    int64_t out_tile, out_tiles; // output channels
    int64_t parts;               // blocks of nr input channels
    int64_t slices;              // of a chunk
    int64_t down, across;        // blocks of S: tiles of output channels and of columns; 0: not in blocks
} winograd_grad;

static const winograd_grad *grad_of(const fc_plan *plan) { return plan->state; }

static int64_t sum_tiles(const winograd_grad *w) { return fc_winograd_blocks(&w->form) * w->parts; }
static int64_t tile_elements(const winograd_grad *w) { return w->out_tile * w->gemm->nr; }
static int64_t sums_point(const winograd_grad *w) { return w->out_tiles * sum_tiles(w) * tile_elements(w); }

// V and Z of a tile, of all output channels.
static double tile_bytes(const winograd_grad *w) {
    return (double)w->form.points * (double)(w->pitch + w->out_tiles * w->out_tile) * (double)sizeof(float);
}

static double sums_bytes(const winograd_grad *w) {
    return (double)w->form.points * (double)sums_point(w) * (double)sizeof(float);
}

static winograd_grad shape_of(const fc_problem *p, const fc_kernels *k, const fc_machine *machine, int64_t m) {
    winograd_grad w = {.form = fc_winograd_form_of(p, m), .gemm = &k->gemm_pixels};
    w.tiles_h = fc_ceil_div(p->axis[1].out, w.form.sides == 2 ? m : 1);
    w.tiles_w = fc_ceil_div(p->axis[2].out, m);
    w.tiles = p->batch * p->axis[0].out * w.tiles_h * w.tiles_w;
    w.columns = fc_winograd_blocks(&w.form) * p->in_channels;
    w.pitch = fc_odd_lines(w.columns);
    w.out_tiles = fc_ceil_div(p->out_channels, w.gemm->mr);
    w.out_tile = fc_ceil_div(p->out_channels, w.out_tiles);
    w.parts = fc_ceil_div(p->in_channels, w.gemm->nr);
    const double share = 0.375 * (double)machine->l3, sums = sums_bytes(&w), room = fmax(share, sums);
    w.most = fc_even(w.tiles, fc_max(1, (int64_t)fmin(room / tile_bytes(&w), (double)w.tiles)));
    w.slices = w.most < w.tiles ? fc_clamp(1, (int64_t)(share / 2 / sums), fc_min(FC_SLICES, w.most)) : 1;
    if (w.most == w.tiles && sums > share) { // half of the second level for a block of about as many rows as columns
        const int64_t tiles = machine->l2 / 2 / (w.form.points * tile_elements(&w) * (int64_t)sizeof(float));
        w.across = fc_max(1, (int64_t)sqrt((double)(tiles * w.out_tile) / (double)w.gemm->nr));
        w.down = fc_max(1, tiles / w.across);
    }
    return w;
}

static const char *refuse(const fc_request *r, int64_t m) {
    const char *const refusal = fc_winograd_refuses(r->op->problem, 1);
    if (refusal) return refusal;
    const winograd_grad w = shape_of(r->op->problem, r->kernels, &r->options->machine, m);
    if (w.tiles == 0) return "no images to sum over";
    if (tile_bytes(&w) > 0.375 * (double)r->options->machine.l3)
        return "one tile of so many taps and channels exceeds its share of the third-level cache";
    fc_options direct = *r->options;
    direct.algorithm = FC_DIRECT;
    return r->planner->ask_own(r->op, &direct).refusal; // for what is not finite
}

static double cost(const fc_request *r, int64_t m) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const winograd_grad w = shape_of(p, k, &r->options->machine, m);
    const double points = (double)w.form.points, tiles = (double)w.tiles, blocks = (double)fc_winograd_blocks(&w.form);
    const double lanes = fc_cost_lanes(p->in_channels, w.gemm, k, &r->options->machine);
    const double rows = (double)p->out_channels / (double)w.out_tiles;
    const double macs = points * tiles * (double)p->out_channels * blocks * lanes * fmax(rows, 4.0) / rows;
    const int64_t in = fc_ceil_div(p->in_channels, k->vl) + (p->in_channels % k->vl != 0);
    const double found = (double)p->out_channels * blocks * (double)in; // of S, by their taps
    const double vectors =
        points * (tiles * (blocks * (double)in + (double)(w.out_tiles * fc_ceil_div(w.out_tile, k->vl))) + found);
    const double chunks = (double)fc_ceil_div(w.tiles, w.most), per_chunk = ceil(tiles / chunks / FC_TILES_K);
    const double products = points * (double)(w.out_tiles * sum_tiles(&w)) * chunks * per_chunk;
    // Sums that the third level does not hold go to memory and back with each chunk.  For blocks V and Z are read again.
    const double held = sums_bytes(&w);
    const double sums = w.down ? 0 : 2 * chunks * fmax(c->staged * held, fc_cost_weights(held, r->options));
    const double again = w.down ? (double)(w.out_tiles / w.down + sum_tiles(&w) / w.across) / 2 : 1;
    const double taps = 4 * c->staged * (double)(fc_weights(p) * k->element); // one by one, to fresh pages as a rule
    const double travel = c->staged * (1 + again) * tiles * tile_bytes(&w) + sums + taps;
    return 4 * c->fixed * chunks +
           (double)p->groups * (fc_cost_macs(macs, k, c) + c->product * products + c->transform * vectors + travel);
}

static double packing(const fc_request *r, int64_t m) {
    (void)r, (void)m;
    return 0; // d_dst is read where it lies
}

static fc_status layout(fc_plan *plan, const fc_request *r, int64_t m, char message[FC_MESSAGE]) {
    winograd_grad *w = plan->state = malloc(sizeof *w);
    plan->parts = calloc(1, sizeof *plan->parts);
    if (!w || !plan->parts) return FC_NO_MEMORY;
    *w = shape_of(&plan->problem, plan->kernels, &r->options->machine, m);
    fc_options direct = *r->options;
    direct.algorithm = FC_DIRECT;
    const fc_status status = r->planner->plan(r->op, &direct, &plan->parts->plan, message);
    plan->part_count = status == FC_OK;
    return status;
}

// ------------------------------------------------------------------------------------------------------------ stages

// Tiles [first, first + count) of a group.  In shared memory: flags, S, V and Z.
typedef struct grad_share {
    int64_t group, first, count;
    int64_t tile_parts, channel_parts; // transforms
    int64_t out_shares;                // products
    size_t sums, v, z;                 // bytes from the start
} grad_share;

static int64_t v_point(const winograd_grad *w) { return fc_odd_lines(w->most * w->pitch + w->gemm->nr); }
static int64_t z_point(const winograd_grad *w) { return fc_odd_lines(w->most * w->out_tiles * w->out_tile); }

static float *shared(const fc_stage *stage, const fc_call *call, size_t at) {
    return (float *)((char *)fc_operand(call, stage->at.shared) + at);
}

static fc_winograd_tiles tiles_of(const fc_stage *stage, int64_t part) {
    const winograd_grad *w = grad_of(stage->plan);
    const grad_share *s = stage->context;
    const int64_t t0 = part * s->count / s->tile_parts, t1 = (part + 1) * s->count / s->tile_parts;
    return (fc_winograd_tiles){
        .problem = &stage->plan->problem,
        .form = w->form,
        .tiles_h = w->tiles_h,
        .tiles_w = w->tiles_w,
        .tile = s->first + t0,
        .count = t1 - t0,
    };
}

static void transform_input(const fc_stage *stage, fc_call *call, int64_t part, int64_t block, int64_t channels) {
    const fc_problem *p = &stage->plan->problem;
    const winograd_grad *w = grad_of(stage->plan);
    const grad_share *s = stage->context;
    fc_winograd_tiles work = tiles_of(stage, part);
    int64_t taps[FC_AXES];
    fc_winograd_block_at(&w->form, block, taps);
    for (int i = 0; i < FC_AXES; i++) work.shift[i] = taps[i] * p->axis[i].dilation;
    work.src = (const float *)fc_operand(call, stage->at.src) + s->group * p->src.group;
    work.channel = channels * FC_INPUT_CHANNELS;
    work.channels = fc_min(FC_INPUT_CHANNELS, p->in_channels - work.channel);
    work.points = shared(stage, call, s->v) + (work.tile - s->first) * w->pitch + block * p->in_channels;
    work.point = v_point(w);
    work.pitch = w->pitch;
    stage->plan->kernels->winograd_input(&work);
}

// Z [point][tile of output channels][tile][out_tile], as the product reads it.
static void transform_output(const fc_stage *stage, fc_call *call, int64_t part, int64_t o) {
    const fc_problem *p = &stage->plan->problem;
    const winograd_grad *w = grad_of(stage->plan);
    const grad_share *s = stage->context;
    fc_winograd_tiles work = tiles_of(stage, part);
    work.src = (const float *)fc_operand(call, stage->at.wei) + s->group * p->dst.group;
    work.channel = o * w->out_tile;
    work.channels = fc_min(w->out_tile, p->out_channels - work.channel);
    work.points = shared(stage, call, s->z) + o * s->count * w->out_tile + (work.tile - s->first) * work.channels;
    work.point = z_point(w);
    work.pitch = work.channels;
    stage->plan->kernels->winograd_grad(&work);
}

// Of a part of the tiles, whose tasks are neighbours, those of its input; behind them come those of its output.
static int64_t input_tasks(const winograd_grad *w, const grad_share *s) {
    return s->channel_parts * fc_winograd_blocks(&w->form);
}

static void transform_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const winograd_grad *w = grad_of(stage->plan);
    const grad_share *s = stage->context;
    const int64_t inputs = input_tasks(w, s), each = inputs + w->out_tiles, part = task / each, at = task % each;
    if (at < inputs) transform_input(stage, call, part, at / s->channel_parts, at % s->channel_parts);
    else transform_output(stage, call, part, at - inputs);
}

// Some of the products of a point over a slice of the tiles: out tiles [o0, o1) by tiles of columns [t0, t1).
typedef struct products {
    int64_t point, slice, o0, o1, t0, t1;
    float *sums; // of the first, [o][t][tile]
    int64_t pitch;
} products;

static void multiply(const fc_stage *stage, fc_call *call, const products *x) {
    const fc_problem *p = &stage->plan->problem;
    const winograd_grad *w = grad_of(stage->plan);
    const grad_share *s = stage->context;
    const int64_t first = x->slice * s->count / w->slices, count = (x->slice + 1) * s->count / w->slices - first;
    const float *v = shared(stage, call, s->v) + x->point * v_point(w);
    const float *z = shared(stage, call, s->z) + x->point * z_point(w);
    int64_t offsets[FC_TILES_K];
    for (int64_t k = 0; k < FC_TILES_K; k++) offsets[k] = k * w->pitch;
    const int64_t steps = fc_ceil_div(count, FC_TILES_K);
    for (int64_t step = 0; step < steps && !fc_must_stop(); step++) {
        const int64_t k0 = first + step * count / steps, k1 = first + (step + 1) * count / steps;
        for (int64_t o = x->o0; o < x->o1; o++) {
            const int64_t m = fc_min(w->out_tile, p->out_channels - o * w->out_tile);
            fc_gemm_tile tile = {
                .m = m,
                .a_row = m,
                .depth = k1 - k0,
                .a = z + o * s->count * w->out_tile + k0 * m,
                .b_offset = offsets,
                .first = s->first == 0 && step == 0,
                .sums = x->sums + (o - x->o0) * x->pitch,
            };
            tile.ahead = (const float *)tile.a + s->count * w->out_tile; // of the next tile of output channels
            tile.ahead_step = fc_ceil_div(m * (int64_t)sizeof(float), x->t1 - x->t0);
            for (int64_t t = x->t0; t < x->t1; t++) {
                const int64_t c = t % w->parts * w->gemm->nr;
                tile.b = v + k0 * w->pitch + t / w->parts * p->in_channels + c;
                tile.columns = fc_min(w->gemm->nr, p->in_channels - c);
                w->gemm->run(&tile);
                tile.sums = (float *)tile.sums + tile_elements(w);
                tile.ahead = (const char *)tile.ahead + tile.depth * tile.ahead_step;
            }
        }
    }
}

static void multiply_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const winograd_grad *w = grad_of(stage->plan);
    const grad_share *s = stage->context;
    const int64_t point = task % w->form.points, share = task / w->form.points % s->out_shares;
    products x = {.point = point, .slice = task / w->form.points / s->out_shares, .t1 = sum_tiles(w)};
    x.pitch = sum_tiles(w) * tile_elements(w);
    x.o0 = share * w->out_tiles / s->out_shares;
    x.o1 = (share + 1) * w->out_tiles / s->out_shares;
    x.sums = shared(stage, call, s->sums) + (x.slice * w->form.points + point) * sums_point(w) + x.o0 * x.pitch;
    multiply(stage, call, &x);
}

// Taps of a tile of output channels and one of columns, from the sums of all points.
static void find_taps(const fc_stage *stage, fc_call *call, int64_t o, int64_t tile, const float *sums, int64_t point,
                      float *taps) {
    const fc_problem *p = &stage->plan->problem;
    const winograd_grad *w = grad_of(stage->plan);
    const grad_share *s = stage->context;
    const int64_t nr = w->gemm->nr, r = w->form.r;
    const int64_t channel = tile % w->parts * nr;
    const fc_winograd_taps work = {
        .form = w->form,
        .rows = fc_min(w->out_tile, p->out_channels - o * w->out_tile),
        .columns = fc_min(nr, p->in_channels - channel),
        .g = fc_winograd_g(&w->form),
        .points = sums,
        .point = point,
        .slices = w->slices,
        .slice = w->form.points * point,
        .taps = taps,
    };
    char *flags = fc_operand(call, stage->at.shared);
    flags[(s->group * w->out_tiles + o) * sum_tiles(w) + tile] = (char)!stage->plan->kernels->winograd_grad_taps(&work);
    const int64_t step = work.rows * nr, down = w->form.sides == 2 ? r : 1;
    fc_tap_box box = {.channel = channel, .channels = work.columns, .step = {down * r * step, r * step, step}};
    fc_winograd_block_at(&w->form, tile / w->parts, box.first);
    box.count[0] = 1;
    box.count[1] = fc_min(down, p->axis[1].kernel - box.first[1]);
    box.count[2] = fc_min(r, p->axis[2].kernel - box.first[2]);
    float *d_wei = (float *)fc_operand(call, stage->at.dst) + s->group * p->wei.group;
    for (int64_t i = 0; i < work.rows; i++) {
        box.sums = taps + i * nr;
        fc_store_taps(stage->plan->kernels, p, &box, d_wei + (o * w->out_tile + i) * p->wei.outer);
    }
}

static void taps_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const winograd_grad *w = grad_of(stage->plan);
    const grad_share *s = stage->context;
    const float *sums = shared(stage, call, s->sums) + task * tile_elements(w);
    float *taps = fc_own_scratch(call, thread);
    find_taps(stage, call, task / sum_tiles(w), task % sum_tiles(w), sums, sums_point(w), taps);
}

// Products and taps of a block of S.
static void block_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const winograd_grad *w = grad_of(stage->plan);
    const int64_t blocks = fc_ceil_div(w->out_tiles, w->down), tile = tile_elements(w);
    const int64_t point = w->down * w->across * tile;
    float *sums = fc_own_scratch(call, thread), *taps = sums + w->form.points * point;
    products x = {.o0 = task % blocks * w->down, .t0 = task / blocks * w->across, .sums = sums};
    x.o1 = fc_min(x.o0 + w->down, w->out_tiles);
    x.t1 = fc_min(x.t0 + w->across, sum_tiles(w));
    x.pitch = w->across * tile;
    for (; x.point < w->form.points; x.point++, x.sums += point) multiply(stage, call, &x);
    for (int64_t o = x.o0; o < x.o1; o++)
        for (int64_t t = x.t0; t < x.t1; t++)
            find_taps(stage, call, o, t, sums + (o - x.o0) * x.pitch + (t - x.t0) * tile, point, taps);
}

// A stage of the child, for when there are flags among so many.
typedef struct again {
    fc_stage_fn run;
    const void *context;
    fc_place flags;
    int64_t count;
} again;

static void again_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const again *a = stage->context;
    if (!memchr(fc_operand(call, a->flags), 1, (size_t)a->count)) return;
    fc_stage direct = *stage;
    direct.context = a->context;
    a->run(&direct, call, task, thread);
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_problem *p = &plan->problem;
    const winograd_grad *w = grad_of(plan);
    const int64_t count = p->groups * w->out_tiles * sum_tiles(w);
    const int64_t blocks = w->down ? fc_ceil_div(w->out_tiles, w->down) * fc_ceil_div(sum_tiles(w), w->across) : 0;
    const size_t flags = fc_align((size_t)count), element = sizeof(float);
    const size_t sums = w->down ? 0 : fc_align((size_t)(w->slices * w->form.points * sums_point(w)) * element);
    const size_t v = fc_align((size_t)(w->form.points * v_point(w)) * element);
    const size_t z = fc_align((size_t)(w->form.points * z_point(w)) * element);
    const int64_t own = w->form.r * w->form.r + w->form.points * w->down * w->across;
    grad_share s = {.sums = flags, .v = flags + sums, .z = flags + sums + v};
    fc_list_scratch(list, s.z + z, (size_t)(own * tile_elements(w)) * element);
    s.channel_parts = fc_ceil_div(p->in_channels, FC_INPUT_CHANNELS);
    s.out_shares = w->form.points % threads ? fc_min(w->out_tiles, threads) : 1;
    for (s.group = 0; s.group < p->groups; s.group++) {
        const void *context = NULL;
        for (s.first = 0; s.first < w->tiles; s.first += w->most) {
            s.count = fc_min(w->most, w->tiles - s.first);
            s.tile_parts = fc_ceil_div(s.count, w->tiles_w);
            context = fc_list_keep(list, &s, sizeof s);
            fc_list_stage(list, plan, transform_task, s.tile_parts * (input_tasks(w, &s) + w->out_tiles), context);
            if (w->down) continue;
            fc_list_stage(list, plan, multiply_task, w->slices * s.out_shares * w->form.points, context);
        }
        if (w->down) fc_list_stage(list, plan, block_task, blocks, context);
        else fc_list_stage(list, plan, taps_task, w->out_tiles * sum_tiles(w), context);
    }
    const fc_plan *direct = plan->parts->plan;
    const fc_place shared = list->at.shared;
    const int64_t before = list->schedule->stage_count;
    list->at.shared = fc_behind(shared, (int64_t)flags);
    direct->kind->stages(direct, threads, list);
    list->at.shared = shared;
    for (int64_t i = before; list->status == FC_OK && i < list->schedule->stage_count; i++) {
        fc_stage *stage = &list->schedule->stages[i];
        const again a = {stage->run, stage->context, shared, count};
        stage->context = fc_list_keep(list, &a, sizeof a);
        stage->run = again_task;
    }
}

#define FC_WINOGRAD_GRAD(m_, traits_)                                                                                  \
    static const char *refuse_f##m_(const fc_request *r) { return refuse(r, m_); }                                     \
    static double cost_f##m_(const fc_request *r) { return cost(r, m_); }                                              \
    static double packing_f##m_(const fc_request *r) { return packing(r, m_); }                                        \
    static fc_status layout_f##m_(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {                      \
        return layout(plan, r, m_, message);                                                                           \
    }                                                                                                                  \
    const fc_kind fc_kind_weight_winograd_f##m_ = {                                                                    \
        .name = "winograd_f" #m_,                                                                                      \
        .traits = FC_SERVES_WEIGHT | FC_INEXACT | traits_,                                                             \
        .rows = 1,                                                                                                     \
        .refuse = refuse_f##m_,                                                                                        \
        .cost = cost_f##m_,                                                                                            \
        .packing = packing_f##m_,                                                                                      \
        .layout = layout_f##m_,                                                                                        \
        .stages = stages,                                                                                              \
    };

FC_WINOGRAD_GRAD(2, 0)
FC_WINOGRAD_GRAD(3, 0)
FC_WINOGRAD_GRAD(4, 0)
FC_WINOGRAD_GRAD(6, FC_BY_NAME)
