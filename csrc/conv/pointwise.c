// SPDX-License-Identifier: BSD-3-Clause
//
// pointwise.c - 1x1 convolutions as a GEMM on the image where it lies.
//
//   over pixels    B of depth k is the plane of channel k: no packing, but for tiles that dst or src break off
//   over channels  A of pixel i is its channel vector: no packing at all; few output channels are summed one by one, along
//                  those vectors
//
// Tiles of few rows come back to their columns so often that all of these are packed: 256 planes have more pages than a core
// has at hand, and a multiple of some lines between them leaves few sets of L1.  Taking each tile of pixels through all
// weights, so that it is found in L1, was no faster then, and took up to 1.1 of the time where k is short.
//
// Neither form may read past the end of the image, so a tile of pixels that is not full is packed like im2col's, but where
// output channels are few.  Tiles in place begin at cache lines, where planes are a whole number of them.
#include "conv/gemm/gemm.h"

enum { FC_FEW_ROWS = 8 }; // of a tile: those of AVX-512 have 14

static int along(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    return fc_gemm_along(p, r->kernels, &r->options->machine, 1, p->in_channels);
}

// Of k: a lane's share of a sum counts.
static int64_t along_block(const fc_problem *p, const fc_kernels *k) {
    return fc_ceil_div(p->in_channels, fc_ceil_div(p->in_channels, FC_BLOCK_K * k->vl));
}

static int over_channels(const fc_request *r) { return fc_gemm_over_channels(r->op->problem, r->kernels) || along(r); }

static const char *refuse(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    for (int i = 0; i < FC_AXES; i++)
        if (p->axis[i].kernel != 1 || p->axis[i].stride != 1 || p->axis[i].pad != 0 || p->axis[i].in != p->axis[i].out)
            return "only 1x1 kernels with stride 1 and no padding are pointwise";
    if (!over_channels(r)) {
        if (p->src.axis[2] != 1) return "the input's rows are not contiguous";
    } else if (p->src.channel != 1) return "the input's channels are not contiguous";
    else if (p->batch * p->axis[0].out * p->axis[1].out > 1) return "the input's pixels do not lie at even distances";
    return NULL;
}

// Whether all tiles of pixels are packed, which few multiplications would not pay for.
static int packs(const fc_problem *p, const fc_kernels *k) {
    return k->gemm_pixels.mr <= FC_FEW_ROWS && p->out_channels > 8 * k->gemm_pixels.mr;
}

// Over pixels: tiles that end with no row are packed, and columns that are no neighbours are stored one by one.
static double broken_off(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_costs *c = &r->options->costs;
    const int64_t row = p->axis[2].out, nr = r->kernels->gemm_pixels.nr;
    const double pixels = (double)(p->groups * p->batch) * (double)fc_positions(p);
    const double share = fmin(1.0, (double)nr / (double)fc_max(1, row));
    const double stored = p->dst.axis[2] == 1 ? 0 : fc_cost_elements(3 * pixels * (double)p->out_channels, c);
    if (p->batch * fc_positions(p) == row) return stored;
    return stored + share * fc_cost_runs(pixels * (double)p->in_channels, fc_min(row, nr), r->kernels, c);
}

static double cost(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    if (along(r)) return fc_gemm_along_cost(r, 1, p->in_channels);
    const int channels = over_channels(r);
    const double product = fc_cost_gemm(p, r->kernels, r->options, channels, 0);
    if (!channels && packs(p, r->kernels)) {
        const double columns = (double)(p->groups * p->batch * p->in_channels) * (double)fc_positions(p);
        // Lines are read in a row, and asked for ahead.
        return product + 0.5 * fc_cost_runs(columns, p->axis[2].out, r->kernels, &r->options->costs);
    }
    const int64_t apart = p->src.axis[2] * fc_bytes(p->types.source), rows = r->kernels->gemm_channels.mr;
    if (!channels) return product * fc_gemm_read_again(r, p->src.channel) + broken_off(r);
    return product * fc_cost_aliases(&r->options->machine, apart, rows);
}

enum { FC_ALIGNED_COLUMNS = 1024 };

// Whether tiles begin at cache lines: all rows of all planes lie in lines as the first does, and are long enough for a last
// tile that may be a vector longer.
static int at_lines(const fc_problem *p, const fc_gemm_kernel *k) {
    const int64_t line = FC_ALIGN / fc_bytes(k->types.source);
    int64_t apart = k->nr | p->axis[2].out | p->src.channel | p->src.outer;
    for (int i = 0; i < 2; i++)
        if (p->axis[i].in > 1) apart |= p->src.axis[i];
    return apart % line == 0 && p->batch * fc_positions(p) >= FC_ALIGNED_COLUMNS;
}

