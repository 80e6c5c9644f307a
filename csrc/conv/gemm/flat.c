// SPDX-License-Identifier: BSD-3-Clause
//
// flat.c - columns that are output pixels in flat order over (image, d, h, w): shared by im2col and pointwise.
#include "conv/gemm/gemm.h"

int64_t fc_gemm_flat_units(const fc_plan *plan) { return fc_gemm_of(plan)->pixels; }

int64_t fc_gemm_flat_unit_columns(const fc_plan *plan) {
    (void)plan;
    return 1;
}

int64_t fc_gemm_flat_tiles(const fc_plan *plan, int64_t first, int64_t count) {
    (void)first;
    const fc_gemm *g = fc_gemm_of(plan);
    return fc_ceil_div(count, g->over_channels ? g->kernel->mr : g->kernel->nr);
}

void fc_gemm_flat_tile(const fc_gemm_strip *strip, int64_t tile, int64_t *first, int64_t *count) {
    const fc_gemm *g = fc_gemm_of(strip->plan);
    const int64_t nr = g->kernel->nr;
    if (g->over_channels) { // rows spread evenly: 49 are 13 + 12 + 12 + 12, not 3 x 14 + 7
        *first = strip->first + tile * strip->count / strip->tiles;
        *count = strip->first + (tile + 1) * strip->count / strip->tiles - *first;
    } else {
        const int64_t start = fc_min(strip->count, fc_max(0, tile * nr - strip->missing));
        *first = strip->first + start;
        *count = fc_min(strip->count, (tile + 1) * nr - strip->missing) - start;
    }
}

fc_im2col fc_gemm_flat_columns(const fc_gemm_strip *strip) {
    const fc_gemm *g = fc_gemm_of(strip->plan);
    return (fc_im2col){
        .problem = &strip->plan->problem,
        .src = strip->src,
        .pixel = strip->first,
        .count = strip->count,
        .k0 = strip->k0,
        .k1 = strip->k1,
        .panel = strip->panel,
        .pitch = g->kernel->nr,
        .panel_step = g->kernel->nr * g->block,
    };
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
    const fc_gemm *g = fc_gemm_of(strip->plan);
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
        if (g->over_channels) {
            for (int64_t i = 0; i < count;) {
                const int64_t length = fc_min(count - i, p->axis[2].out - w.at[2]), offset = w.offset;
                walk_on(&w, length);
                for (int64_t j = 0; j < length; j++, i++) target->row_offset[i] = offset + j * p->dst.axis[2];
            }
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
