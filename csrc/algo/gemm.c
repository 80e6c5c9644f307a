// SPDX-License-Identifier: BSD-3-Clause
//
// gemm.c - convolution as matrix multiplication: the loop nest and its blocking, shared by im2col, pointwise and direct.
//
//   C[out channel][pixel] = sum over k = (input channel, tap) of  W[out channel][k] * X[k][pixel]
//
// One task takes a strip of pixels (and perhaps a part of the output channels) and runs
//
//   for each block of k            256 deep: a tile of weights (14 x 256 or 256 x 32 floats, 14-32 KiB) stays in L1,
//                                  and sums of 256 products are short enough to keep the error of direct summation
//     load                         the strip's columns become readable (packed, copied with padding, or in place)
//     for each tile of channels    weights stream from L2 or beyond, each once per strip
//       for each tile of pixels    columns stream from L2
//         kernel                   sums kept in registers over the block, between blocks in `sums`
//
// The strip is as wide as panel and sums leave room for in half an L2 (FC_STRIP_BYTES).
#include "algo/plan.h"

enum { FC_BLOCK_K = 256, FC_STRIP_BYTES = 448 << 10, FC_TARGETS_BYTES = 1 << 20, FC_PLACES = 4096 };

int fc_gemm_channels_form(const fc_problem *p, const fc_kernels *kernels) {
    const int enough = p->out_channels * 4 >= kernels->nr;
    // Rows shorter than the kernel are those of a weight gradient: its columns are packed along the kernel.
    if (p->dst.axis[2] == 1 && p->axis[2].out > 1) return enough && p->axis[2].out < p->axis[2].kernel;
    return p->dst.channel == 1 || enough;
}

fc_status fc_gemm_layout_make(fc_plan *plan, const fc_gemm_source *source, int channels_form, int64_t order,
                              int64_t block, int64_t span, int64_t table) {
    const fc_problem *p = &plan->problem;
    fc_gemm_layout *g = &plan->layout.gemm;
    const fc_kernels *k = plan->kernels;
    g->source = source;
    g->channels_form = channels_form;
    g->depth = p->in_channels * fc_taps(p);
    g->block = block ? block : fc_ceil_div(g->depth, fc_max(1, fc_ceil_div(g->depth, FC_BLOCK_K)));
    g->span = span ? span : fc_max(1, g->depth);
    g->blocks = fc_max(1, g->depth / g->span * fc_ceil_div(g->span, fc_max(1, g->block)));
    g->order = order;
    g->out_tiles = fc_ceil_div(p->out_channels, channels_form ? k->nr : k->mr);
    g->out_tile = channels_form ? k->nr : fc_ceil_div(p->out_channels, g->out_tiles);
    g->pixels = p->batch * fc_positions(p);
    g->contiguous = 1;
    // Axes from the innermost outwards join as long as each continues where the last one ends.
    int64_t side = channels_form ? 0 : p->dst.axis[2] == 1;
    for (int i = FC_AXES - 1; i >= -1 && side; i--) {
        const int64_t stride = i < 0 ? p->dst.outer : p->dst.axis[i], size = i < 0 ? p->batch : p->axis[i].out;
        if (size != 1 && stride != side) break;
        side = g->contiguous = g->contiguous * size;
    }
    const int64_t out = channels_form ? g->out_tiles * k->nr : p->out_channels;
    g->group_packed = fc_round_up(g->depth * out, FC_ALIGN);
    plan->packed_bytes =
        fc_align((size_t)(p->groups * out * k->element)) + (size_t)(p->groups * g->group_packed * k->element);
    g->segments = channels_form ? table : 0;
    plan->table = malloc(sizeof(int64_t) * (size_t)fc_max(1, table));
    return plan->table ? FC_OK : FC_NO_MEMORY;
}

static int64_t packed_channels(const fc_plan *plan) {
    const fc_gemm_layout *g = &plan->layout.gemm;
    return g->channels_form ? g->out_tiles * plan->kernels->nr : plan->problem.out_channels;
}

// ---------------------------------------------------------------------------------------------------------- packing

static int64_t blocks_per_span(const fc_gemm_layout *g) { return fc_max(1, g->blocks / fc_max(1, g->depth / g->span)); }

// The depths [k0, k1) of a block.
static void block_of(const fc_gemm_layout *g, int64_t block, int64_t *k0, int64_t *k1) {
    const int64_t per_span = blocks_per_span(g), start = block / per_span * g->span;
    *k0 = start + block % per_span * g->block;
    *k1 = fc_min(start + g->span, *k0 + g->block);
}

