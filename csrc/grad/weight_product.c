// SPDX-License-Identifier: BSD-3-Clause
//
// weight_product.c - the weight gradient as a matrix product whose depth are pixels:
//
//   d_wei[o][column] = sum over pixels of  d_dst[pixel][o] * X[pixel][column],     column = (kd, kh, kw, c)
//
// Pixels are taken in blocks of some 256.  A block copies the input under it once, zero-padded and channels last, so that
// X[pixel][(tap, c)] is one copy at another offset for each tap; the channels of neighbouring taps lie side by side, and
// a run of them is cut into tiles.  Where runs are too short for that (the three channels of a first layer), they are
// gathered pixel by pixel into rows of X.  d_dst is copied into tiles of output channels.
//
//   for each block of pixels
//     for each part of the input channels       its copy stays in half an L2
//       for each tile of output channels        256 x 14 floats of d_dst stay in L1
//         for each tile of columns              kernel: sums in registers over the block, between blocks in memory
//
// Pixels are summed in slices that depend on the problem alone, and slices by a fixed tree, so that every bit is the same
// for any number of threads; these share slices, output channels and parts of the input channels.
#include "grad/weight_taps.h"

enum { FC_DEPTH = 256, FC_SLICES = 16, FC_SLICE_BLOCKS = 4, FC_SLICES_BYTES = 8 << 20, FC_UNIT_MOST = 4 << 20 };

// A unit is a rectangle of output pixels of one (image, d); a block is some units.
typedef struct product {
    fc_problem problem;          // with axes of one tap stepping by 1
    const fc_gemm_kernel *gemm;  // over pixels: output channels for rows, columns for pixels
    int64_t rows, columns;       // of a unit, at most
    int64_t across, down, units; // units per row and column of the output, and in all
    int64_t joined;              // taps of a run of columns
    int64_t channels, parts;     // input channels of a part, at most; parts
    int64_t gathered;            // elements of a gathered row, or 0
    int64_t block, blocks;       // units of a block; blocks of all units
    int64_t slices;
    int64_t out_tile, out_tiles;
} product;

static const product *product_of(const fc_plan *plan) { return plan->state; }

static int64_t reach(const fc_axis *a, int64_t out) {
    return (out - 1) * a->stride + (a->kernel - 1) * a->dilation + 1;
}

// One tap sees every stride-th pixel, and no padding: those are its image.
static fc_problem of_seen_pixels(const fc_problem *problem) {
    fc_problem p = *problem;
    for (int i = 0; i < FC_AXES; i++) {
        fc_axis *a = &p.axis[i];
        if (a->kernel > 1 || a->pad != 0 || reach(a, a->out) > a->in) continue;
        if (a->out > 1) p.src.axis[i] *= a->stride;
        a->in = a->out;
        a->stride = 1;
    }
    return p;
}

// Columns of a part of so many channels: in runs, or all side by side.
static int64_t run_of(const product *s, int64_t channels) {
    return (s->gathered ? fc_taps(&s->problem) : s->joined) * channels;
}
static int64_t runs_of(const product *s) { return s->gathered ? 1 : fc_taps(&s->problem) / s->joined; }
static int64_t tiles_of(const product *s, int64_t channels) {
    return runs_of(s) * fc_ceil_div(run_of(s, channels), s->gemm->nr);
}

// Of the input under so many rows and columns of output pixels, one channel.
static double input_pixels(const fc_problem *p, int64_t rows, int64_t columns) {
    return (double)p->axis[0].kernel * (double)reach(&p->axis[1], rows) * (double)reach(&p->axis[2], columns);
}

// Under a unit.
static int64_t unit_pixels(const product *s) { return (int64_t)input_pixels(&s->problem, s->rows, s->columns); }

static double all_lanes(const product *s, const fc_kernels *k, const fc_machine *machine) {
    double lanes = 0;
    for (int64_t part = 0; part < s->parts; part++) {
        const int64_t channels = fc_min(s->channels, s->problem.in_channels - part * s->channels);
        lanes += (double)runs_of(s) * fc_cost_lanes(run_of(s, channels), s->gemm, k, machine);
    }
    return lanes;
}

