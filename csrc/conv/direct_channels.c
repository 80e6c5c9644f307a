// SPDX-License-Identifier: BSD-3-Clause
//
// direct_channels.c - direct convolution, over channels: k runs over (kd, kh, kw, channel), and the channels of the taps
// of one kernel row lie side by side wherever those of the pixels do.  A tile is a part of an output row:
//
//   A[pixel i][k] = rows[(kd, kh) of k][i * stride + (kw, channel) of k]
//
// so a kernel row is one segment of kw * channels steps, and the stride only a distance between rows of A.  The rows are
// the image's own where no window reaches beyond it, else a zero-padded copy of the few that a block of output rows needs.
// Splitting them into the phases of the stride, as over pixels they must be, would end a segment with each tap.
#include "conv/direct.h"

typedef struct direct_channels {
    int in_place;              // the image's own rows, else a copy
    int along;                 // output channels are few: each is summed by itself
    int64_t rows;              // of output
    int64_t copies;            // of input rows: one, or where taps are far apart one for each row of the kernel
    int64_t rows_in, width;    // of a copy
    int64_t pixel, row, plane; // distances in elements, of the copy or of the image
    int64_t tap_row;           // and from one row of the kernel to the next
    int64_t segment, taps;     // steps of k that are neighbours in memory, and the taps that they join
    int64_t block, span;       // of fc_gemm
} direct_channels;

enum { FC_DIRECT_K = 256, FC_ROWS_MOST = 4 << 20 };

// Whether all windows of an axis lie inside the input.
static int inside(const fc_axis *a) {
    return a->pad <= 0 && (a->out - 1) * a->stride - a->pad + (a->kernel - 1) * a->dilation < a->in;
}

// Taps of a kernel row that are neighbours in memory where pixels are.
static int64_t joined(const fc_problem *p) { return p->axis[2].dilation == 1 ? p->axis[2].kernel : 1; }

static int along(const fc_problem *p, const fc_kernels *k, const fc_machine *machine) {
    const int64_t taps = joined(p);
    return fc_gemm_along(p, k, machine, fc_taps(p) / taps, taps * p->in_channels);
}

static direct_channels shape_of(const fc_problem *p, const fc_kernels *k, const fc_machine *machine) {
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    direct_channels s = {.in_place = p->src.channel == 1 && inside(d) && inside(h) && inside(w)};
    s.along = along(p, k, machine);
    // The order of sums along k is that of its segments, which must not depend on where the image lies.
    if (s.along && p->src.axis[2] != p->in_channels) s.in_place = 0;
    s.width = (w->out - 1) * w->stride + (w->kernel - 1) * w->dilation + 1;
    if (s.in_place) {
        s.rows = 1;
        s.pixel = p->src.axis[2];
        s.row = p->src.axis[1];
        s.plane = p->src.axis[0];
        s.tap_row = h->dilation * s.row;
    } else {
        s.pixel = p->in_channels;
        s.row = s.width * s.pixel;
        const int64_t reach = (h->kernel - 1) * h->dilation + 1;
        const int64_t room = machine->l2 / 8 * 3 / (fc_max(1, d->kernel) * s.row * fc_bytes(p->types.source));
        const int64_t enough = fc_ceil_div(256, w->out);
        s.copies = h->kernel;
        s.rows = fc_even(h->out, fc_clamp(1, (room / fc_max(1, h->kernel) - 1) / h->stride + 1, enough));
        s.rows_in = (s.rows - 1) * h->stride + 1;
        if (s.rows_in >= h->dilation) { // what one row of the kernel reads, the next does, too
            s.copies = 1;
            s.rows = fc_even(h->out, fc_clamp(1, (room - reach) / h->stride + 1, enough));
            s.rows_in = (s.rows - 1) * h->stride + reach;
        }
        s.plane = s.rows_in * s.row;
        s.tap_row = s.copies > 1 ? d->kernel * s.plane : h->dilation * s.row;
    }
    s.taps = s.pixel == p->in_channels ? joined(p) : 1;
    s.segment = s.taps * p->in_channels;
    const int64_t depth = p->in_channels * fc_taps(p), segments = depth / s.segment;
    const int64_t most = s.along ? FC_DIRECT_K * k->vl : FC_DIRECT_K; // a lane's share of a sum counts
    if (s.segment > most) {                                           // each segment in parts of even size
        s.block = fc_ceil_div(s.segment, fc_ceil_div(s.segment, most));
        s.span = s.segment;
    } else { // whole segments
        const int64_t blocks = fc_ceil_div(segments, most / s.segment);
        s.block = fc_ceil_div(segments, blocks) * s.segment;
        s.span = depth;
    }
    return s;
}