// Where a tile of the block [k0, k1) starts in the packed weights of a group.
static int64_t tile_start(const fc_plan *plan, int64_t tile, int64_t k0, int64_t k1) {
    return k0 * packed_channels(plan) + tile * plan->layout.gemm.out_tile * (k1 - k0);
}

typedef struct pack_job {
    const fc_plan *plan;
    const char *wei;
    char *weights;
    int64_t channels; // input channels of a task, where weights are packed in the order of the source
} pack_job;

static fc_weight_order order_of(const fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    const fc_gemm_layout *g = &plan->layout.gemm;
    return (fc_weight_order){
        .out_channels = p->out_channels,
        .channels = p->in_channels,
        .block = g->order,
        .taps = {p->axis[0].kernel, p->axis[1].kernel, p->axis[2].kernel},
        .view = p->wei,
        .tile = g->out_tile,
        .padded = g->channels_form,
        .in_order = (g->order == 1 || fc_taps(p) == 1) && fc_weights_adjoin(p),
    };
}

// A tile by a block of k.
static void pack_task(void *context, int64_t task, int thread) {
    (void)thread;
    const pack_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_gemm_layout *g = &plan->layout.gemm;
    const fc_problem *p = &plan->problem;
    const int64_t tile = task % g->out_tiles, block = task / g->out_tiles % g->blocks;
    const int64_t group = task / g->out_tiles / g->blocks;
    int64_t k0, k1;
    block_of(g, block, &k0, &k1);
    const fc_weight_order order = order_of(plan);
    const int64_t offset = group * g->group_packed + tile_start(plan, tile, k0, k1);
    plan->kernels->pack_weights(&order, job->wei + group * p->wei.group * plan->kernels->element,
                                job->weights + offset * plan->kernels->element, k0, k1, tile);
}

// A tile by some input channels with all of their taps, read once and in order.
static void pack_channels_task(void *context, int64_t task, int thread) {
    (void)thread;
    const pack_job *job = context;
    const fc_plan *plan = job->plan;
    const fc_gemm_layout *g = &plan->layout.gemm;
    const fc_problem *p = &plan->problem;
    const int64_t parts = fc_ceil_div(p->in_channels, job->channels), taps = fc_taps(p);
    const int64_t tile = task % g->out_tiles, part = task / g->out_tiles % parts, group = task / g->out_tiles / parts;
    const int64_t c0 = part * job->channels, c1 = fc_min(p->in_channels, c0 + job->channels);
    int64_t places[FC_PLACES];
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t c = c0, k0, k1; c < c1;) {
            const int64_t k = tap * p->in_channels + c;
            block_of(g, k / g->span * blocks_per_span(g) + k % g->span / g->block, &k0, &k1);
            const int64_t end = fc_min(c1, c + k1 - k);
            int64_t at = tile_start(plan, tile, k0, k1) + (k - k0) * g->out_tile;
            for (; c < end; c++, at += g->out_tile) places[(c - c0) * taps + tap] = at;
        }
    fc_weight_order order = order_of(plan);
    order.places = places;
    plan->kernels->pack_weights(&order, job->wei + group * p->wei.group * plan->kernels->element,
                                job->weights + group * g->group_packed * plan->kernels->element, c0 * taps, c1 * taps,
                                tile);
}

void fc_gemm_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    const fc_problem *p = &plan->problem;
    const int64_t element = plan->kernels->element, out = packed_channels(plan);
    const size_t row = (size_t)(p->out_channels * element);
    memset(packed, 0, fc_align((size_t)(p->groups * out * element)));
    for (int64_t g = 0; bias && g < p->groups; g++)
        memcpy((char *)packed + g * out * element, (const char *)bias + (size_t)g * row, row);
    if (plan->layout.gemm.depth == 0) return;
    pack_job job = {
        .plan = plan, .wei = wei, .weights = (char *)packed + fc_align((size_t)(p->groups * out * element))};
    const fc_gemm_layout *g = &plan->layout.gemm;
    const int worthwhile = fc_worthwhile_threads(0.2e-9 * (double)(g->depth * out * p->groups), threads);
    if (g->order > 1 && fc_taps(p) > 1 && fc_taps(p) <= FC_PLACES && fc_weights_adjoin(p)) {
        job.channels = fc_max(1, fc_min(64, FC_PLACES / fc_taps(p)));
        const int64_t parts = fc_ceil_div(p->in_channels, job.channels);
        fc_parallel(p->groups * parts * g->out_tiles, worthwhile, pack_channels_task, &job);
    } else fc_parallel(p->groups * g->blocks * g->out_tiles, worthwhile, pack_task, &job);
}

