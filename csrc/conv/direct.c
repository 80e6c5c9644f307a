// SPDX-License-Identifier: BSD-3-Clause
//
// direct.c - direct convolution, and its form over pixels: each strip copies its input once, zero-padded and split into the
// phases of the stride, and every tap is then the same memory at another offset.  Where im2col copies each element once
// per tap, this copies it once (padded.c gives the layout; direct_channels.c has the other form).
//
// An output row is `width` columns wide, of which the last ones are not stored, so that tiles run on from row to row.  A
// unit is a block of output rows of one (image, depth).
#include "conv/direct.h"
#include "conv/padded.h"

// A unit: a block of output rows of one (image, depth), and what they read.
typedef struct direct_pixels {
    fc_padded padded;
    int64_t channels; // per block of k
    int64_t bytes;    // of the planes and of the sums between blocks
} direct_pixels;

enum { FC_TAPS_PER_BLOCK = 256, FC_UNIT_COLUMNS = 256, FC_UNIT_MOST = 4 << 20 };

// Copied rows are in L2: a single output channel alone gains by wide tiles (0.8 to 0.85 of the time; two 1.0, three 1.1).
static const fc_gemm_kernel *kernel_for(const fc_problem *p, const fc_kernels *k) {
    return fc_gemm_over_pixels(p, k, 1);
}

// As many rows to a unit as stay in a second-level cache.
static direct_pixels shape_of(const fc_problem *p, const fc_kernels *k, const fc_machine *machine) {
    const int64_t blocks = fc_max(1, fc_ceil_div(p->in_channels, fc_max(1, FC_TAPS_PER_BLOCK / fc_taps(p))));
    direct_pixels s = {.channels = fc_max(1, fc_ceil_div(p->in_channels, blocks))};
    const int64_t width = fc_padded_rows(p, 1, 1, 1, 0).width;
    int64_t rows = fc_max(1, fc_min(p->axis[1].out, fc_max(4, fc_ceil_div(FC_UNIT_COLUMNS, width))));
    const int64_t nr = kernel_for(p, k)->nr;
    for (;; rows = fc_ceil_div(rows, 2)) {
        rows = fc_even(p->axis[1].out, rows);
        s.padded = fc_padded_rows(p, rows, s.channels, 1, nr);
        const int64_t sums = blocks > 1 ? rows * fc_round_up(width, nr) * fc_round_up(p->out_channels, nr) : 0;
        s.bytes = s.padded.elements * fc_bytes(p->types.source) + sums * fc_bytes(p->types.accumulator);
        if (rows == 1 || s.bytes <= machine->l2) return s;
    }
}

static const char *pixels_refuse(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    if (fc_padded_fits(p, FC_UNIT_MOST) && shape_of(p, r->kernels, &r->options->machine).bytes <= FC_UNIT_MOST)
        return NULL;
    return "one output row needs more than 4 MiB of padded input and sums";
}

static double pixels_cost(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const direct_pixels s = shape_of(p, k, &r->options->machine);
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const double units =
        (double)p->batch * (double)p->groups * (double)p->axis[0].out * (double)fc_ceil_div(h->out, s.padded.rows);
    const double copied = units * (double)p->in_channels * (double)p->axis[0].kernel * (double)(h->stride * w->stride) *
                          (double)((s.padded.rows + s.padded.rows_extra) * s.padded.width);
    // Of a stride of two every other element is picked out of two vectors.
    double copy = w->stride <= 2 && p->src.axis[2] == 1 ? fc_cost_runs(copied, s.padded.width, k, c) * (double)w->stride
                  : p->src.channel == 1 && p->src.axis[2] != 1 // transposed
                      ? fc_cost_turned(copied / (double)p->in_channels * (double)fc_ceil_div(p->in_channels, k->vl), c)
                      : fc_cost_elements(copied, c);
    if (p->dst.axis[2] != 1) copy += fc_cost_elements(2 * fc_macs(p) / (double)(p->in_channels * fc_taps(p)), c);
    const double again = fc_taps(p) == 1 ? fc_gemm_read_again(r, s.padded.plane) : 1;
    const double gemm = fc_cost_gemm(p, k, r->options, 0, copy) * again;
    return gemm * (double)s.padded.width / (double)fc_max(1, w->out);
}