static const fc_gemm_source source;

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    const fc_problem *p = &plan->problem;
    const int channels = over_channels(r);
    const fc_gemm_kernel *pixels = fc_gemm_over_pixels(p, plan->kernels, plan->kernels->gemm_few.mr);
    const fc_gemm_wish wish = {
        .source = &source,
        .kernel = along(r)   ? &plan->kernels->gemm_along
                  : channels ? NULL
                             : pixels,
        .over_channels = channels,
        .borrows = r->options->borrows,
        .at_lines = !channels && !packs(p, plan->kernels) && at_lines(p, pixels),
        .order = 1,
        .block = along(r) ? along_block(p, plan->kernels) : 0,
        .table = channels ? 1 : 2 * p->in_channels,
        .load = channels ? 0.0 : 0.3,
    };
    const fc_status status = fc_gemm_layout(plan, &wish);
    if (status != FC_OK) return status;
    const fc_gemm *g = fc_gemm_of(plan);
    for (int64_t k = 0; k < g->block && !channels; k++) {
        g->table[k] = k * p->src.channel;
        g->table[g->block + k] = k * g->kernel->nr;
    }
    return FC_OK;
}

#define NOT_IN_PLACE INT64_MIN

// Offset in src of a tile that can be read in place.
static int64_t in_place(const fc_gemm_strip *strip, int64_t first, int64_t count) {
    const fc_problem *p = &strip->plan->problem;
    const int64_t span = p->axis[2].out; // src is contiguous along a row
    const fc_gemm_kernel *k = fc_gemm_of(strip->plan)->kernel;
    const int64_t read = k == &strip->plan->kernels->gemm_few ? count : k->nr;
    if (span - first % span < read || packs(p, strip->plan->kernels)) return NOT_IN_PLACE;
    int64_t offset = 0;
    for (int i = FC_AXES - 1; i >= 0; i--) {
        offset += first % p->axis[i].out * p->src.axis[i];
        first /= p->axis[i].out;
    }
    return offset + first * p->src.outer;
}

// At most every tile has to be packed, when rows are short.
static int64_t panel_elements(const fc_plan *plan, int64_t pixels) {
    const fc_gemm *g = fc_gemm_of(plan);
    return g->over_channels ? 0 : fc_round_up(pixels, g->kernel->nr) * g->block;
}

static void load(const fc_gemm_strip *strip) {
    const fc_plan *plan = strip->plan;
    const fc_gemm *g = fc_gemm_of(plan);
    if (g->over_channels) return;
    fc_im2col work = fc_gemm_flat_columns(strip);
    if (packs(&plan->problem, plan->kernels)) {
        plan->kernels->im2col_pixels(&work);
        return;
    }
    for (int64_t t = 0; t < strip->tiles; t++) {
        fc_gemm_flat_tile(strip, t, &work.pixel, &work.count);
        if (!work.count || in_place(strip, work.pixel, work.count) != NOT_IN_PLACE) continue;
        work.panel = (char *)strip->panel + t * g->kernel->nr * g->block * fc_bytes(g->kernel->types.source);
        plan->kernels->im2col_pixels(&work);
    }
}

static void targets(const fc_gemm_strip *strip, fc_gemm_targets targets) {
    const fc_plan *plan = strip->plan;
    const fc_gemm *g = fc_gemm_of(plan);
    fc_gemm_flat_targets(strip, targets);
    int64_t pixel = strip->first;
    for (int64_t t = 0; t < strip->tiles; t++) {
        fc_gemm_target *target = fc_gemm_target_at(targets, t);
        target->at = g->over_channels ? pixel * plan->problem.src.axis[2] : in_place(strip, pixel, target->pixels);
        target->from = target->at == NOT_IN_PLACE;
        if (target->from == 1) target->at = t * g->kernel->nr * g->block;
        pixel += target->pixels;
    }
}

static void begin(const fc_gemm_strip *strip, fc_gemm_tile *tile, fc_gemm_columns columns[2]) {
    const fc_plan *plan = strip->plan;
    const fc_problem *p = &plan->problem;
    const fc_gemm *g = fc_gemm_of(plan);
    tile->depth = strip->k1 - strip->k0;
    tile->a_row = p->src.axis[2];
    tile->segments = 1;
    tile->a_segment = g->table;
    const int64_t element = fc_bytes(p->types.source);
    // Over channels pixels follow each other, with all of their channels.
    const int64_t tile_bytes = g->blocks == 1 ? g->kernel->mr * p->src.axis[2] * element : 0;
    const int64_t step = g->over_channels ? tile_bytes / fc_max(1, tile->depth) : p->src.channel * element;
    columns[0] = (fc_gemm_columns){fc_at(strip->src, strip->k0 * p->src.channel, p->types.source), g->table, step};
    columns[1] = (fc_gemm_columns){strip->panel, g->table + g->block, 0};
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

const fc_kind fc_kind_pointwise = {
    .name = "pointwise",
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