static double unit_bytes(const fc_problem *p) {
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const double width = (double)(w->out - 1) * (double)w->stride + (double)(w->kernel - 1) * (double)w->dilation + 1;
    const double rows = (double)p->axis[0].kernel * (double)h->kernel;
    return rows * width * (double)p->in_channels * (double)fc_bytes(p->types.source);
}

const char *fc_direct_channels_refuse(const fc_request *r) {
    if (unit_bytes(r->op->problem) > FC_ROWS_MOST) return "the input of one output row needs more than 4 MiB";
    return NULL;
}

int fc_direct_channels_along(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    return !fc_direct_channels_refuse(r) && along(p, r->kernels, &r->options->machine);
}

double fc_direct_channels_cost(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const direct_channels s = shape_of(p, r->kernels, &r->options->machine);
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const double units =
        (double)p->batch * (double)p->groups * (double)p->axis[0].out * (double)fc_ceil_div(h->out, s.rows);
    const double copied = s.in_place ? 0 : units * (double)p->axis[0].kernel * (double)(s.copies * s.rows_in * s.row);
    double copy = fc_cost_runs(copied, p->src.axis[2] == p->in_channels ? s.row : p->in_channels, k, c);
    if (p->src.axis[2] == 1 && p->src.channel != 1)
        copy = p->in_channels <= 4
                   ? 0.25 * fc_cost_elements(copied, c)
                   : fc_cost_turned(copied / (double)p->in_channels * (double)fc_ceil_div(p->in_channels, k->vl), c);
    else if (p->src.channel != 1) copy = fc_cost_runs(copied, 1, k, c);
    if (p->dst.channel != 1)
        copy +=
            fc_cost_turned((double)(p->groups * p->batch * fc_positions(p) * fc_ceil_div(p->out_channels, k->vl)), c);
    if (s.along)
        return c->row_unit * units + copy + fc_gemm_along_cost(r, p->in_channels * fc_taps(p) / s.segment, s.segment);
    // Tiles end with the row.
    const int64_t across = fc_ceil_div(w->out, k->gemm_channels.mr);
    const double m = (double)w->out / (double)across;
    const int64_t pixels = p->batch * fc_positions(p);
    const double flat = (double)pixels / (double)fc_max(1, fc_ceil_div(pixels, k->gemm_channels.mr));
    const int64_t apart = w->stride * s.pixel * fc_bytes(p->types.source);
    const double aliases = fc_cost_aliases(&r->options->machine, apart, fc_ceil_div(w->out, across));
    // Tiles of less than four rows take as long as of four, and of two four fifths of that.
    const double rows = m < 3 ? fmax(m, 3.2) : fmax(m, 4.0), narrow = rows / m * flat / fmax(flat, 4.0);
    return c->row_unit * units + fc_cost_gemm(p, k, r->options, 1, copy) * narrow * aliases;
}

static const direct_channels *shape_in(const fc_plan *plan) { return fc_gemm_of(plan)->shape; }

static int64_t unit_blocks(const fc_problem *p, const direct_channels *s) {
    return fc_ceil_div(p->axis[1].out, s->rows);
}

static int64_t units(const fc_plan *plan) {
    const fc_problem *p = &plan->problem;
    const direct_channels *s = shape_in(plan);
    return p->batch * p->axis[0].out * unit_blocks(p, s);
}

static int64_t unit_columns(const fc_plan *plan) { return shape_in(plan)->rows * plan->problem.axis[2].out; }

static int64_t unit_elements(const fc_problem *p, const direct_channels *s) {
    return s->in_place ? 0 : fc_round_up(s->copies * p->axis[0].kernel * s->plane, 16);
}

static int64_t panel_elements(const fc_plan *plan, int64_t count) {
    const direct_channels *s = shape_in(plan);
    return count * unit_elements(&plan->problem, s);
}

static int64_t tiles_across(const fc_plan *plan) {
    return fc_ceil_div(plan->problem.axis[2].out, fc_gemm_of(plan)->kernel->mr);
}

static int64_t tiles(const fc_plan *plan, int64_t first, int64_t count) {
    (void)first;
    return count * tiles_across(plan) * shape_in(plan)->rows;
}

// The first output row of a unit.
typedef struct rows_unit {
    int64_t image, d, h;
} rows_unit;

static rows_unit unit_of(const fc_gemm_strip *strip, const direct_channels *s, int64_t unit) {
    const fc_problem *p = &strip->plan->problem;
    const int64_t blocks = unit_blocks(p, s), at = strip->first + unit;
    return (rows_unit){
        .h = at % blocks * s->rows, .d = at / blocks % p->axis[0].out, .image = at / blocks / p->axis[0].out};
}