// Whether outputs fill a good part of a vector of channels.
static int fill_vectors(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    return p->out_channels * 4 >= r->kernels->gemm_channels.nr;
}

// Whether rows of pixels may go over channels all the same, transposed.
static int turns(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    return p->src.axis[2] == 1 && fill_vectors(r) && !fc_direct_channels_refuse(r);
}

// Whether strides suggest it, and outputs are enough for it, or so few that they are summed one by one.
static int suggested(const fc_request *r) {
    if (fc_direct_channels_along(r)) return 1;
    return fc_gemm_over_channels(r->op->problem, r->kernels) && (fill_vectors(r) || pixels_refuse(r));
}

static const char *refuse(const fc_request *r) {
    if (suggested(r)) return fc_direct_channels_refuse(r);
    return turns(r) ? NULL : pixels_refuse(r);
}

// What the strides suggest, or for rows of pixels the cheaper way: going over channels transposes the input as it is
// copied and the output as it is stored, which costs less than short rows and phases of a stride often do.  Where channels
// are neighbours but few outputs would leave most of a vector empty, these are summed one by one, or it goes over pixels,
// whatever the size of the image.  A batch does not enter: an image has the same bits in one and by itself.
static int over_channels(const fc_request *r) {
    if (suggested(r)) return 1;
    if (!turns(r)) return 0;
    fc_problem image = *(const fc_problem *)r->op->problem;
    image.batch = 1;
    const fc_op op = {r->op->family, &image};
    fc_request alone = *r;
    alone.op = &op;
    return pixels_refuse(&alone) || fc_direct_channels_cost(&alone) < pixels_cost(&alone);
}

static double cost(const fc_request *r) { return over_channels(r) ? fc_direct_channels_cost(r) : pixels_cost(r); }

static const direct_pixels *shape_in(const fc_plan *plan) { return fc_gemm_of(plan)->shape; }

static int64_t unit_blocks(const fc_plan *plan) {
    return fc_ceil_div(plan->problem.axis[1].out, shape_in(plan)->padded.rows);
}

static const fc_gemm_source source;

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    const fc_problem *p = &plan->problem;
    if (over_channels(r)) return fc_direct_channels_layout(plan, r);
    const direct_pixels s = shape_of(p, plan->kernels, &r->options->machine);
    const int64_t block = s.channels * fc_taps(p);
    const fc_gemm_wish wish = {.source = &source,
                               .borrows = r->options->borrows,
                               .kernel = kernel_for(p, plan->kernels),
                               .order = 1,
                               .block = block,
                               .table = block,
                               .load = 0.5,
                               .shape = &s,
                               .shape_bytes = sizeof s};
    const fc_status status = fc_gemm_layout(plan, &wish);
    if (status != FC_OK) return status;
    fc_padded_offsets(p, &s.padded, s.channels, fc_gemm_of(plan)->table);
    return FC_OK;
}

static int64_t units(const fc_plan *plan) {
    return plan->problem.batch * plan->problem.axis[0].out * unit_blocks(plan);
}

static int64_t unit_columns(const fc_plan *plan) {
    const direct_pixels *s = shape_in(plan);
    return s->padded.rows * s->padded.width;
}

static int64_t panel_elements(const fc_plan *plan, int64_t count) { return count * shape_in(plan)->padded.elements; }

static int64_t unit_tiles(const fc_plan *plan, const direct_pixels *s) {
    return fc_ceil_div((s->padded.rows - 1) * s->padded.width + plan->problem.axis[2].out,
                       fc_gemm_of(plan)->kernel->nr);
}