static product shape_of(const fc_problem *problem, const fc_kernels *k, const fc_machine *machine) {
    product s = {.problem = of_seen_pixels(problem), .gemm = &k->gemm_pixels};
    const fc_problem *p = &s.problem;
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    const int64_t room = machine->l2 / 8 * 3 / k->element;
    const double most = (double)room / (double)fc_min(p->in_channels, s.gemm->nr);
    s.columns = fc_even(w->out, FC_DEPTH);
    s.rows = fc_even(h->out, fc_max(1, FC_DEPTH / s.columns));
    while (s.rows > 1 && input_pixels(p, s.rows, s.columns) > most) s.rows = fc_ceil_div(s.rows, 2);
    while (s.columns > 1 && input_pixels(p, s.rows, s.columns) > most) s.columns = fc_ceil_div(s.columns, 2);
    s.across = fc_ceil_div(w->out, s.columns);
    s.down = fc_ceil_div(h->out, s.rows);
    s.units = p->batch * p->axis[0].out * s.down * s.across;
    s.block = fc_max(1, fc_min(FC_DEPTH / (s.rows * s.columns), (int64_t)(most / (double)unit_pixels(&s))));
    s.block = fc_max(1, fc_even(s.units, s.block)); // slices and blocks of even size
    s.blocks = fc_ceil_div(s.units, s.block);
    s.joined = w->dilation == 1 ? w->kernel : 1;
    const int64_t fit = fc_max(s.gemm->nr, room / (s.block * unit_pixels(&s)) / s.gemm->nr * s.gemm->nr);
    s.channels = fc_min(p->in_channels, fit);
    if (p->in_channels > fit) s.channels = fc_round_up(fc_even(p->in_channels, fit), s.gemm->nr);
    s.parts = fc_ceil_div(p->in_channels, s.channels);
    // Gathering takes some three steps for a vector that otherwise is multiplied out_channels times.
    product gathered = s;
    gathered.gathered = fc_round_up(fc_taps(p) * p->in_channels, s.gemm->nr);
    const double out = (double)p->out_channels, copied = 3.0 * (double)(fc_taps(p) * p->in_channels);
    if (s.parts == 1 && s.block * s.rows * s.columns * gathered.gathered <= room &&
        all_lanes(&gathered, k, machine) * out + copied < all_lanes(&s, k, machine) * out)
        s = gathered;
    const double bytes = (double)(p->groups * fc_weights(p) * k->element);
    s.slices = fc_clamp(1, fc_min(s.blocks / FC_SLICE_BLOCKS, (int64_t)(FC_SLICES_BYTES / bytes)), FC_SLICES);
    s.out_tiles = fc_ceil_div(p->out_channels, s.gemm->mr);
    s.out_tile = fc_ceil_div(p->out_channels, s.out_tiles);
    return s;
}

static const char *refuse(const fc_request *r) {
    const fc_problem p = of_seen_pixels(r->op->problem);
    const int64_t channels = fc_min(p.in_channels, r->kernels->gemm_pixels.nr);
    if (input_pixels(&p, 1, 1) * (double)(channels * r->kernels->element) > FC_UNIT_MOST)
        return "the input of one output pixel needs more than 4 MiB";
    return NULL;
}

// Copying `elements` of a tensor into rows of channels, `run` at a time.
static double copies(double elements, const fc_view *view, int64_t run, const fc_kernels *k, const fc_costs *c) {
    if (view->channel == 1) return fc_cost_runs(elements, run, k, c);
    if (view->axis[2] != 1 || run <= 4) return fc_cost_elements(elements, c);
    return elements * 3 * c->copied / (double)k->vl * (double)fc_round_up(run, k->vl) / (double)run;
}

static double cost(const fc_request *r) {
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const product s = shape_of(r->op->problem, k, &r->options->machine);
    const fc_problem *p = &s.problem;
    const double groups = (double)p->groups, pixels = (double)p->batch * (double)fc_positions(p);
    const double m = (double)p->out_channels / (double)s.out_tiles;
    const double macs = pixels * (double)p->out_channels * all_lanes(&s, k, &r->options->machine) * fmax(m, 4.0) / m;
    const double tiles = (double)s.blocks * (double)(s.out_tiles * s.parts * tiles_of(&s, s.channels));
    const double input = (double)(s.units * unit_pixels(&s)) * (double)p->in_channels;
    // Pixels that adjoin are copied by rows; what is gathered from there is in the first level.
    const int64_t run =
        p->src.axis[2] == p->in_channels ? reach(&p->axis[2], s.columns) * p->in_channels : p->in_channels;
    const double gathered =
        s.gathered ? 0.5 * fc_cost_runs(pixels * (double)(fc_taps(p) * p->in_channels), s.joined * p->in_channels, k, c)
                   : 0.0;
    const double copy = copies(input, &p->src, run, k, c) + gathered +
                        copies(pixels * (double)p->out_channels, &p->dst, s.out_tile, k, c);
    const double sums = (double)(s.slices + 1) * (double)(fc_weights(p) * k->element) * c->staged;
    return 2 * c->fixed + groups * (fc_cost_macs(macs, k, c) + c->tile * tiles + copy + sums);
}