static void targets(const fc_gemm_strip *strip, fc_gemm_targets targets) {
    const fc_problem *p = &strip->plan->problem;
    const direct_channels *s = shape_in(strip->plan);
    const fc_axis *d = &p->axis[0], *h = &p->axis[1], *w = &p->axis[2];
    const int64_t across = tiles_across(strip->plan), least = w->out / across, wider = w->out % across;
    for (int64_t u = 0; u < strip->count; u++) {
        const rows_unit unit = unit_of(strip, s, u);
        int64_t at = u * unit_elements(p, s);
        if (s->in_place)
            at = unit.image * p->src.outer + (unit.d * d->stride - d->pad) * s->plane +
                 (unit.h * h->stride - h->pad) * s->row - w->pad * s->pixel;
        int64_t base = unit.image * p->dst.outer + unit.d * p->dst.axis[0] + unit.h * p->dst.axis[1];
        for (int64_t row = 0; row < s->rows; row++, at += h->stride * s->row, base += p->dst.axis[1]) {
            const int there = unit.h + row < p->axis[1].out; // the last unit may lack rows
            int64_t column = 0;
            for (int64_t part = 0; part < across; part++) {
                fc_gemm_target *target = fc_gemm_target_at(targets, (u * s->rows + row) * across + part);
                const int64_t count = there ? least + (part < wider) : 0;
                target->pixels = count;
                target->at = at + column * w->stride * s->pixel;
                target->from = 0;
                target->run_count = 0;
                for (int64_t i = 0; i < count; i++, column++) target->row_offset[i] = base + column * p->dst.axis[2];
            }
        }
    }
}

static void load(const fc_gemm_strip *strip) {
    const fc_plan *plan = strip->plan;
    const fc_problem *p = &plan->problem;
    const direct_channels *s = shape_in(plan);
    if (s->in_place || strip->k0 > 0) return;
    for (int64_t u = 0; u < strip->count; u++) {
        const rows_unit at = unit_of(strip, s, u);
        fc_problem rows = *p;
        fc_pad_copy work = {
            .problem = &rows,
            .src = fc_at(strip->src, at.image * p->src.outer, p->types.source),
            .d = at.d,
            .h = at.h,
            .channels = p->in_channels,
            .rows = s->rows_in,
            .width = s->width,
            .planes = (char *)strip->panel + u * unit_elements(p, s) * fc_bytes(p->types.source),
        };
        for (int64_t i = 0; i < s->copies; i++, rows.axis[1].pad -= p->axis[1].dilation) {
            plan->kernels->pad_copy_channels(&work);
            work.planes = (char *)work.planes + s->tap_row * fc_bytes(p->types.source);
        }
    }
}

static void begin(const fc_gemm_strip *strip, fc_gemm_tile *tile, fc_gemm_columns columns[2]) {
    const fc_plan *plan = strip->plan;
    const direct_channels *s = shape_in(plan);
    columns[0].base =
        fc_at(s->in_place ? strip->src : strip->panel, strip->k0 % s->segment, plan->problem.types.source);
    tile->a_row = plan->problem.axis[2].stride * s->pixel;
    tile->a_segment = fc_gemm_of(plan)->table + strip->k0 / s->segment;
    tile->segments = fc_max(1, (strip->k1 - strip->k0) / s->segment);
    tile->depth = (strip->k1 - strip->k0) / tile->segments;
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

fc_status fc_direct_channels_layout(fc_plan *plan, const fc_request *r) {
    const fc_problem *p = &plan->problem;
    const direct_channels s = shape_of(p, r->kernels, &r->options->machine);
    const int64_t segments = p->in_channels * fc_taps(p) / s.segment;
    const fc_gemm_wish wish = {.source = &source,
                               .borrows = r->options->borrows,
                               .kernel = s.along ? &plan->kernels->gemm_along : NULL,
                               .over_channels = 1,
                               .order = p->in_channels,
                               .block = s.block,
                               .span = s.span,
                               .table = segments,
                               .load = s.in_place ? 0.0 : 0.2,
                               .shape = &s,
                               .shape_bytes = sizeof s};
    const fc_status status = fc_gemm_layout(plan, &wish);
    if (status != FC_OK) return status;
    int64_t *offset = fc_gemm_of(plan)->table;
    for (int64_t kd = 0; kd < p->axis[0].kernel; kd++)
        for (int64_t kh = 0; kh < p->axis[1].kernel; kh++)
            for (int64_t kw = 0; kw < p->axis[2].kernel; kw += s.taps)
                *offset++ = kd * (s.in_place ? p->axis[0].dilation : 1) * s.plane + kh * s.tap_row +
                            kw * p->axis[2].dilation * s.pixel;
    return FC_OK;
}
