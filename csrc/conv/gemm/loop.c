// SPDX-License-Identifier: BSD-3-Clause
//
// loop.c - the loop nest of a matrix product.  One task takes a strip of columns, and perhaps a part of the output
// channels, and runs
//
//   for each block of k            256 deep: a tile of weights (14 x 256 or 256 x 32 floats, 14-32 KiB) stays in L1,
//                                  and sums of 256 products are short enough to keep the error of direct summation
//     load                         the strip's columns become readable (packed, copied with padding, or in place)
//     for each tile of channels    weights stream from L2 or beyond, each once per strip
//       for each tile of pixels    columns stream from L2
//         kernel                   sums kept in registers over the block, between blocks in `sums`
#include "conv/activate.h"
#include "conv/gemm/gemm.h"

// Of an element.
typedef struct gemm_bytes {
    int64_t source, weight, accumulator, destination;
} gemm_bytes;

static gemm_bytes bytes_of(fc_types t) {
    return (gemm_bytes){fc_bytes(t.source), fc_bytes(t.weight), fc_bytes(t.accumulator), fc_bytes(t.destination)};
}

// A task on its way through the nest: what each loop has settled for those inside.
typedef struct gemm_nest {
    const fc_gemm *gemm;
    const fc_gemm_split *split;
    const fc_plan *plan;
    gemm_bytes bytes;
    fc_gemm_strip strip;
    fc_gemm_targets targets;
    char *sums;
    const char *bias, *weights, *residual; // of the group; weights are packed, or as they were given
    char *passing;                         // a tile of weights, if they are packed in passing
    char *dst;
    int64_t out0, out1; // tiles of output channels
    fc_gemm_columns columns[2];
    fc_gemm_tile tile;
    fc_run channel_run;                // over channels: a tile's columns
    int64_t channel_offset[FC_MAX_MR]; // over pixels: its rows
} gemm_nest;

// The tile of weights at w with each tile of pixels; `channels` of them, and the next tile of weights `next` bytes on.
// In the `first` round columns in place are asked for instead, which later ones find in L2.
static inline void each_pixel_tile(gemm_nest *n, const char *w, int64_t channels, int64_t next, char *sums,
                                   int64_t sums_step, int first) {
    fc_gemm_fn *const kernel = n->gemm->kernel->run;
    const int over_channels = n->gemm->over_channels;
    const int64_t tiles = n->strip.tiles, ahead = next / tiles, ahead_step = n->tile.ahead_step;
    for (int64_t t = 0; t < tiles; t++, sums += sums_step) {
        const fc_gemm_target *target = fc_gemm_target_at(n->targets, t);
        if (!target->pixels) continue; // rows that the last unit does not have
        const fc_gemm_columns *from = &n->columns[target->from];
        const char *at = (const char *)from->base + target->at * n->bytes.source;
        if (over_channels) {
            n->tile.a = at;
            n->tile.b = w;
            n->tile.m = target->pixels;
            n->tile.row_offset = target->row_offset;
        } else {
            n->tile.a = w;
            n->tile.a_row = channels;
            n->tile.b = at;
            n->tile.b_offset = from->offset;
            n->tile.m = channels;
            n->tile.columns = target->pixels;
            n->tile.runs = target->runs;
            n->tile.run_count = target->run_count;
        }
        n->tile.ahead = w + next + t * ahead;
        n->tile.ahead_step = ahead_step;
        if (first && from->step && t + 1 < tiles) {
            const fc_gemm_target *after = fc_gemm_target_at(n->targets, t + 1);
            // Past what it shares with this one: the line that both begin or end in.
            n->tile.ahead = (const char *)n->columns[after->from].base + after->at * n->bytes.source + 63;
            n->tile.ahead_step = n->columns[after->from].step;
        }
        n->tile.sums = sums;
        kernel(&n->tile);
    }
}