static double packing(const fc_request *r) {
    (void)r;
    return 0; // d_dst is read where it lies
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    product *s = plan->state = malloc(sizeof *s);
    if (!s) return FC_NO_MEMORY;
    *s = shape_of(&plan->problem, plan->kernels, &r->options->machine);
    return FC_OK;
}

// ------------------------------------------------------------------------------------------------------------- tasks

// How the work is cut into tasks, and where their scratch lies.
typedef struct product_share {
    int64_t out_shares, part_shares;
    size_t x, gathered, d, line, offsets; // bytes of a thread's scratch: the copies, a row of d_wei, offsets of pixels
} product_share;

// Sums between blocks, and between slices: [slice][group][tile of output channels][part][tile of columns][mr][nr].
static int64_t tile_elements(const product *s) { return s->gemm->mr * s->gemm->nr; }
static int64_t part_elements(const product *s) { return tiles_of(s, s->channels) * tile_elements(s); }
static int64_t slice_elements(const product *s) {
    return s->problem.groups * s->out_tiles * s->parts * part_elements(s);
}

typedef struct product_task {
    const fc_plan *plan;
    const product *shape;
    const char *src, *d_dst; // of the group
    char *d_wei;
    char *sums; // of the slice and group
    char *x, *gathered, *d, *line;
    int64_t *offsets;
    int64_t out0, out1;  // tiles of output channels
    int64_t unit, count; // of the block
    int64_t channel, channels;
} product_task;

typedef struct unit {
    int64_t image, d, h, w, rows, columns;
} unit;

static unit unit_at(const product *s, int64_t index) {
    const fc_axis *a = s->problem.axis;
    unit u = {.w = index % s->across * s->columns, .h = index / s->across % s->down * s->rows};
    u.d = index / s->across / s->down % a[0].out;
    u.image = index / s->across / s->down / a[0].out;
    u.rows = fc_min(s->rows, a[1].out - u.h);
    u.columns = fc_min(s->columns, a[2].out - u.w);
    return u;
}

// d_dst of the block, [tile][pixel][channels of the tile]; returns how many pixels there are.
static int64_t copy_d_dst(const product_task *t) {
    const product *s = t->shape;
    const fc_problem *p = &s->problem;
    const fc_view *view = &p->dst;
    const int64_t element = t->plan->kernels->element;
    int64_t depth = 0;
    for (int64_t i = 0; i < t->count; i++) {
        const unit u = unit_at(s, t->unit + i);
        depth += u.rows * u.columns;
    }
    for (int64_t i = 0, pixel = 0; i < t->count; i++) {
        const unit u = unit_at(s, t->unit + i);
        const int64_t start = u.image * view->outer + u.d * view->axis[0] + u.h * view->axis[1] + u.w * view->axis[2];
        const int one = u.columns * view->axis[2] == view->axis[1]; // row
        const int64_t rows = one ? 1 : u.rows, columns = one ? u.rows * u.columns : u.columns;
        for (int64_t row = 0; row < rows; row++, pixel += columns)
            for (int64_t o = t->out0; o < t->out1; o++) {
                const int64_t channel = o * s->out_tile, m = fc_min(s->out_tile, p->out_channels - channel);
                const fc_rectangle work = {
                    .src = t->d_dst + (start + row * view->axis[1] + channel * view->channel) * element,
                    .dst = t->d + ((o - t->out0) * s->out_tile * depth + pixel * m) * element,
                    .rows = columns,
                    .columns = m,
                    .src_row = view->axis[2],
                    .src_column = view->channel,
                    .dst_row = m,
                    .dst_column = 1,
                };
                t->plan->kernels->rectangle(&work);
            }
    }
    return depth;
}

