// SPDX-License-Identifier: BSD-3-Clause
//
// im2col.c - every convolution as a GEMM.  The im2col matrix never exists: each strip packs the panel of one block of k
// just before it is multiplied.
//
//   over pixels    panel [tile][k][nr]        k = (c, kd, kh, kw): a row is a shifted image row
//   over channels  panel [pixel][k, padded]   k = (kd, kh, kw, c): a row is a string of channel runs, or, where the
//                                             channels of src are not neighbours, k as above
#include "conv/gemm/gemm.h"

static const char *refuse(const fc_request *r) {
    (void)r;
    return NULL;
}

static int channel_major(const fc_problem *p) { return p->src.channel != 1; }

// Every input element is copied once per tap, in runs of an output row, of a channel vector, or of a row of taps, if these
// are neighbours; one by one where a row of pixels is wanted of an image whose channels are last.  Over pixels, where
// a stride makes runs dear, one ends with its row or its tile: every second element is read with what lies between, and
// others are copied one by one.  Tiles that do not end with a row are stored run by run, mostly beside products.
static double cost(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const fc_axis *w = &p->axis[2];
    const int over_channels = fc_gemm_over_channels(p, k);
    const int64_t taps = w->dilation == 1 ? w->kernel : 1;
    const int64_t nr = k->gemm_pixels.nr, row = w->stride == 1 ? w->out : fc_max(1, w->out * nr / (w->out + nr));
    const int64_t run = !over_channels ? row : channel_major(p) ? taps : p->in_channels;
    const double pixels = (double)p->batch * (double)fc_positions(p);
    const double copies = (double)p->in_channels * (double)fc_taps(p) * pixels;
    const int gathers = !over_channels && p->src.axis[2] != 1;
    const int64_t read = !over_channels && w->stride == 2 ? 2 : 1; // elements, for each that is copied
    double copy = gathers ? 0 : fc_cost_runs(copies * (double)read, run * read, k, c);
    // Each group comes to the lines of all pixels for a few of their channels.
    const double lines = gathers && p->groups > 1 ? 6 * fc_cost_apart(&p->src) / (double)fc_max(1, p->batch) : 0;
    if (gathers || (!over_channels && w->stride > 2)) copy += fc_cost_elements(copies * (1 + lines), c);
    if (!over_channels && w->out < nr) copy += 0.1 * fc_cost_runs((double)p->out_channels * pixels, w->out, k, c);
    if (!over_channels && p->dst.axis[2] != 1) copy += fc_cost_elements(3 * (double)p->out_channels * pixels, c);
    return fc_cost_gemm(p, k, r->options, over_channels, (double)p->groups * copy);
}

static const fc_gemm_source source;

// One cache line more than the block, so that the rows of a tile do not all fall into the same sets of L1.
static int64_t panel_pitch(const fc_plan *plan) { return fc_round_up(fc_gemm_of(plan)->block, 16) + 16; }

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    const fc_problem *p = &plan->problem;
    const int over_channels = fc_gemm_over_channels(p, plan->kernels);
    const fc_gemm_wish wish = {
        .source = &source,
        .over_channels = over_channels,
        .borrows = r->options->borrows,
        .order = over_channels && !channel_major(p) ? p->in_channels : 1,
        .table = over_channels ? 1 : p->in_channels * fc_taps(p),
        .load = over_channels ? 1.0 : 3.0,
    };
    const fc_status status = fc_gemm_layout(plan, &wish);
    if (status != FC_OK) return status;
    const fc_gemm *g = fc_gemm_of(plan);
    for (int64_t k = 0; k < g->block && !over_channels; k++) g->table[k] = k * g->kernel->nr;
    return FC_OK;
}

static int64_t panel_elements(const fc_plan *plan, int64_t pixels) {
    const fc_gemm *g = fc_gemm_of(plan);
    if (g->over_channels) return pixels * panel_pitch(plan);
    return fc_round_up(pixels, g->kernel->nr) * g->block;
}

static void load(const fc_gemm_strip *strip) {
    const fc_plan *plan = strip->plan;
    fc_im2col work = fc_gemm_flat_columns(strip);
    if (!fc_gemm_of(plan)->over_channels) {
        plan->kernels->im2col_pixels(&work);
        return;
    }
    work.pitch = panel_pitch(plan);
    (channel_major(&plan->problem) ? plan->kernels->im2col_strings : plan->kernels->im2col_channels)(&work);
}

static void targets(const fc_gemm_strip *strip, fc_gemm_targets targets) {
    const fc_plan *plan = strip->plan;
    const fc_gemm *g = fc_gemm_of(plan);
    fc_gemm_flat_targets(strip, targets);
    for (int64_t t = 0, pixel = 0; t < strip->tiles; t++) {
        fc_gemm_target *target = fc_gemm_target_at(targets, t);
        target->at = g->over_channels ? pixel * panel_pitch(plan) : t * g->kernel->nr * g->block;
        target->from = 0;
        pixel += target->pixels;
    }
}

static void begin(const fc_gemm_strip *strip, fc_gemm_tile *tile, fc_gemm_columns columns[2]) {
    const fc_plan *plan = strip->plan;
    tile->depth = strip->k1 - strip->k0;
    tile->a_row = panel_pitch(plan);
    tile->segments = 1;
    tile->a_segment = fc_gemm_of(plan)->table;
    columns[0] = (fc_gemm_columns){strip->panel, fc_gemm_of(plan)->table, 0};
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

const fc_kind fc_kind_im2col = {
    .name = "im2col",
    .traits = FC_SERVES_FORWARD | FC_WIDE_TASKS,
    .rows = 1,
    .refuse = refuse,
    .cost = cost,
    .packing = fc_cost_packing,
    .layout = layout,
    .pack = fc_gemm_pack,
    .stages = fc_gemm_stages,
    .form = fc_gemm_form,
};
