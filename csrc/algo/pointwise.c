// SPDX-License-Identifier: BSD-3-Clause
//
// pointwise.c - 1x1 convolutions as a GEMM on the image where it lies.
//
//   pixels form    B of depth k is the plane of channel k: no packing, but for tiles that dst or src break off
//   channels form  A of pixel i is its channel vector: no packing at all
//
// Neither form may read past the end of the image, so a tile of pixels that is not full is packed like im2col's.
#include "algo/plan.h"

static const char *refuse(const fc_problem *p, const fc_kernels *k) {
    for (int i = 0; i < FC_AXES; i++)
        if (p->axis[i].kernel != 1 || p->axis[i].stride != 1 || p->axis[i].pad != 0 || p->axis[i].in != p->axis[i].out)
            return "only 1x1 kernels with stride 1 and no padding are pointwise";
    if (!fc_gemm_channels_form(p, k)) {
        if (p->src.axis[2] != 1) return "the input's rows are not contiguous";
    } else if (p->src.channel != 1) return "the input's channels are not contiguous";
    else if (p->batch * p->axis[0].out * p->axis[1].out > 1) return "the input's pixels do not lie at even distances";
    return NULL;
}

static double cost(const fc_problem *p, const fc_kernels *k, const fc_costs *c) {
    return fc_cost_gemm(p, k, c, fc_gemm_channels_form(p, k), 0.0);
}

static const fc_gemm_source source;

static fc_status layout(fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    const int channels_form = fc_gemm_channels_form(p, plan->kernels);
    const fc_status status =
        fc_gemm_layout_make(plan, &source, channels_form, 1, 0, 0, channels_form ? 1 : 2 * p->in_channels);
    if (status != FC_OK) return status;
    fc_gemm_layout *g = &plan->layout.gemm;
    g->load = channels_form ? 0.0 : 0.3;
    if (channels_form) {
        plan->table[0] = 0;
        return FC_OK;
    }
    for (int64_t k = 0; k < g->block; k++) {
        plan->table[k] = k * p->src.channel;
        plan->table[g->block + k] = k * plan->kernels->nr;
    }
    return FC_OK;
}

#define NOT_IN_PLACE INT64_MIN

// Offset in src of a tile that can be read in place.
static int64_t in_place(const fc_gemm_strip *strip, int64_t first, int64_t count) {
    const fc_problem *p = &strip->plan->problem;
    const int64_t span = p->axis[2].out; // src is contiguous along a row
    if (count < strip->plan->kernels->nr || span - first % span < count) return NOT_IN_PLACE;
    int64_t offset = 0;
    for (int i = FC_AXES - 1; i >= 0; i--) {
        offset += first % p->axis[i].out * p->src.axis[i];
        first /= p->axis[i].out;
    }
    return offset + first * p->src.outer;
}

// At most every tile has to be packed, when rows are short.
static int64_t panel_elements(const fc_plan *plan, int64_t pixels) {
    const fc_gemm_layout *g = &plan->layout.gemm;
    return g->channels_form ? 0 : fc_round_up(pixels, plan->kernels->nr) * g->block;
}

static void load(const fc_gemm_strip *strip) {
    const fc_plan *plan = strip->plan;
    if (plan->layout.gemm.channels_form) return;
    fc_im2col work = {.problem = &plan->problem, .src = strip->src, .k0 = strip->k0, .k1 = strip->k1};
    for (int64_t t = 0; t < strip->tiles; t++) {
        fc_gemm_flat_tile(strip, t, &work.pixel, &work.count);
        if (in_place(strip, work.pixel, work.count) != NOT_IN_PLACE) continue;
        work.panel = (char *)strip->panel + t * plan->kernels->nr * plan->layout.gemm.block * plan->kernels->element;
        plan->kernels->im2col_pixels(&work);
    }
}

static void targets(const fc_gemm_strip *strip, fc_gemm_targets targets) {
    const fc_plan *plan = strip->plan;
    const fc_gemm_layout *g = &plan->layout.gemm;
    fc_gemm_flat_targets(strip, targets);
    int64_t pixel = strip->first;
    for (int64_t t = 0; t < strip->tiles; t++) {
        fc_gemm_target *target = fc_gemm_target_at(targets, t);
        target->at = g->channels_form ? pixel * plan->problem.src.axis[2] : in_place(strip, pixel, target->pixels);
        target->from = target->at == NOT_IN_PLACE;
        if (target->from == 1) target->at = t * plan->kernels->nr * g->block;
        pixel += target->pixels;
    }
}

static void begin(const fc_gemm_strip *strip, fc_gemm_tile *tile, fc_gemm_columns columns[2]) {
    const fc_plan *plan = strip->plan;
    const fc_problem *p = &plan->problem;
    tile->depth = strip->k1 - strip->k0;
    tile->a_row = p->src.axis[2];
    tile->segments = 1;
    tile->a_segment = plan->table;
    columns[0] = (fc_gemm_columns){fc_at(strip->src, strip->k0 * p->src.channel, plan->kernels), plan->table};
    columns[1] = (fc_gemm_columns){strip->panel, plan->table + plan->layout.gemm.block};
}

static const fc_gemm_source source = {
    .units = fc_gemm_flat_units,
    .unit_columns = fc_gemm_flat_unit_columns,
    .panel_elements = panel_elements,
    .tiles = fc_gemm_flat_tiles,
    .targets = targets,
    .load = load,
    .begin = begin,
};

const fc_algorithm fc_algorithm_pointwise = {"pointwise",  refuse,          cost, NULL, layout, fc_gemm_scratch,
                                             fc_gemm_pack, fc_gemm_execute, NULL};