// ---------------------------------------------------------------------------------------------------------- running

typedef struct gemm_split {
    int64_t all, step, steps;     // units (pixels or rows); units that fill a tile; steps in all
    int64_t strips;               // which share the steps evenly
    int64_t channel_parts;        // parts of the output channels
    int64_t tiles, tile_elements; // at most, per strip
    int64_t target;               // bytes of an fc_gemm_target
    size_t panel_bytes, sums_bytes, targets_bytes;
} gemm_split;

// First unit of a strip: strips end with full tiles, and differ by one step at most.
static int64_t strip_start(const gemm_split *s, int64_t strip) {
    return fc_min(s->all, strip * s->steps / s->strips * s->step);
}

// How long the slowest thread takes when steps are cut into `strips` and output channels into `parts`, in multiplications
// of a tile of weights with a tile of columns; loading columns and fetching a tile of weights are small change.
static double makespan(const gemm_split *s, int64_t strips, int64_t parts, int64_t out_tiles, int64_t tiles_per_step,
                       double load, int64_t groups, int threads) {
    const double fetch = 0.15;
    const double out = (double)fc_ceil_div(out_tiles, parts);
    const double columns = (double)(tiles_per_step * fc_ceil_div(s->steps, strips));
    return (double)fc_ceil_div(groups * strips * parts, threads) * (out * (columns + fetch) + load * columns);
}

// As few strips as the caches allow, or some more where that shares the work more evenly; several tasks per thread where
// it costs nothing, so that one that is held up is waited for less.
static void share(gemm_split *s, int64_t fewest, int64_t out_tiles, int64_t tiles_per_step, double load, int64_t groups,
                  int threads) {
    s->strips = fewest;
    s->channel_parts = 1;
    if (threads == 1) return;
    double best = INFINITY;
    for (int64_t strips = fewest; strips <= fc_min(s->steps, fewest + 4 * threads); strips++)
        for (int64_t parts = 1; parts <= fc_min(threads, out_tiles); parts++) {
            const double time = makespan(s, strips, parts, out_tiles, tiles_per_step, load, groups, threads);
            const double better = groups * strips * parts <= 4 * threads ? 1.01 : 0.99; // more tasks than that: no gain
            if (time > best * better) continue;
            best = fmin(best, time);
            s->strips = strips;
            s->channel_parts = parts;
        }
}

static gemm_split split_of(const fc_plan *plan, int threads) {
    const fc_gemm_source *source = plan->layout.gemm.source;
    const fc_gemm_layout *g = &plan->layout.gemm;
    const int64_t element = plan->kernels->element, columns = source->unit_columns(plan);
    const int64_t per_column = element * (fc_max(1, g->block) + (g->blocks > 1 ? packed_channels(plan) : 0));
    const int64_t wide = g->channels_form ? plan->kernels->mr : plan->kernels->nr;
    gemm_split s = {.all = source->units(plan)};
    s.step = fc_ceil_div(wide, columns);
    s.steps = fc_max(1, fc_ceil_div(s.all, s.step));
    s.target = (int64_t)(sizeof(fc_gemm_target) + (g->channels_form ? 0 : (size_t)wide * sizeof(fc_run)));
    const int64_t targets_per_step = source->tiles(plan, 0, fc_min(s.all, s.step)) * s.target;
    const int64_t most = fc_max(
        1, fc_min(FC_STRIP_BYTES / (per_column * columns * s.step), FC_TARGETS_BYTES / fc_max(1, targets_per_step)));
    share(&s, fc_ceil_div(s.steps, most), g->out_tiles, fc_ceil_div(columns * s.step, wide), g->load,
          plan->problem.groups, threads);
    const int64_t units = fc_min(s.all, fc_ceil_div(s.steps, s.strips) * s.step);
    s.tiles = source->tiles(plan, 0, units);
    s.tile_elements = plan->kernels->mr * plan->kernels->nr;
    s.panel_bytes = fc_align((size_t)(source->panel_elements(plan, units) * element));
    const int64_t kept = g->blocks > 1 ? s.tiles * fc_ceil_div(g->out_tiles, s.channel_parts) : 1;
    s.sums_bytes = fc_align((size_t)(kept * s.tile_elements * element));
    s.targets_bytes = fc_align((size_t)(s.tiles * s.target));
    return s;
}

