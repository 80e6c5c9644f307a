// SPDX-License-Identifier: BSD-3-Clause
//
// weight_pointwise.c - the weight gradient of 1x1 kernels, a product whose depth are pixels, of tensors where they lie:
//
//   d_wei[o][c] = sum over pixels of  d_dst[pixel][o] * src[pixel][c]
//
// One of the two, either, is the rows of the register tile, whose numbers are broadcast, and the other the columns:
//
//   over channels  rows side by side in memory (NHWC), columns as well, or packed as below
//   over pixels    each row runs along pixels (NCHW), columns packed: [tile][pixel][nr]
//
//   for each block of pixels       some 256; 128 and 512 take as long
//     for each part of the columns its pixels stay in 3/8 of L2
//       for each tile of rows      asked for while the tile before it is multiplied
//         for each tile of columns kernel: sums in registers over the block, between blocks in memory
//
// Where columns in place are no whole number of vectors, the last tile begins earlier and computes some sums twice.
//
// Pixels are summed in slices that depend on the problem alone, and slices by a fixed tree, so that every bit is the same
// for any number of threads.
#include "grad/weight_taps.h"

enum {
    FC_DEPTH = 256,
    FC_SLICES = 16,
    FC_SLICE_BLOCKS = 4,
    FC_SLICES_BYTES = 8 << 20,
    FC_SHORTEST = 32,
    FC_TWO_LINES = 128
};

// A tensor as channels by pixels, flat over (image, d, h, w); `run` of these lie `step` apart.
typedef struct side {
    int64_t channels, channel, group;
    int64_t pixel[FC_AXES + 1]; // strides of image, d, h and w
    int64_t run, step;
} side;

typedef struct pointwise_grad {
    side rows, columns;
    int64_t row, column; // strides of d_wei
    int turned;          // rows are src
    int over_channels, packed;
    int copied; // rows, whose distance would let them share few sets of L1
    const fc_gemm_kernel *gemm;
    int64_t count[FC_AXES + 1], pixels, groups;
    // Blocks: some runs of the rows, or pieces of `depth` pixels at most.
    int64_t depth, segments, pieces, blocks;
    int64_t slices;
    int64_t row_tile, row_tiles;
    int64_t tiles, part, parts; // of columns; tiles of a part, and parts
} pointwise_grad;

static const pointwise_grad *grad_of(const fc_plan *plan) { return plan->state; }

static side side_of(const fc_view *v, const fc_axis *a, int64_t batch, int64_t channels, int strided) {
    side s = {.channels = channels, .channel = v->channel, .group = v->group, .pixel = {v->outer}, .run = 1, .step = 1};
    for (int i = 0; i < FC_AXES; i++) s.pixel[i + 1] = v->axis[i] * (strided ? a[i].stride : 1);
    for (int i = FC_AXES; i >= 0; i--) {
        const int64_t count = i > 0 ? a[i - 1].out : batch;
        if (count == 1) continue;
        if (s.run == 1) s.step = s.pixel[i];
        else if (s.pixel[i] != s.run * s.step) break;
        s.run *= count;
    }
    return s;
}

// Tiles of so many columns in place: whole ones, and one or two that overlap with them; 0 where a vector is too long.
static int64_t tiles_in_place(int64_t columns, int64_t nr, int64_t vl) {
    if (columns < vl) return 0;
    return columns < nr && columns > vl ? 2 : fc_ceil_div(columns, nr);
}

// The columns [first, first + count) of a tile.
typedef struct span {
    int64_t first, count;
} span;

static span span_of(const pointwise_grad *s, int64_t vl, int64_t tile) {
    const int64_t nr = s->gemm->nr, columns = s->columns.channels, left = columns - tile * nr;
    if (s->packed) return (span){tile * nr, fc_min(nr, left)};
    if (columns < nr) return (span){tile == 0 ? 0 : columns - vl, vl};
    if (left >= nr) return (span){tile * nr, nr};
    return left > vl ? (span){columns - nr, nr} : (span){columns - vl, vl};
}