// Sums between blocks are kept for every pair of tiles; a single block needs none but its own.
static void each_channel_tile(gemm_nest *n) {
    const fc_gemm *g = n->gemm;
    const fc_problem *p = &n->plan->problem;
    const gemm_bytes bytes = n->bytes;
    const int64_t depth = n->strip.k1 - n->strip.k0;
    const int64_t sums_step = g->blocks > 1 ? n->split->tile_elements * bytes.accumulator : 0;
    for (int64_t out = n->out0; out < n->out1 && !fc_must_stop(); out++) {
        const int64_t channel = out * g->out_tile, channels = fc_min(g->out_tile, p->out_channels - channel);
        const int64_t base = channel * p->dst.channel * bytes.destination;
        // The next tile of packed weights follows this one, and each tile of pixels asks for its share of it.
        const int64_t out_tile = g->over_channels ? g->out_tile : channels;
        const int64_t next = n->passing ? 0 : out_tile * depth * bytes.weight;
        n->tile.ahead_step = fc_ceil_div(next, n->strip.tiles * fc_max(1, depth));
        n->tile.bias = n->bias + channel * bytes.destination;
        n->tile.dst = n->dst + base;
        n->tile.residual = n->residual ? n->residual + base : NULL;
        if (g->over_channels) n->tile.columns = n->channel_run.length = channels;
        const char *w = n->weights + (n->strip.k0 * fc_gemm_packed_channels(n->plan) + channel * depth) * bytes.weight;
        if (n->passing) {
            fc_gemm_pack_tile(n->plan, n->weights, out, n->strip.k0, n->strip.k1, n->passing);
            w = n->passing;
        }
        each_pixel_tile(n, w, channels, next, n->sums + (out - n->out0) * n->strip.tiles * sums_step, sums_step,
                        out == n->out0);
    }
}

// What the strip has stored, once all channels of the task are there: runs are as long as may be.  Over channels: tiles of
// pixels, by all channels.
static void activate_channels(gemm_nest *n, char *dst, int64_t channels) {
    const fc_run run = {.length = channels};
    fc_gemm_tile tile = n->tile;
    tile.dst = dst;
    tile.runs = &run;
    tile.run_count = 1;
    for (int64_t t = 0; t < n->strip.tiles; t++) {
        const fc_gemm_target *target = fc_gemm_target_at(n->targets, t);
        tile.m = target->pixels;
        tile.row_offset = target->row_offset;
        fc_activate_tile(n->plan, &tile);
    }
}

// Over pixels: those that go on from tile to tile, in each channel.
static void activate_pixels(gemm_nest *n, char *dst, int64_t channels) {
    const int64_t step = n->tile.column_stride;
    fc_run pixels = {0};
    for (int64_t t = 0; t < n->strip.tiles; t++) {
        const fc_gemm_target *target = fc_gemm_target_at(n->targets, t);
        for (int64_t r = 0; target->pixels && r < target->run_count; r++) {
            const fc_run run = target->runs[r];
            if (run.offset == pixels.offset + pixels.length * step) {
                pixels.length += run.length;
                continue;
            }
            fc_activate_channels(n->plan, dst, channels, pixels);
            pixels = run;
        }
    }
    fc_activate_channels(n->plan, dst, channels, pixels);
}

static void activate_strip(gemm_nest *n) {
    const fc_problem *p = &n->plan->problem;
    const int64_t first = n->out0 * n->gemm->out_tile, end = fc_min(n->out1 * n->gemm->out_tile, p->out_channels);
    char *dst = n->dst + first * p->dst.channel * n->bytes.destination;
    if (n->gemm->over_channels) activate_channels(n, dst, end - first);
    else activate_pixels(n, dst, end - first);
}