size_t fc_gemm_scratch(const fc_plan *plan, int threads) {
    const gemm_split s = split_of(plan, threads);
    return (size_t)threads * (s.panel_bytes + s.sums_bytes + s.targets_bytes);
}

typedef struct gemm_job {
    const fc_plan *plan;
    gemm_split split;
    const char *src, *bias, *weights, *residual;
    char *dst, *scratch;
} gemm_job;

static void gemm_task(void *context, int64_t task, int thread) {
    const gemm_job *job = context;
    const gemm_split *s = &job->split;
    const fc_plan *plan = job->plan;
    const fc_gemm_source *source = plan->layout.gemm.source;
    const fc_gemm_layout *g = &plan->layout.gemm;
    const fc_problem *p = &plan->problem;
    const int64_t element = plan->kernels->element;
    const fc_gemm_fn kernel = g->channels_form ? plan->kernels->gemm_channels : plan->kernels->gemm_pixels;

    const int64_t strip_index = task % s->strips, part = task / s->strips % s->channel_parts;
    const int64_t group = task / s->strips / s->channel_parts;
    const int64_t out0 = part * g->out_tiles / s->channel_parts, out1 = (part + 1) * g->out_tiles / s->channel_parts;
    char *panel = job->scratch + (size_t)thread * (s->panel_bytes + s->sums_bytes + s->targets_bytes);
    char *sums = panel + s->panel_bytes;
    const fc_gemm_targets targets = {sums + s->sums_bytes, s->target};

    fc_gemm_strip strip = {
        .plan = plan,
        .src = job->src + group * p->src.group * element,
        .panel = panel,
        .first = strip_start(s, strip_index),
    };
    strip.count = strip_start(s, strip_index + 1) - strip.first;
    strip.tiles = source->tiles(plan, strip.first, strip.count);
    source->targets(&strip, targets);

    int64_t channel_offset[FC_MAX_MR];
    for (int64_t i = 0; i < FC_MAX_MR; i++) channel_offset[i] = i * p->dst.channel;
    fc_run channel_run = {0, plan->kernels->nr, 0};
    fc_gemm_tile tile = {
        .low = p->low,
        .high = p->high,
        .column_stride = g->channels_form ? p->dst.channel : p->dst.axis[2],
    };
    if (g->channels_form) {
        tile.runs = &channel_run;
        tile.run_count = 1;
    } else tile.row_offset = channel_offset;

    const char *weights = job->weights + group * g->group_packed * element;
    const char *bias = job->bias + group * packed_channels(plan) * element;
    fc_gemm_columns columns[2] = {{NULL, NULL}, {NULL, NULL}};
    for (int64_t block = 0; block < fc_max(1, g->blocks); block++) {
        block_of(g, block, &strip.k0, &strip.k1);
        tile.first = block == 0;
        tile.last = block + 1 >= g->blocks;
        if (strip.k1 > strip.k0) source->load(&strip);
        source->begin(&strip, &tile, columns);
        for (int64_t out = out0; out < out1; out++) {
            const int64_t channel = out * g->out_tile, channels = fc_min(g->out_tile, p->out_channels - channel);
            const char *w = weights + (strip.k0 * packed_channels(plan) + channel * (strip.k1 - strip.k0)) * element;
            const int64_t base = group * p->dst.group + channel * p->dst.channel;
            // The next tile of weights follows this one, and each tile of pixels asks for its share of it.
            const int64_t next = (g->channels_form ? g->out_tile : channels) * (strip.k1 - strip.k0) * element;
            tile.ahead_step = fc_ceil_div(next, strip.tiles * fc_max(1, strip.k1 - strip.k0));
            const int64_t ahead = next / strip.tiles;
            tile.bias = bias + channel * element;
            tile.dst = job->dst + base * element;
            tile.residual = job->residual ? job->residual + base * element : NULL;
            for (int64_t t = 0; t < strip.tiles; t++) {
                const fc_gemm_target *target = fc_gemm_target_at(targets, t);
                if (!target->pixels) continue; // rows that the last unit does not have
                const fc_gemm_columns *from = &columns[target->from];
                const char *at = (const char *)from->base + target->at * element;
                if (g->channels_form) {
                    tile.a = at;
                    tile.b = w;
                    tile.m = target->pixels;
                    tile.row_offset = target->row_offset;
                    tile.columns = channel_run.length = channels;
                } else {
                    tile.a = w;
                    tile.b = at;
                    tile.b_offset = from->offset;
                    tile.m = channels;
                    tile.columns = target->pixels;
                    tile.runs = target->runs;
                    tile.run_count = target->run_count;
                }
                tile.ahead = w + next + t * ahead;
                tile.sums = g->blocks > 1 ? sums + ((out - out0) * strip.tiles + t) * s->tile_elements * element : sums;
                kernel(&tile);
            }
        }
    }
}