// Predicted seconds of a group, without what all forms have in common.
static double seconds(const pointwise_grad *s, const fc_request *r) {
    const fc_kernels *k = r->kernels;
    const fc_costs *c = &r->options->costs;
    const double m = (double)s->rows.channels / (double)s->row_tiles, pixels = (double)s->pixels;
    const int twice = !s->packed && s->tiles * s->gemm->nr > fc_round_up(s->columns.channels, s->gemm->nr);
    const double lanes =
        twice ? 1.3 * (double)s->gemm->nr : fc_cost_lanes(s->columns.channels, s->gemm, k, &r->options->machine);
    const double macs = pixels * (double)s->rows.channels * lanes * fmax(m, 4.0) / m;
    double copy = 0;
    if (s->packed && s->columns.channel == 1)
        copy = fc_cost_runs(pixels * (double)s->columns.channels, s->gemm->nr, k, c);
    else if (s->packed && s->columns.step <= 2) copy = pixels * lanes * 3 * c->copied / (double)k->vl;
    else if (s->packed) copy = fc_cost_elements(pixels * (double)s->columns.channels, c);
    if (s->copied) copy += fc_cost_runs(pixels * (double)(s->parts * s->rows.channels), s->depth, k, c);
    return fc_cost_macs(macs, k, c) + copy + c->tile * (double)(s->blocks * s->row_tiles * s->tiles);
}

// Fills in the rest of a form; false if it does not serve.
static int form_of(pointwise_grad *s, const fc_request *r) {
    const fc_kernels *k = r->kernels;
    if (s->over_channels ? s->rows.channels > 1 && s->rows.channel != 1 : s->rows.run > 1 && s->rows.step != 1)
        return 0;
    if (s->over_channels && s->rows.run < fc_min(s->pixels, FC_SHORTEST)) return 0;
    s->gemm = s->over_channels ? &k->gemm_pixels : &k->gemm_channels;
    const int64_t in_place = s->columns.channel == 1 ? tiles_in_place(s->columns.channels, s->gemm->nr, k->vl) : 0;
    s->packed = !s->over_channels || in_place == 0;
    s->tiles = s->packed ? fc_ceil_div(s->columns.channels, s->gemm->nr) : in_place;
    s->copied =
        !s->over_channels && fc_cost_aliases(&r->options->machine, s->rows.channel * k->element, s->gemm->mr) > 1.1;
    s->row_tiles = fc_ceil_div(s->rows.channels, s->gemm->mr);
    s->row_tile = fc_ceil_div(s->rows.channels, s->row_tiles);
    const int64_t runs = s->pixels / fc_max(1, s->rows.run),
                  most = s->over_channels ? 1 : FC_DEPTH / fc_max(1, s->rows.run);
    s->segments = fc_max(1, fc_even(runs, fc_max(1, most)));
    s->depth = fc_min(s->rows.run, fc_round_up(fc_even(s->rows.run, FC_DEPTH), FC_TWO_LINES / k->element));
    s->pieces = fc_ceil_div(s->rows.run, fc_max(1, s->depth));
    s->blocks = s->pixels ? fc_ceil_div(runs, s->segments) * s->pieces : 0;
    const int64_t room =
        r->options->machine.l2 / 8 * 3 / (s->segments * fc_max(1, s->depth) * s->gemm->nr * k->element);
    s->part = fc_even(s->tiles, fc_max(1, room));
    s->parts = fc_ceil_div(s->tiles, s->part);
    const int64_t bytes = s->groups * s->row_tiles * s->tiles * s->gemm->mr * s->gemm->nr * k->element;
    s->slices = fc_clamp(1, fc_min(s->blocks / FC_SLICE_BLOCKS, FC_SLICES_BYTES / bytes), FC_SLICES);
    return 1;
}