static void each_block(gemm_nest *n) {
    const fc_gemm *g = n->gemm;
    // Few tiles may have very many blocks, each of which is loaded: both loops look whether to go on.
    for (int64_t block = 0; block < g->blocks && !fc_must_stop(); block++) {
        fc_gemm_block(g, block, &n->strip.k0, &n->strip.k1);
        n->tile.first = block == 0;
        n->tile.last = block + 1 == g->blocks;
        if (n->strip.k1 > n->strip.k0) g->source->load(&n->strip);
        g->source->begin(&n->strip, &n->tile, n->columns);
        each_channel_tile(n);
    }
    if (fc_activates(n->plan)) activate_strip(n);
}

// Where tiles begin at lines, so do strips.
static int64_t strip_start(const fc_gemm_split *s, int64_t strip, int64_t missing) {
    return fc_gemm_strip_start(s, strip) - (strip > 0 && strip < s->strips ? missing : 0);
}

static void task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_gemm *g = fc_gemm_of(plan);
    const fc_gemm_split *s = stage->context;
    const fc_problem *p = &plan->problem;
    const gemm_bytes bytes = bytes_of(g->kernel->types);
    int64_t part, strip;
    if (s->pixels_first) part = fc_digit(&task, s->channel_parts), strip = fc_digit(&task, s->strips);
    else strip = fc_digit(&task, s->strips), part = fc_digit(&task, s->channel_parts);
    const int64_t group = task;
    const char *packed = fc_operand(call, stage->at.wei), *residual = fc_operand(call, stage->at.residual);
    char *panel = fc_own_scratch(call, thread), *passing = NULL;
    const char *weights = packed + fc_gemm_bias_bytes(plan);
    if (g->in_passing) {
        memcpy(&weights, weights, sizeof weights);
        passing = panel + s->panel_bytes + s->sums_bytes + s->targets_bytes;
        weights += group * p->wei.group * bytes.weight;
    } else weights += group * g->group_packed * bytes.weight;
    gemm_nest n = {
        .gemm = g,
        .split = s,
        .plan = plan,
        .bytes = bytes,
        .strip = {.plan = plan,
                  .src = (const char *)fc_operand(call, stage->at.src) + group * p->src.group * bytes.source,
                  .panel = panel},
        .sums = panel + s->panel_bytes,
        .targets = {panel + s->panel_bytes + s->sums_bytes, s->target},
        .bias = packed + group * fc_gemm_packed_channels(plan) * bytes.destination,
        .weights = weights,
        .passing = passing,
        .residual = residual ? residual + group * p->dst.group * bytes.destination : NULL,
        .dst = (char *)fc_operand(call, stage->at.dst) + group * p->dst.group * bytes.destination,
        .out0 = part * g->out_tiles / s->channel_parts,
        .out1 = (part + 1) * g->out_tiles / s->channel_parts,
        .tile = {.low = p->low, .high = p->high, .column_stride = g->over_channels ? p->dst.channel : p->dst.axis[2]},
    };
    if (g->over_channels) {
        n.tile.runs = &n.channel_run;
        n.tile.run_count = 1;
    } else {
        for (int64_t i = 0; i < FC_MAX_MR; i++) n.channel_offset[i] = i * p->dst.channel;
        n.tile.row_offset = n.channel_offset;
    }
    const int64_t missing = g->at_lines ? (int64_t)((uintptr_t)n.strip.src % FC_ALIGN) / bytes.source : 0;
    n.strip.missing = strip ? 0 : missing;
    n.strip.first = strip_start(s, strip, missing);
    n.strip.count = strip_start(s, strip + 1, missing) - n.strip.first;
    n.strip.tiles = g->source->tiles(plan, n.strip.first, n.strip.count + n.strip.missing);
    g->source->targets(&n.strip, n.targets);
    each_block(&n);
}

void fc_gemm_stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_gemm_split split = fc_gemm_split_for(plan, threads);
    fc_list_scratch(list, 0, split.panel_bytes + split.sums_bytes + split.targets_bytes + split.weights_bytes);
    const void *context = fc_list_keep(list, &split, sizeof split);
    if (plan->problem.batch > 0)
        fc_list_stage(list, plan, task, split.strips * split.channel_parts * plan->problem.groups, context);
}