void fc_gemm_execute(const fc_plan *plan, const void *src, const void *packed, const void *residual, void *dst,
                     void *scratch, int threads) {
    const fc_problem *p = &plan->problem;
    gemm_job job = {
        .plan = plan,
        .split = split_of(plan, threads),
        .src = src,
        .bias = packed,
        .weights =
            (const char *)packed + fc_align((size_t)(p->groups * packed_channels(plan) * plan->kernels->element)),
        .residual = residual,
        .dst = dst,
        .scratch = scratch,
    };
    fc_parallel(job.split.strips * job.split.channel_parts * p->groups, threads, gemm_task, &job);
}

// ----------------------------------------------------------------------------------------------- columns = flat pixels

int64_t fc_gemm_flat_units(const fc_plan *plan) { return plan->layout.gemm.pixels; }

int64_t fc_gemm_flat_unit_columns(const fc_plan *plan) {
    (void)plan;
    return 1;
}

int64_t fc_gemm_flat_tiles(const fc_plan *plan, int64_t first, int64_t count) {
    (void)first;
    return fc_ceil_div(count, plan->layout.gemm.channels_form ? plan->kernels->mr : plan->kernels->nr);
}

void fc_gemm_flat_tile(const fc_gemm_strip *strip, int64_t tile, int64_t *first, int64_t *count) {
    const int64_t nr = strip->plan->kernels->nr;
    if (strip->plan->layout.gemm.channels_form) { // rows spread evenly: 49 are 13 + 12 + 12 + 12, not 3 x 14 + 7
        *first = strip->first + tile * strip->count / strip->tiles;
        *count = strip->first + (tile + 1) * strip->count / strip->tiles - *first;
    } else {
        *first = strip->first + tile * nr;
        *count = fc_min(nr, strip->count - tile * nr);
    }
}

// An output position and where it lies in dst, moving on without a division.
typedef struct walk {
    const fc_problem *problem;
    int64_t at[FC_AXES], offset;
} walk;

static walk walk_from(const fc_problem *p, int64_t pixel) {
    walk w = {.problem = p};
    for (int i = FC_AXES - 1; i >= 0; i--) {
        w.at[i] = pixel % p->axis[i].out;
        w.offset += w.at[i] * p->dst.axis[i];
        pixel /= p->axis[i].out;
    }
    w.offset += pixel * p->dst.outer;
    return w;
}

static void walk_on(walk *w, int64_t pixels) {
    const fc_problem *p = w->problem;
    w->at[2] += pixels;
    w->offset += pixels * p->dst.axis[2];
    while (w->at[2] >= p->axis[2].out) {
        for (int i = FC_AXES - 1; i >= 0 && w->at[i] >= p->axis[i].out; i--) {
            w->at[i] -= p->axis[i].out;
            w->offset += (i ? p->dst.axis[i - 1] : p->dst.outer) - p->axis[i].out * p->dst.axis[i];
            if (i) w->at[i - 1]++;
        }
    }
}

void fc_gemm_flat_targets(const fc_gemm_strip *strip, fc_gemm_targets targets) {
    const fc_gemm_layout *g = &strip->plan->layout.gemm;
    const fc_problem *p = &strip->plan->problem;
    // Without contiguous columns an output row is a run still, of strided elements.
    const int64_t span = fc_max(g->contiguous, p->axis[2].out);
    walk w = walk_from(p, strip->first);
    for (int64_t t = 0; t < strip->tiles; t++) {
        fc_gemm_target *target = fc_gemm_target_at(targets, t);
        int64_t first, count;
        fc_gemm_flat_tile(strip, t, &first, &count);
        target->pixels = count;
        target->run_count = 0;
        if (g->channels_form) {
            for (int64_t i = 0; i < count; i++, walk_on(&w, 1)) target->row_offset[i] = w.offset;
            continue;
        }
        for (int64_t j = 0; j < count;) {
            const int64_t length = fc_min(count - j, span - (first + j) % span);
            target->runs[target->run_count++] = (fc_run){j, length, w.offset};
            walk_on(&w, length);
            j += length;
        }
    }
}