// The cheapest form, and its seconds; INFINITY if there is none.
static double shape_of(const fc_request *r, pointwise_grad *best) {
    const fc_problem *p = r->op->problem;
    const fc_axis *a = p->axis;
    const side dst = side_of(&p->dst, a, p->batch, p->out_channels, 0);
    const side src = side_of(&p->src, a, p->batch, p->in_channels, 1);
    double least = INFINITY;
    for (int form = 0; form < 4; form++) {
        pointwise_grad s = {.turned = form % 2, .over_channels = form < 2, .groups = p->groups};
        s.rows = s.turned ? src : dst;
        s.columns = s.turned ? dst : src;
        s.row = s.turned ? p->wei.channel : p->wei.outer;
        s.column = s.turned ? p->wei.outer : p->wei.channel;
        s.count[0] = p->batch;
        for (int i = 0; i < FC_AXES; i++) s.count[i + 1] = a[i].out;
        s.pixels = p->batch * fc_positions(p);
        if (!form_of(&s, r)) continue;
        const double time = seconds(&s, r);
        if (time >= 0.98 * least) continue;
        least = time;
        *best = s;
    }
    return least;
}

static const char *refuse(const fc_request *r) {
    const fc_problem *p = r->op->problem;
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &p->axis[i];
        if (a->kernel != 1 || a->pad != 0 || (a->out - 1) * a->stride >= a->in)
            return "only gradients of 1x1 kernels without padding are pointwise";
    }
    pointwise_grad s;
    return shape_of(r, &s) < INFINITY ? NULL : "neither channels nor pixels are neighbours in memory";
}

static double cost(const fc_request *r) {
    pointwise_grad s;
    const double time = shape_of(r, &s);
    const fc_problem *p = r->op->problem;
    const double sums =
        (double)(s.slices + 1) * (double)(fc_weights(p) * r->kernels->element) * r->options->costs.staged;
    return 2 * r->options->costs.fixed + (double)p->groups * (time + sums);
}

static double packing(const fc_request *r) {
    (void)r;
    return 0; // d_dst is read where it lies
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    pointwise_grad *s = plan->state = malloc(sizeof *s);
    if (!s) return FC_NO_MEMORY;
    shape_of(r, s);
    return FC_OK;
}

// ------------------------------------------------------------------------------------------------------------- tasks

// How the work is cut into tasks, and where in a thread's scratch lie offsets of pixels or segments; first are columns.
typedef struct grad_share {
    int64_t row_shares, part_shares;
    size_t packed, copied, offsets;
} grad_share;

// Sums between blocks, and between slices: [slice][group][tile of rows][tile of columns][mr][nr].
static int64_t tile_elements(const pointwise_grad *s) { return s->gemm->mr * s->gemm->nr; }
static int64_t group_elements(const pointwise_grad *s) { return s->row_tiles * s->tiles * tile_elements(s); }
static int64_t slice_elements(const pointwise_grad *s) { return s->groups * group_elements(s); }

typedef struct grad_task {
    const fc_plan *plan;
    const pointwise_grad *shape;
    const char *rows, *columns; // of the group
    char *d_wei, *sums, *packed, *copied;
    int64_t *offsets;
} grad_task;

// Where a pixel lies, in elements.
static int64_t pixel_at(const pointwise_grad *s, const side *a, int64_t pixel) {
    int64_t at = 0;
    for (int i = FC_AXES; i >= 0; i--) at += fc_digit(&pixel, s->count[i]) * a->pixel[i];
    return at;
}

// Its first pixel, its depth in each segment, and how many of these there are, each a run further; where it begins in the
// rows, and those and the columns of the block behind it, if there is one.
typedef struct grad_block {
    int64_t pixel, depth, segments, rows;
    const char *next_rows, *next_columns;
} grad_block;

