// SPDX-License-Identifier: BSD-3-Clause
//
// split.c - how the work of a plan is cut into tasks: strips of columns, and parts of the output channels.  A strip is as
// wide as panel and sums leave room for in half an L2.
#include "conv/gemm/gemm.h"

// How long the slowest thread takes when steps are cut into `strips` and output channels into `parts`, in multiplications
// of a tile of weights with a tile of columns; loading columns and fetching a tile of weights are small change. Columns
// that all threads read, each for a part of the output channels, have been written by others but for a share, in whose
// caches they are.
static double makespan(const fc_gemm_split *s, int64_t strips, int64_t parts, int64_t out_tiles, int64_t tiles_per_step,
                       double load, int64_t groups, int threads) {
    const double fetch = 0.15, exchange = 0.3;
    const double out = (double)fc_ceil_div(out_tiles, parts);
    const double columns = (double)(tiles_per_step * fc_ceil_div(s->steps, strips));
    const double others = (double)(parts - 1) / (double)parts;
    return (double)fc_ceil_div(groups * strips * parts, threads) *
           (out * (columns + fetch) + (load + exchange * others) * columns);
}

// As few strips as the caches allow, or some more where that shares the work more evenly; several tasks per thread where
// it costs nothing, so that one that is held up is waited for less.
static void share(fc_gemm_split *s, int64_t fewest, int64_t out_tiles, int64_t tiles_per_step, double load,
                  int64_t groups, int threads) {
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

fc_gemm_split fc_gemm_split_for(const fc_plan *plan, int threads) {
    const fc_gemm_source *source = fc_gemm_of(plan)->source;
    const fc_gemm *g = fc_gemm_of(plan);
    const fc_gemm_kernel *k = g->kernel;
    const int64_t element = fc_bytes(k->types.source), sum = fc_bytes(k->types.accumulator);
    const int64_t columns = source->unit_columns(plan);
    const int64_t per_column =
        element * fc_max(1, g->block) + (g->blocks > 1 ? sum * fc_gemm_packed_channels(plan) : 0);
    const int64_t wide = g->over_channels ? k->mr : k->nr;
    fc_gemm_split s = {.all = source->units(plan)};
    s.step = fc_ceil_div(wide, columns);
    s.steps = fc_max(1, fc_ceil_div(s.all, s.step));
    s.target = (int64_t)(sizeof(fc_gemm_target) + (g->over_channels ? 0 : (size_t)wide * sizeof(fc_run)));
    const int64_t targets_per_step = source->tiles(plan, 0, fc_min(s.all, s.step)) * s.target;
    const int64_t strip_bytes = plan->machine.l2 / 16 * 7, targets_bytes = plan->machine.l2;
    const int64_t most =
        fc_max(1, fc_min(strip_bytes / (per_column * columns * s.step), targets_bytes / fc_max(1, targets_per_step)));
    share(&s, fc_ceil_div(s.steps, most), g->out_tiles, fc_ceil_div(columns * s.step, wide), g->load,
          plan->problem.groups, threads);
    const int64_t more = g->at_lines ? FC_ALIGN / element - 1 : 0; // that the last strip may begin earlier
    const int64_t units = fc_min(s.all, fc_ceil_div(s.steps, s.strips) * s.step) + more;
    s.tiles = source->tiles(plan, 0, units);
    s.tile_elements = k->mr * k->nr;
    s.panel_bytes = fc_align((size_t)(source->panel_elements(plan, units) * element));
    const int64_t kept = g->blocks > 1 ? s.tiles * fc_ceil_div(g->out_tiles, s.channel_parts) : 1;
    s.sums_bytes = fc_align((size_t)(kept * s.tile_elements * sum));
    s.targets_bytes = fc_align((size_t)(s.tiles * s.target));
    s.pixels_first =
        (size_t)(g->depth * fc_gemm_packed_channels(plan) * fc_bytes(k->types.weight)) <= 2 * (size_t)plan->machine.l2;
    return s;
}