static int64_t tiles(const fc_plan *plan, int64_t first, int64_t count) {
    (void)first;
    const direct_pixels *s = shape_in(plan);
    return count * unit_tiles(plan, s);
}

// The first output row of a unit, and how many there are.
typedef struct direct_unit {
    int64_t image, d, h, rows;
} direct_unit;

static direct_unit unit_of(const fc_gemm_strip *strip, const direct_pixels *s, int64_t unit) {
    const fc_problem *p = &strip->plan->problem;
    const int64_t blocks = unit_blocks(strip->plan), at = strip->first + unit;
    direct_unit u = {.h = at % blocks * s->padded.rows};
    u.d = at / blocks % p->axis[0].out;
    u.image = at / blocks / p->axis[0].out;
    u.rows = fc_min(s->padded.rows, p->axis[1].out - u.h);
    return u;
}

static void targets(const fc_gemm_strip *strip, fc_gemm_targets targets) {
    const fc_problem *p = &strip->plan->problem;
    const direct_pixels *s = shape_in(strip->plan);
    const int64_t across = unit_tiles(strip->plan, s), nr = fc_gemm_of(strip->plan)->kernel->nr;
    for (int64_t u = 0; u < strip->count; u++) {
        const direct_unit unit = unit_of(strip, s, u);
        int64_t row = unit.image * p->dst.outer + unit.d * p->dst.axis[0] + unit.h * p->dst.axis[1], x = 0;
        const int64_t columns = (unit.rows - 1) * s->padded.width + p->axis[2].out; // of the padded rows
        for (int64_t t = 0; t < across; t++) {
            fc_gemm_target *target = fc_gemm_target_at(targets, u * across + t);
            target->pixels = fc_max(0, fc_min(nr, columns - t * nr));
            target->at = u * s->padded.elements + t * nr;
            target->from = 0;
            target->run_count = 0;
            for (int64_t j = 0; j < target->pixels;) {
                const int64_t next = fc_min(target->pixels - j, s->padded.width - x);
                const int64_t length = fc_min(next, p->axis[2].out - x);
                if (length > 0) target->runs[target->run_count++] = (fc_run){j, length, row + x * p->dst.axis[2]};
                j += next;
                x += next;
                if (x < s->padded.width) continue;
                x = 0;
                row += p->dst.axis[1];
            }
        }
    }
}

static void load(const fc_gemm_strip *strip) {
    const fc_plan *plan = strip->plan;
    const fc_problem *p = &plan->problem;
    const direct_pixels *s = shape_in(strip->plan);
    const int64_t taps = fc_taps(p);
    for (int64_t u = 0; u < strip->count; u++) {
        const direct_unit at = unit_of(strip, s, u);
        const fc_pad_copy work = {
            .problem = p,
            .src = fc_at(strip->src, at.image * p->src.outer, p->types.source),
            .d = at.d,
            .h = at.h,
            .c0 = strip->k0 / taps,
            .channels = (strip->k1 - strip->k0) / taps,
            .rows = s->padded.rows + s->padded.rows_extra,
            .width = s->padded.width,
            .planes = (char *)strip->panel + u * s->padded.elements * fc_bytes(p->types.source),
        };
        plan->kernels->pad_copy_pixels(&work);
    }
}

static void begin(const fc_gemm_strip *strip, fc_gemm_tile *tile, fc_gemm_columns columns[2]) {
    tile->depth = strip->k1 - strip->k0;
    columns[0] = (fc_gemm_columns){strip->panel, fc_gemm_of(strip->plan)->table, 0};
}

static const fc_gemm_source source = {
    .units = units,
    .unit_columns = unit_columns,
    .panel_elements = panel_elements,
    .tiles = tiles,
    .targets = targets,
    .load = load,
    .begin = begin,
};

const fc_kind fc_kind_direct = {
    .name = "direct",
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