static grad_block block_at(const pointwise_grad *s, int64_t block) {
    const int64_t piece = fc_digit(&block, s->pieces), run = block * s->segments, at = piece * s->depth;
    return (grad_block){
        .pixel = run * s->rows.run + at,
        .depth = fc_min(s->depth, s->rows.run - at),
        .segments = fc_min(s->segments, s->pixels / s->rows.run - run),
    };
}

// Columns of a part, packed.
static void pack(const grad_task *t, const grad_block *b, int64_t tile0, int64_t tile1) {
    const pointwise_grad *s = t->shape;
    const side *from = &s->columns;
    const int64_t element = t->plan->kernels->element, nr = s->gemm->nr, depth = b->depth * b->segments;
    for (int64_t i = 0, count; i < depth; i += count) {
        const int64_t pixel = b->pixel + i / b->depth * s->rows.run + i % b->depth;
        count = fc_min(b->depth - i % b->depth, from->run - pixel % from->run);
        const int64_t at = pixel_at(s, from, pixel);
        for (int64_t tile = tile0; tile < tile1; tile++) {
            const fc_rectangle work = {
                .src = t->columns + (at + tile * nr * from->channel) * element,
                .dst = t->packed + ((tile - tile0) * depth + i) * nr * element,
                .rows = count,
                .columns = fc_min(nr, from->channels - tile * nr),
                .src_row = from->step,
                .src_column = from->channel,
                .dst_row = nr,
                .dst_column = 1,
            };
            t->plan->kernels->rectangle(&work);
        }
    }
}

// Pixels of the kernel's segments: over pixels pieces of runs are cut into as many as two lines hold, with each of which it
// asks for two lines of as many channels.
static int64_t segment_of(const pointwise_grad *s, const grad_block *b, int64_t element) {
    const int64_t some = FC_TWO_LINES / element;
    return !s->over_channels && s->pieces > 1 && b->depth % some == 0 ? some : b->depth;
}

// Where kernels find the columns of each pixel, and over pixels the rows of each segment.
static void find(const grad_task *t, const grad_block *b) {
    const pointwise_grad *s = t->shape;
    const int64_t some = segment_of(s, b, t->plan->kernels->element);
    if (some < b->depth)
        for (int64_t i = 0; i < b->depth / some; i++) t->offsets[i] = (s->copied ? 0 : b->rows) + i * some;
    else if (!s->over_channels)
        for (int64_t i = 0; i < b->segments; i++)
            t->offsets[i] = s->copied ? i * b->depth : pixel_at(s, &s->rows, b->pixel + i * s->rows.run);
    else if (s->packed)
        for (int64_t i = 0; i < b->depth; i++) t->offsets[i] = i * s->gemm->nr;
    else
        for (int64_t i = 0, run; i < b->depth; i += run) {
            const int64_t pixel = b->pixel + i, at = pixel_at(s, &s->columns, pixel);
            run = fc_min(b->depth - i, s->columns.run - pixel % s->columns.run);
            for (int64_t j = 0; j < run; j++) t->offsets[i + j] = at + j * s->columns.step;
        }
}

// Adds the slices of a tile and writes it to d_wei.
static void store(const grad_task *t, int64_t row_tile, int64_t tile, char *sums, int64_t slices) {
    const pointwise_grad *s = t->shape;
    const int64_t element = t->plan->kernels->element, row = row_tile * s->row_tile;
    const span columns = span_of(s, t->plan->kernels->vl, tile);
    fc_add_slices(t->plan->kernels->dtype, sums, slices, slice_elements(s), tile_elements(s));
    fc_one_nan(t->plan->kernels->dtype, sums, tile_elements(s));
    const fc_rectangle work = {
        .src = sums,
        .dst = t->d_wei + (row * s->row + columns.first * s->column) * element,
        .rows = fc_min(s->row_tile, s->rows.channels - row),
        .columns = columns.count,
        .src_row = s->gemm->nr,
        .src_column = 1,
        .dst_row = s->row,
        .dst_column = s->column,
    };
    t->plan->kernels->rectangle(&work);
}

