// SPDX-License-Identifier: BSD-3-Clause
//
// split.c - how the work of a plan is cut into tasks: strips of columns, and parts of the output channels.  A strip is as
// wide as panel and sums leave room for in half an L2.
#include "conv/gemm/gemm.h"

enum { FC_PASSING_PARTS = 8 }; // of the output channels, for each thread

// How long the slowest thread takes when steps are cut into `strips` and output channels into `parts`, in multiplications
// of a tile of weights with a tile of columns; loading columns and fetching a tile of weights are small change. Columns
// that all threads read, each for a part of the output channels, have been written by others but for a share, in whose
// caches they are.
static double makespan(const fc_gemm_split *s, const fc_gemm *g, int64_t strips, int64_t parts, int64_t tiles_per_step,
                       int64_t groups, int threads) {
    const double fetch = g->in_passing ? 0.65 : 0.15, exchange = 0.3;
    const double out = (double)fc_ceil_div(g->out_tiles, parts);
    const double columns = (double)(tiles_per_step * fc_ceil_div(s->steps, strips));
    const double others = (double)(parts - 1) / (double)parts;
    return (double)fc_ceil_div(groups * strips * parts, threads) *
           (out * (columns + fetch) + (g->load + exchange * others) * columns);
}

// As many steps as the caches allow a strip, whose sums of a part of the output channels are kept between blocks of k. All
// channels are counted but where each strip packs the weights: those had better be wide.
static int64_t most_steps(const fc_gemm_split *s, const fc_plan *plan, int64_t parts) {
    const fc_gemm *g = fc_gemm_of(plan);
    const fc_types types = g->kernel->types;
    const int64_t all = fc_gemm_packed_channels(plan), channels = g->in_passing ? fc_ceil_div(all, parts) : all;
    const int64_t per_column =
        fc_bytes(types.source) * fc_max(1, g->block) + (g->blocks > 1 ? fc_bytes(types.accumulator) * channels : 0);
    const int64_t targets = g->source->tiles(plan, 0, fc_min(s->all, s->step)) * s->target;
    const int64_t strip_bytes = plan->machine.l2 / 16 * 7, targets_bytes = plan->machine.l2;
    const int64_t step_bytes = per_column * g->source->unit_columns(plan) * s->step;
    return fc_max(1, fc_min(strip_bytes / step_bytes, targets_bytes / fc_max(1, targets)));
}

// As few strips as that, or some more where that shares the work more evenly; several tasks per thread where it costs nothing,
// so that one that is held up is waited for less.
static void share(fc_gemm_split *s, const fc_plan *plan, int64_t tiles_per_step, int threads) {
    const fc_gemm *g = fc_gemm_of(plan);
    const int64_t groups = plan->problem.groups;
    const int64_t most_parts = fc_min(g->out_tiles, g->in_passing ? FC_PASSING_PARTS * threads : threads);
    const int64_t fewest = fc_ceil_div(s->steps, most_steps(s, plan, fc_max(1, most_parts)));
    s->strips = fewest;
    s->channel_parts = 1;
    if (threads == 1 && most_parts <= 1) return;
    double best = INFINITY;
    for (int64_t strips = fewest; strips <= fc_min(s->steps, fewest + 4 * threads); strips++)
        for (int64_t parts = 1; parts <= most_parts; parts++) {
            if (g->in_passing && strips * most_steps(s, plan, parts) < s->steps) continue;
            const double time = makespan(s, g, strips, parts, tiles_per_step, groups, threads);
            const double better = groups * strips * parts <= 4 * threads ? 1.01 : 0.99; // more tasks than that: no gain
            if (time > best * better) continue;
            best = fmin(best, time);
            s->strips = strips;
            s->channel_parts = parts;
        }
}

fc_gemm_split fc_gemm_split_for(const fc_plan *plan, int threads) {
    const fc_gemm_source *source = fc_gemm_of(plan)->source;
    const fc_gemm *g = fc_gemm_of(plan);
    const fc_gemm_kernel *k = g->kernel;
    const int64_t element = fc_bytes(k->types.source), sum = fc_bytes(k->types.accumulator);
    const int64_t columns = source->unit_columns(plan);
    const int64_t wide = g->over_channels ? k->mr : k->nr;
    fc_gemm_split s = {.all = source->units(plan)};
    s.step = fc_ceil_div(wide, columns);
    s.steps = fc_max(1, fc_ceil_div(s.all, s.step));
    s.target = (int64_t)(sizeof(fc_gemm_target) + (g->over_channels ? 0 : (size_t)wide * sizeof(fc_run)));
    share(&s, plan, fc_ceil_div(columns * s.step, wide), threads);
    const int64_t more = g->at_lines ? FC_ALIGN / element - 1 : 0; // that the last strip may begin earlier
    const int64_t units = fc_min(s.all, fc_ceil_div(s.steps, s.strips) * s.step) + more;
    s.tiles = source->tiles(plan, 0, units);
    s.tile_elements = k->mr * k->nr;
    s.panel_bytes = fc_align((size_t)(source->panel_elements(plan, units) * element));
    const int64_t kept = g->blocks > 1 ? s.tiles * fc_ceil_div(g->out_tiles, s.channel_parts) : 1;
    s.sums_bytes = fc_align((size_t)(kept * s.tile_elements * sum));
    s.targets_bytes = fc_align((size_t)(s.tiles * s.target));
    s.weights_bytes = g->in_passing ? fc_align((size_t)(g->out_tile * g->block * fc_bytes(k->types.weight))) : 0;
    s.pixels_first =
        (size_t)(g->depth * fc_gemm_packed_channels(plan) * fc_bytes(k->types.weight)) <= 2 * (size_t)plan->machine.l2;
    return s;
}