// From the first element of a unit's copy, of which all are of the same size, to that of the taps (kd, kh, kw).
static int64_t tap_offset(const product_task *t, int64_t kd, int64_t kh, int64_t kw) {
    const fc_axis *h = &t->shape->problem.axis[1], *w = &t->shape->problem.axis[2];
    const int64_t y = kd * reach(h, t->shape->rows) + kh * h->dilation;
    return (y * reach(w, t->shape->columns) + kw * w->dilation) * t->channels;
}

static int64_t run_offset(const product_task *t, int64_t run) {
    const fc_axis *a = t->shape->problem.axis;
    const int64_t per_row = a[2].kernel / t->shape->joined;
    return tap_offset(t, run / per_row / a[1].kernel, run / per_row % a[1].kernel, run % per_row);
}

// Rows of X of one unit.
static void gather(const product_task *t, const unit *u, const char *x, char *out) {
    const product *s = t->shape;
    const fc_axis *h = &s->problem.axis[1], *w = &s->problem.axis[2];
    const int64_t element = t->plan->kernels->element, run = s->joined * t->channels;
    const int64_t down = h->stride * reach(w, s->columns) * t->channels;
    for (int64_t row = 0; row < u->rows; row++, x += down * element, out += u->columns * s->gathered * element)
        for (int64_t i = 0; i < fc_taps(&s->problem) / s->joined; i++) {
            const fc_rectangle work = {
                .src = x + run_offset(t, i) * element,
                .dst = out + i * run * element,
                .rows = u->columns,
                .columns = run,
                .src_row = w->stride * t->channels,
                .src_column = 1,
                .dst_row = s->gathered,
                .dst_column = 1,
            };
            t->plan->kernels->rectangle(&work);
        }
}

// The input under the block, of the channels of the part, and where each pixel's lies.
static void copy_src(const product_task *t) {
    const product *s = t->shape;
    const fc_kernels *k = t->plan->kernels;
    const fc_axis *h = &s->problem.axis[1], *w = &s->problem.axis[2];
    const int64_t step = s->gathered ? 0 : unit_pixels(s) * t->channels;
    for (int64_t i = 0, pixel = 0; i < t->count; i++) {
        const unit u = unit_at(s, t->unit + i);
        fc_problem p = s->problem;
        p.axis[2].pad -= u.w * w->stride;
        const fc_pad_copy work = {
            .problem = &p,
            .src = t->src + (u.image * p.src.outer + t->channel * p.src.channel) * k->element,
            .d = u.d,
            .h = u.h,
            .channels = t->channels,
            .rows = reach(h, s->rows),
            .width = reach(w, s->columns),
            .planes = t->x + i * step * k->element,
        };
        k->pad_copy_channels(&work);
        if (s->gathered) gather(t, &u, work.planes, t->gathered + pixel * s->gathered * k->element);
        for (int64_t y = 0; y < u.rows; y++)
            for (int64_t x = 0; x < u.columns; x++, pixel++)
                t->offsets[pixel] = s->gathered ? pixel * s->gathered
                                                : i * step + (y * h->stride * work.width + x * w->stride) * t->channels;
    }
}