// A tile of rows, side by side.
static void copy_rows(const grad_task *t, const grad_block *b, int64_t row, int64_t rows) {
    const pointwise_grad *s = t->shape;
    const int64_t element = t->plan->kernels->element, pitch = b->depth * b->segments;
    for (int64_t i = 0; i < b->segments; i++) {
        const int64_t at = pixel_at(s, &s->rows, b->pixel + i * s->rows.run) + row * s->rows.channel;
        const fc_rectangle work = {
            .src = t->rows + at * element,
            .dst = t->copied + i * b->depth * element,
            .rows = rows,
            .columns = b->depth,
            .src_row = s->rows.channel,
            .src_column = 1,
            .dst_row = pitch,
            .dst_column = 1,
        };
        t->plan->kernels->rectangle(&work);
    }
}

// Whether columns lie as rows do, over pixels.
static int in_step(const pointwise_grad *s) { return s->columns.step == 1 && s->columns.run == s->rows.run; }

// Has the kernel ask for what is multiplied next: in turn the next tile of rows, from pixel to pixel, and a share of the
// next block's columns.  Over pixels it is a share of the next block's rows, and of its columns behind them, which lie side
// by side where blocks are whole runs; else it is two lines of some channels with each segment.
static void look_ahead(const grad_task *t, const grad_block *b, fc_gemm_tile *work, int64_t row_tile, int64_t tile) {
    const pointwise_grad *s = t->shape;
    const int64_t element = t->plan->kernels->element, depth = b->depth * b->segments;
    const int64_t index = s->tiles > 1 ? tile : row_tile, turn = row_tile * s->tiles + tile;
    const int64_t turns = s->row_tiles * s->tiles;
    work->ahead = work->a;
    work->ahead_step = 0;
    if (s->over_channels && (s->packed || index % 2 == 0)) {
        const char *next = row_tile + 1 < s->row_tiles ? (const char *)work->a + work->m * element : b->next_rows;
        if (!next) return;
        work->ahead = next;
        work->ahead_step = work->a_row * element;
    } else if (s->over_channels && b->next_columns) {
        const int64_t bytes = depth * s->columns.step * element, share = fc_ceil_div(2 * bytes, turns);
        work->ahead = b->next_columns + turn / 2 * share;
        work->ahead_step = fc_ceil_div(share, depth);
    } else if (!s->over_channels && b->next_rows && s->pieces == 1) {
        const int64_t run = b->segments * s->rows.run * element, rows = s->rows.channels * run;
        const int64_t columns = in_step(s) ? s->columns.channels * run : 0, share = fc_ceil_div(rows + columns, turns);
        work->ahead =
            turn * share < rows ? b->next_rows + turn * share : b->next_columns + fc_min(turn * share - rows, columns);
        work->ahead_step = fc_ceil_div(share, depth);
    } else if (!s->over_channels && b->next_rows && work->segments > 1) {
        const int64_t some = work->depth, of_rows = fc_ceil_div(s->rows.channels, some);
        const int past = turn >= of_rows; // the rows
        const side *from = past ? &s->columns : &s->rows;
        const char *next = past ? b->next_columns : b->next_rows;
        const int64_t first = (past ? turn - of_rows : turn) * some;
        if (first >= from->channels || from->channels < some || (past && !in_step(s))) return;
        work->ahead = next + fc_min(first, from->channels - some) * from->channel * element;
        work->ahead_step = from->channel * element;
        work->ahead_segment = FC_TWO_LINES - some * work->ahead_step;
    }
}

// A tile of rows with the tiles of columns of a part.
static void multiply(const grad_task *t, const grad_block *b, int64_t row_tile, int64_t tile0, int64_t tile1, int first,
                     int last) {
    const pointwise_grad *s = t->shape;
    const int64_t element = t->plan->kernels->element, nr = s->gemm->nr, row = row_tile * s->row_tile;
    const int64_t depth = b->depth * b->segments, rows = fc_min(s->row_tile, s->rows.channels - row);
    const int64_t some = segment_of(s, b, element);
    const char *a = t->rows + (row * s->rows.channel + (s->over_channels ? b->rows : 0)) * element;
    if (s->copied) copy_rows(t, b, row, rows);
    // Where the rows of d_wei are those of tiles and nothing is to be added, the kernel writes them.
    static const char zeros[FC_MAX_NR * 8] = {0};
    const int straight = last && s->column == 1;
    int64_t row_offset[FC_MAX_MR];
    for (int64_t i = 0; i < s->row_tile; i++) row_offset[i] = i * s->row;
    fc_run run = {0};
    fc_gemm_tile work = {
        .m = rows,
        .depth = some,
        .a = s->copied ? t->copied : a,
        .b_offset = t->offsets,
        .a_row = s->over_channels ? s->rows.step
                 : s->copied      ? depth
                                  : s->rows.channel,
        .segments = depth / some,
        .a_segment = t->offsets,
        .row_offset = row_offset,
        .runs = &run,
        .run_count = 1,
        .column_stride = 1,
        .bias = zeros,
        .low = -INFINITY,
        .high = INFINITY,
        .last = straight,
        .first = first,
    };
    for (int64_t tile = tile0; tile < tile1; tile++) {
        const span columns = span_of(s, t->plan->kernels->vl, tile);
        char *sums = t->sums + (row_tile * s->tiles + tile) * tile_elements(s) * element;
        work.columns = run.length = columns.count;
        work.dst = t->d_wei + (row * s->row + columns.first) * element;
        work.b = s->packed ? t->packed + (tile - tile0) * depth * nr * element : t->columns + columns.first * element;
        work.sums = sums;
        look_ahead(t, b, &work, row_tile, tile);
        s->gemm->run(&work);
        if (last && !straight) store(t, row_tile, tile, sums, 1);
    }
}

// ------------------------------------------------------------------------------------------------------------ stages

static grad_task task_of(const fc_stage *stage, const fc_call *call, int64_t slice, int64_t group, int thread) {
    const pointwise_grad *s = grad_of(stage->plan);
    const grad_share *share = stage->context;
    const int64_t element = stage->plan->kernels->element;
    const char *src = fc_operand(call, stage->at.src), *d_dst = fc_operand(call, stage->at.wei);
    char *own = fc_own_scratch(call, thread), *sums = fc_operand(call, stage->at.shared);
    return (grad_task){
        .plan = stage->plan,
        .shape = s,
        .rows = (s->turned ? src : d_dst) + group * s->rows.group * element,
        .columns = (s->turned ? d_dst : src) + group * s->columns.group * element,
        .d_wei = (char *)fc_operand(call, stage->at.dst) + group * stage->plan->problem.wei.group * element,
        .sums = sums + (slice * slice_elements(s) + group * group_elements(s)) * element,
        .packed = own,
        .copied = own + share->packed,
        .offsets = (int64_t *)(own + share->packed + share->copied),
    };
}

// A slice of the pixels, a share of the rows and one of the parts.
static void sum_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const pointwise_grad *s = grad_of(stage->plan);
    const grad_share *share = stage->context;
    const int64_t in = fc_digit(&task, share->part_shares), out = fc_digit(&task, share->row_shares);
    const int64_t slice = fc_digit(&task, s->slices);
    const grad_task t = task_of(stage, call, slice, task, thread);
    const int64_t row0 = fc_share(s->row_tiles, out, share->row_shares);
    const int64_t row1 = fc_share(s->row_tiles, out + 1, share->row_shares);
    const int64_t part0 = fc_share(s->parts, in, share->part_shares),
                  part1 = fc_share(s->parts, in + 1, share->part_shares);
    const int64_t block0 = fc_share(s->blocks, slice, s->slices), block1 = fc_share(s->blocks, slice + 1, s->slices);
    for (int64_t block = block0; block < block1 && !fc_must_stop(); block++) {
        grad_block b = block_at(s, block);
        b.rows = pixel_at(s, &s->rows, b.pixel);
        if (block + 1 < block1) {
            const int64_t next = block_at(s, block + 1).pixel;
            b.next_rows = t.rows + pixel_at(s, &s->rows, next) * stage->plan->kernels->element;
            b.next_columns = t.columns + pixel_at(s, &s->columns, next) * stage->plan->kernels->element;
        }
        find(&t, &b);
        for (int64_t part = part0; part < part1; part++) {
            const int64_t tile0 = part * s->part, tile1 = fc_min(tile0 + s->part, s->tiles);
            if (s->packed) pack(&t, &b, tile0, tile1);
            for (int64_t row = row0; row < row1; row++)
                multiply(&t, &b, row, tile0, tile1, block == block0, s->slices == 1 && block + 1 == block1);
        }
    }
}