// Sums of one tile of output channels and one part of the input channels.
static void multiply(const product_task *t, int64_t o, int64_t depth, int first, char *sums) {
    const product *s = t->shape;
    const int64_t element = t->plan->kernels->element, nr = s->gemm->nr, run = run_of(s, t->channels);
    const int64_t m = fc_min(s->out_tile, s->problem.out_channels - o * s->out_tile);
    fc_gemm_tile tile = {
        .m = m,
        .a_row = m,
        .depth = depth,
        .a = t->d + (o - t->out0) * s->out_tile * depth * element,
        .b_offset = t->offsets,
        .first = first,
        .sums = sums,
    };
    // The next tile of d_dst, a line or two with each step.
    tile.ahead = (const char *)tile.a + m * depth * element;
    tile.ahead_step = fc_ceil_div(m * element, tiles_of(s, t->channels));
    for (int64_t r = 0; r < runs_of(s); r++) {
        const char *b = s->gathered ? t->gathered : t->x + run_offset(t, r) * element;
        for (int64_t column = 0; column < run; column += nr) {
            tile.b = b + column * element;
            tile.columns = fc_min(nr, run - column);
            s->gemm->run(&tile);
            tile.sums = (char *)tile.sums + tile_elements(s) * element;
            tile.ahead = (const char *)tile.ahead + depth * tile.ahead_step;
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ storing

// Writes d_wei of row i of a tile of output channels: a line [tap][channel], and from there [channel][tap] or whatever.
static void store_row(const product_task *t, int64_t o, int64_t i, const char *sums) {
    const product *s = t->shape;
    const fc_problem *p = &s->problem;
    const int64_t element = t->plan->kernels->element, nr = s->gemm->nr, run = run_of(s, t->channels);
    char *line = t->line;
    for (int64_t r = 0; r < runs_of(s); r++)
        for (int64_t column = 0; column < run; column += nr, sums += tile_elements(s) * element) {
            const size_t bytes = (size_t)(fc_min(nr, run - column) * element);
            memcpy(line, sums + i * nr * element, bytes);
            line += bytes;
        }
    const int64_t count = fc_taps(p) * t->channels;
    fc_one_nan(p->types.accumulator, t->line, count);
    const fc_axis *a = p->axis;
    const int64_t across = t->channels, down = a[2].kernel * across;
    const fc_tap_box box = {t->line,
                            t->channel,
                            t->channels,
                            {0, 0, 0},
                            {a[0].kernel, a[1].kernel, a[2].kernel},
                            {a[1].kernel * down, down, across}};
    fc_store_taps(t->plan->kernels, p, &box, t->d_wei + (o * s->out_tile + i) * p->wei.outer * element);
}

static void store(const product_task *t, int64_t o, const char *sums) {
    const product *s = t->shape;
    const int64_t m = fc_min(s->out_tile, s->problem.out_channels - o * s->out_tile);
    for (int64_t i = 0; i < m; i++) store_row(t, o, i, sums);
}

// ------------------------------------------------------------------------------------------------------------ stages

static void take_part(product_task *t, int64_t part) {
    t->channel = part * t->shape->channels;
    t->channels = fc_min(t->shape->channels, t->shape->problem.in_channels - t->channel);
}

static product_task task_of(const fc_stage *stage, const fc_call *call, int64_t slice, int64_t group, int thread) {
    const product *s = product_of(stage->plan);
    const product_share *share = stage->context;
    const int64_t element = stage->plan->kernels->element;
    product_task t = {
        .plan = stage->plan,
        .shape = s,
        .src = (const char *)fc_operand(call, stage->at.src) + group * s->problem.src.group * element,
        .d_dst = (const char *)fc_operand(call, stage->at.wei) + group * s->problem.dst.group * element,
        .d_wei = (char *)fc_operand(call, stage->at.dst) + group * s->problem.wei.group * element,
        .sums = (char *)fc_operand(call, stage->at.shared) +
                (slice * slice_elements(s) + group * s->out_tiles * s->parts * part_elements(s)) * element,
        .x = fc_own_scratch(call, thread),
    };
    t.gathered = t.x + share->x;
    t.d = t.gathered + share->gathered;
    t.line = t.d + share->d;
    t.offsets = (int64_t *)(t.line + share->line);
    return t;
}

static char *sums_of(const product_task *t, int64_t o, int64_t part) {
    const product *s = t->shape;
    return t->sums + (o * s->parts + part) * part_elements(s) * t->plan->kernels->element;
}

// The sum over no images.
static void store_zeros(product_task *t, int64_t part0, int64_t part1) {
    for (int64_t part = part0; part < part1; part++)
        for (int64_t o = t->out0; o < t->out1; o++) {
            take_part(t, part);
            char *sums = sums_of(t, o, part);
            memset(sums, 0, (size_t)(part_elements(t->shape) * t->plan->kernels->element));
            store(t, o, sums);
        }
}

// A slice of the pixels, a share of the output channels and one of the parts.
static void sum_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const product *s = product_of(stage->plan);
    const product_share *share = stage->context;
    const int64_t in = task % share->part_shares, out = task / share->part_shares % share->out_shares;
    const int64_t rest = task / share->part_shares / share->out_shares, slice = rest % s->slices;
    product_task t = task_of(stage, call, slice, rest / s->slices, thread);
    t.out0 = out * s->out_tiles / share->out_shares;
    t.out1 = (out + 1) * s->out_tiles / share->out_shares;
    const int64_t part0 = in * s->parts / share->part_shares, part1 = (in + 1) * s->parts / share->part_shares;
    const int64_t block0 = slice * s->blocks / s->slices, block1 = (slice + 1) * s->blocks / s->slices;
    if (s->blocks == 0) store_zeros(&t, part0, part1);
    for (int64_t block = block0; block < block1 && !fc_must_stop(); block++) {
        t.unit = block * s->block;
        t.count = fc_min(s->block, s->units - t.unit);
        const int64_t depth = copy_d_dst(&t);
        for (int64_t part = part0; part < part1; part++) {
            take_part(&t, part);
            copy_src(&t);
            for (int64_t o = t.out0; o < t.out1; o++) {
                multiply(&t, o, depth, block == block0, sums_of(&t, o, part));
                if (s->slices == 1 && block + 1 == block1) store(&t, o, sums_of(&t, o, part));
            }
        }
    }
}

static void add_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const product *s = product_of(stage->plan);
    const int64_t part = task % s->parts, o = task / s->parts % s->out_tiles, group = task / s->parts / s->out_tiles;
    product_task t = task_of(stage, call, 0, group, thread);
    take_part(&t, part);
    char *sums = sums_of(&t, o, part);
    const int64_t count = tiles_of(s, t.channels) * tile_elements(s);
    fc_add_slices(s->problem.types.accumulator, sums, s->slices, slice_elements(s), count);
    store(&t, o, sums);
}

// Shares of output channels and of parts by which the slowest thread is done first: each task copies what it multiplies,
// and a vector copied takes the time of some three multiplied.
static product_share share_of(const product *s, const fc_kernels *k, int threads) {
    const double slices = (double)(s->slices * s->problem.groups), copied = 3.0;
    product_share share = {.out_shares = 1, .part_shares = 1};
    double best = INFINITY;
    for (int64_t out = 1; out <= fc_min(s->out_tiles, 4 * threads); out++)
        for (int64_t in = 1; in <= fc_min(s->parts, threads); in++) {
            const double rows = (double)(fc_ceil_div(s->out_tiles, out) * s->out_tile);
            const double columns = (double)(fc_ceil_div(s->parts, in) * s->channels);
            const double tasks = ceil(slices * (double)(out * in) / threads);
            const double taps = (double)fc_taps(&s->problem);
            const double time = tasks * (rows * columns * taps + copied * (rows + columns * (s->gathered ? taps : 1)));
            if (time >= 0.99 * best) continue;
            best = time;
            share.out_shares = out;
            share.part_shares = in;
        }
    const int64_t depth = s->block * s->rows * s->columns, x = s->block * unit_pixels(s) * s->channels;
    const int64_t out = fc_ceil_div(s->out_tiles, share.out_shares) * s->out_tile;
    share.x = fc_align((size_t)((x + s->gemm->nr) * k->element)); // the last columns are read as whole vectors
    share.gathered = fc_align((size_t)(depth * s->gathered * k->element));
    share.d = fc_align((size_t)(depth * out * k->element));
    share.line = fc_align((size_t)(fc_taps(&s->problem) * s->channels * k->element));
    share.offsets = fc_align((size_t)depth * sizeof(int64_t));
    return share;
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const product *s = product_of(plan);
    const product_share share = share_of(s, plan->kernels, threads);
    fc_list_scratch(list, (size_t)(s->slices * slice_elements(s) * plan->kernels->element),
                    share.x + share.gathered + share.d + share.line + share.offsets);
    const void *context = fc_list_keep(list, &share, sizeof share);
    const int64_t groups = s->problem.groups;
    fc_list_stage(list, plan, sum_task, groups * s->slices * share.out_shares * share.part_shares, context);
    if (s->slices > 1) fc_list_stage(list, plan, add_task, groups * s->out_tiles * s->parts, context);
}

static const char *form(const fc_plan *plan) { return product_of(plan)->gathered ? "gathered" : "in place"; }

const fc_kind fc_kind_weight_product = {
    .name = "direct",
    .traits = FC_SERVES_WEIGHT,
    .rows = 1,
    .refuse = refuse,
    .cost = cost,
    .packing = packing,
    .layout = layout,
    .stages = stages,
    .form = form,
};