// The slices of a tile of rows; zeros where there are no pixels.
static void add_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const pointwise_grad *s = grad_of(stage->plan);
    const int64_t row_tile = fc_digit(&task, s->row_tiles), row = tile_elements(s) * stage->plan->kernels->element;
    const grad_task t = task_of(stage, call, 0, task, thread);
    for (int64_t tile = 0; tile < s->tiles; tile++) {
        char *sums = t.sums + (row_tile * s->tiles + tile) * row;
        if (s->blocks == 0) memset(sums, 0, (size_t)row);
        store(&t, row_tile, tile, sums, s->slices);
    }
}

// Shares of rows and of parts by which the slowest thread is done first: each task packs the columns it multiplies, and a
// packed vector takes the time of some three multiplied.
static grad_share share_of(const pointwise_grad *s, const fc_kernels *k, int threads) {
    const double slices = (double)(s->slices * s->groups), packed = s->packed ? 3.0 : 0.5;
    grad_share share = {.row_shares = 1, .part_shares = 1};
    double best = INFINITY;
    for (int64_t out = 1; out <= fc_min(s->row_tiles, 4 * threads); out++)
        for (int64_t in = 1; in <= fc_min(s->parts, threads); in++) {
            const double rows = (double)(fc_ceil_div(s->row_tiles, out) * s->row_tile);
            const double columns = (double)(fc_ceil_div(s->parts, in) * s->part * s->gemm->nr);
            const double time = ceil(slices * (double)(out * in) / threads) * (rows + packed) * columns;
            if (time >= 0.99 * best) continue;
            best = time;
            share.row_shares = out;
            share.part_shares = in;
        }
    const int64_t depth = s->segments * s->depth;
    share.packed = s->packed ? fc_align((size_t)(depth * s->part * s->gemm->nr * k->element)) : 0;
    share.copied = s->copied ? fc_align((size_t)(depth * s->row_tile * k->element)) : 0;
    share.offsets = fc_align((size_t)fc_max(1, depth) * sizeof(int64_t));
    return share;
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const pointwise_grad *s = grad_of(plan);
    const grad_share share = share_of(s, plan->kernels, threads);
    fc_list_scratch(list, (size_t)(s->slices * slice_elements(s) * plan->kernels->element),
                    share.packed + share.copied + share.offsets);
    const void *context = fc_list_keep(list, &share, sizeof share);
    if (s->blocks > 0)
        fc_list_stage(list, plan, sum_task, s->groups * s->slices * share.row_shares * share.part_shares, context);
    if (s->slices > 1 || s->blocks == 0) fc_list_stage(list, plan, add_task, s->groups * s->row_tiles, context);
}

static const char *form(const fc_plan *plan) { return grad_of(plan)->over_channels ? "over channels" : "over pixels"; }

const fc_kind fc_kind_weight_pointwise = {
    .name = "pointwise",
    .traits = FC_SERVES_WEIGHT,
    .rows = 1,
    .refuse = refuse,
    .cost = cost,
    .packing = packing,
    .layout = layout,
    .stages = stages,
    .form = form,
};
