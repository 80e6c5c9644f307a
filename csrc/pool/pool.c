// SPDX-License-Identifier: BSD-3-Clause
//
// pool.c - pooling and its gradient: which kernel suits the strides, and how the work is shared.  Planes in which too few
// lanes would be of use as output columns are interleaved in scratch memory, and pooled over channels.
#include "conv/interleaved.h"
#include "core/family.h"

// Bytes of one task: some ten microseconds of memory traffic, much more than it costs to hand a task out.
enum { FC_POOL_TASK = 128 * 1024 };
// Channels side by side that a task of runs has at least, so that memory is read in its order.
enum { FC_POOL_WIDE = 1024 };
// Elements of a window from which on its channels are folded run by run: 16 took up to a fifth longer.
enum { FC_POOL_RUN = 25 };
// Vectors of planes that are interleaved at a time, as many as pool_channels takes in a strip.
enum { FC_POOL_STRIP = 4 };
// Steps that a kernel is called for at most, where windows are large: a hundredth of a second, or a few when they come from
// memory, so that a call can be ended and threads share what a row costs.
static const double fc_pool_steps = 4e7;
// Nominal speed of one thread, for deciding how many are worth waking.
static const double fc_pool_bytes_per_second = 1e10, fc_pool_taps_per_second = 4e9;
// And of gradients: an output's tap, and an output that goes to its index.
static const double fc_pool_spread_seconds = 0.4e-9, fc_pool_scatter_seconds = 0.6e-9;

// ------------------------------------------------------------------------------------------------- what is suitable

static int over_channels(const fc_pool *p) { return p->channels > 1 && p->src.channel == 1 && p->dst.channel == 1; }

static int rows_form(const fc_pool *p) {
    const fc_axis *w = &p->axis[2];
    return (w->in == 1 || p->src.axis[2] == 1) && (w->out == 1 || p->dst.axis[2] == 1);
}

// Whether a float can hold how far the last element under a band of rows lies behind the first one.
static int offsets_exact(const fc_pool *p) {
    double reach = 0;
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &p->axis[i];
        double span = p->adaptive ? (double)(a->in / a->out + 2) : (double)(a->kernel - 1) * (double)a->dilation + 1;
        if (i == 1) span += (double)(fc_pool_band_rows(p, FC_POOL_BAND) - 1) * (p->adaptive ? span : (double)a->stride);
        reach = reach * (double)a->in + (span < (double)a->in ? span : (double)a->in);
    }
    return reach < (double)(1 << 24);
}

// Whether windows are large, and read many channels that no other window reads.
static int runs_form(const fc_pool *p, const fc_kernels *k) {
    int64_t taps = 1;
    for (int i = 0; i < FC_AXES; i++) taps *= p->adaptive ? p->axis[i].in / p->axis[i].out : p->axis[i].kernel;
    return taps >= FC_POOL_RUN && p->channels > 4 * k->vl && !fc_pool_shares_rows(p);
}

// Whether rows can be folded across a vector of outputs at a time, and are not too many.
static int columns_form(const fc_pool *p) {
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    return !p->adaptive && w->kernel <= FC_POOL_TAPS && (w->stride == 1 || (w->stride == 2 && w->dilation == 1)) &&
           (h->kernel <= h->stride || fc_pool_shares_rows(p));
}

// Whether a window is a whole plane, in one piece; simplified() has made one row of it.
static int plane_form(const fc_pool *p) {
    const fc_axis *w = &p->axis[2];
    return !p->adaptive && p->axis[0].in == 1 && p->axis[1].in == 1 && w->out == 1 && w->kernel == w->in &&
           w->dilation == 1 && w->pad == 0;
}

// Whether windows are two columns side by side, in rows that are long: 24 outputs, from where on it was measured to pay.
static int pairs_form(const fc_pool *p) {
    const fc_axis *w = &p->axis[2];
    return !p->adaptive && w->kernel == 2 && w->stride == 2 && w->dilation == 1 && w->pad == 0 && w->out >= 24 &&
           2 * w->out <= w->in && p->axis[1].kernel <= p->axis[1].stride;
}

// Vectors of which a share of `useful` lanes is of use.
static double share_of(int64_t useful, const fc_kernels *k) {
    return (double)useful / (double)fc_round_up(useful, k->vl);
}

// Whether planes are better interleaved: lanes that are channels are in better use then than output columns.  A vector of
// planes by itself costs as much as two of a strip; windows of three rows and columns, and of two without padding, have
// bodies of their own over columns, strides of three or more have none; and indices go to their planes one by one.  Of
// some 1000 random shapes, by AVX-512, by AVX2 and in float64, the better way takes a fiftieth less on average.
static int interleaved_form(const fc_pool *p, const fc_kernels *k, fc_pool_fn *kernel) {
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    if (k->vl == 1 || (kernel != k->pool_columns && kernel != k->pool_lines)) return 0;
    if (!p->adaptive && h->kernel > h->stride && !fc_pool_shares_rows(p))
        return 0; // row by row they take too many taps
    if (p->channels == 1 || (p->indexed && !offsets_exact(p))) return 0;
    const int64_t strip = FC_POOL_STRIP * k->vl, whole = p->channels / strip * strip;
    const double lanes = share_of(p->channels, k) * (0.5 + 0.5 * (double)whole / (double)p->channels);
    if (kernel == k->pool_lines) return p->indexed || (double)w->out <= 3 * (double)k->vl * lanes;
    const int square = k->dtype == FC_F32 && h->kernel == w->kernel;
    const int known = square && (w->kernel == 3 || (w->kernel == 2 && w->pad == 0 && h->stride == 2));
    return share_of(w->out, k) <= (known || (p->indexed && w->stride == 1) ? 0.75 : 1.5) * lanes;
}

// Whether inputs can ask their windows: those are few enough to keep, and channels fill vectors.  Maxima whose windows
// are not known are adaptive; where windows overlap, to compare their indices costs what it saves.
static int gather_form(const fc_pool *p, const fc_kernels *k) {
    const int maximum = p->kind == FC_POOL_MAX;
    double taps = 1;
    for (int i = 0; i < FC_AXES && !p->adaptive; i++) {
        if (p->axis[i].dilation > 1 || !fc_pool_hits(p, i)) return 0;
        taps *= (double)p->axis[i].kernel;
    }
    if (maximum && (p->adaptive || p->index.channel != 1 || taps > FC_POOL_SMALL || !offsets_exact(p))) return 0;
    for (int i = 0; i < FC_AXES && maximum; i++)
        if (fc_pool_overlap(p, i) > 1) return 0;
    return over_channels(p) && (!maximum || 2 * p->channels >= k->vl) && fc_pool_overlap(p, 0) <= FC_POOL_OVER &&
           fc_pool_overlap(p, 1) <= FC_POOL_OVER / fc_pool_overlap(p, 0) && fc_pool_overlap(p, 2) <= FC_POOL_OVER;
}

static fc_pool_fn *forward_kernel(const fc_pool *p, const fc_kernels *k, int indexed) {
    const int exact = !indexed || offsets_exact(p);
    for (int i = 0; i < FC_AXES && !p->adaptive; i++)
        if (!fc_pool_hits(p, i)) return k->pool_any;
    if (over_channels(p)) return !exact ? k->pool_any : runs_form(p, k) ? k->pool_runs : k->pool_channels;
    if (!rows_form(p)) return k->pool_any;
    if (plane_form(p)) return k->pool_planes;
    if (pairs_form(p) && exact) return k->pool_pairs;
    return columns_form(p) && exact ? k->pool_columns : k->pool_lines;
}

// An adaptive pooling whose windows are all alike is a strided one, and a plane in one piece under one window a row: both
// are faster.
static fc_pool simplified(const fc_pool *p) {
    fc_pool simple = *p;
    int64_t plane = 1;
    int whole = 1;
    for (int i = 0; i < FC_AXES && p->adaptive; i++) {
        fc_axis *a = &simple.axis[i];
        if (a->in % a->out != 0) return *p;
        a->kernel = a->stride = a->in / a->out;
        a->dilation = 1;
        a->pad = simple.pad_after[i] = 0;
    }
    simple.adaptive = 0;
    if (p->adaptive) simple.count_include_pad = 0;
    for (int i = FC_AXES - 1; i >= 0; i--) {
        const fc_axis *a = &simple.axis[i];
        whole &= a->out == 1 && a->kernel == a->in && a->dilation == 1 && a->pad == 0 && simple.pad_after[i] == 0 &&
                 (a->in == 1 || p->src.axis[i] == plane);
        plane *= a->in;
    }
    if (!whole) return simple;
    for (int i = 0; i < FC_AXES; i++) simple.axis[i].in = simple.axis[i].kernel = i == FC_AXES - 1 ? plane : 1;
    simple.src.axis[FC_AXES - 1] = 1;
    return simple;
}

static double plane_bytes(const fc_pool *p, const fc_kernels *k) {
    const fc_axis *a = p->axis;
    return ((double)a[0].in * (double)a[1].in * (double)a[2].in +
            (double)a[0].out * (double)a[1].out * (double)a[2].out) *
           (double)k->element;
}

// ---------------------------------------------------------------------------------------------------------- the kinds

// Both ways of pooling touch fewer elements than windows have, by far when they are large.
static double cost(const fc_request *r) {
    const fc_pool *p = r->op->problem;
    const fc_axis *a = p->axis;
    double taps = (double)a[0].out * (double)a[1].out * (double)a[2].out;
    for (int i = 0; i < FC_AXES; i++) taps *= p->adaptive ? (double)(a[i].in / a[i].out + 1) : (double)a[i].kernel;
    const double planes = (double)p->batch * (double)p->channels;
    return planes * (plane_bytes(p, r->kernels) / fc_pool_bytes_per_second +
                     taps / (double)r->kernels->vl / fc_pool_taps_per_second);
}

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    plan->pool = simplified(r->op->problem);
    return FC_OK;
}

// Of gradients: indices are eight bytes, one output after the other is added to an input, and lines are spread tap by tap.
static double grad_cost(const fc_request *r) {
    const fc_pool *p = r->op->problem;
    const fc_axis *a = p->axis;
    const double planes = (double)p->batch * (double)p->channels;
    const double outputs = (double)a[0].out * (double)a[1].out * (double)a[2].out;
    const double across = p->adaptive ? (double)(a[2].in / a[2].out + 1) : (double)a[2].kernel;
    if (gather_form(p, r->kernels) || p->kind == FC_POOL_AVG)
        return cost(r) + (over_channels(p) ? 0 : planes * outputs * across * fc_pool_spread_seconds);
    return cost(r) + planes * outputs * (8 / fc_pool_bytes_per_second + fc_pool_scatter_seconds);
}

// About `size` elements of `whole` in each part, and as many parts for every thread.
static int64_t even_part(int64_t size, int64_t whole, int threads) {
    int64_t parts = fc_ceil_div(whole, size);
    parts = fc_clamp(1, fc_round_up(parts, threads), whole);
    return fc_ceil_div(whole, parts);
}

// Outputs of each of these channels that take no more than fc_pool_steps: whole rows of them, or columns of one row.
// Windows that are folded by themselves take all of their inputs; those that share a line, a row or a column.
typedef struct pool_piece {
    int64_t rows, columns;
} pool_piece;

static pool_piece piece_of(const fc_pool *p, const fc_kernels *k, int64_t channels) {
    double taps[FC_AXES];
    for (int i = 0; i < FC_AXES; i++) {
        const fc_axis *a = &p->axis[i];
        const int64_t most = p->adaptive ? a->in / a->out + 2 : a->kernel;
        taps[i] = (double)fc_min(most, p->adaptive ? a->in : a->in / a->dilation + 1);
    }
    const double span = p->adaptive ? taps[2] : (double)(p->axis[2].kernel - 1) * (double)p->axis[2].dilation + 1;
    const int shared = !over_channels(p) && rows_form(p) && span <= FC_POOL_LINE;
    const double down = taps[0] * taps[1], steps = shared ? down + taps[2] : down * taps[2];
    const double lanes = (double)(over_channels(p) ? fc_ceil_div(channels, k->vl) : channels);
    const int64_t outputs = (int64_t)(fc_pool_steps / (lanes * steps));
    return (pool_piece){fc_clamp(1, outputs / p->axis[2].out, p->axis[0].out * p->axis[1].out),
                        fc_clamp(1, outputs, p->axis[2].out)};
}

// How the work is cut into tasks: rows, columns and channels of one, and tasks per image; and planes that are interleaved
// at a time, if any, with the bytes of their inputs.
typedef struct pool_split {
    fc_pool_fn *kernel;
    int64_t rows, row_parts, columns, column_parts, channels, channel_parts, lanes;
    size_t bytes;
} pool_split;

static void task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    (void)thread;
    const fc_pool *p = &stage->plan->pool;
    const pool_split *s = stage->context;
    const int64_t channel = fc_digit(&index, s->channel_parts) * s->channels;
    const int64_t column = fc_digit(&index, s->column_parts) * s->columns;
    const int64_t row = fc_digit(&index, s->row_parts) * s->rows;
    const fc_pool_work work = {
        .pool = p,
        .src = fc_operand(call, stage->at.src),
        .dst = fc_operand(call, stage->at.dst),
        .indices = fc_operand(call, stage->at.index),
        .image = index,
        .channel = channel,
        .channels = fc_min(s->channels, p->channels - channel),
        .row = row,
        .rows = fc_min(s->rows, p->axis[0].out * p->axis[1].out - row),
        .column = column,
        .columns = fc_min(s->columns, p->axis[2].out - column),
    };
    s->kernel(&work);
}

// ------------------------------------------------------------------------------------------------- interleaved planes

// The planes of a tensor, or so many rows of them.
static fc_planes planes_of(const fc_pool *p, int outputs, int64_t rows) {
    fc_planes planes = {.view = outputs ? &p->dst : &p->src};
    planes.step = planes.view->channel;
    for (int i = 0; i < FC_AXES; i++) planes.size[i] = outputs ? p->axis[i].out : p->axis[i].in;
    planes.size[1] = rows;
    return planes;
}

// The input rows under some rows of outputs; all of them where planes are several deep.
static fc_window rows_under(const fc_pool *p, int64_t row, int64_t rows) {
    int64_t start = p->axis[1].in, end = 0;
    if (p->axis[0].in > 1) return (fc_window){0, p->axis[1].in, 1};
    for (int64_t i = row; i < row + rows; i++) {
        const fc_window w = fc_pool_window(p, 1, i);
        start = fc_min(start, w.start);
        end = fc_max(end, w.start + (w.taps - 1) * w.step + 1);
    }
    return (fc_window){start, end - start, 1};
}

// How many they are at most.
static int64_t most_under(const fc_pool *p, int64_t rows) {
    const fc_axis *h = &p->axis[1];
    const int64_t span =
        p->adaptive ? rows * h->in / h->out + 2 : (rows - 1) * h->stride + (h->kernel - 1) * h->dilation + 1;
    return p->axis[0].in > 1 ? h->in : fc_min(h->in, span);
}

// Bytes of scratch of so many rows of outputs, or of what is under them.
static size_t interleaved_bytes(const fc_pool *p, const fc_kernels *k, int64_t lanes, int outputs, int64_t rows) {
    const fc_planes planes = planes_of(p, outputs, rows);
    return fc_align((size_t)(fc_planes_positions(&planes) * lanes * k->element));
}

// A strip of planes at a time is interleaved, pooled over channels, and put back, or as many of its rows as stay in the
// second-level cache.
static void interleaved_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_plan *plan = stage->plan;
    const fc_pool *p = &plan->pool;
    const fc_kernels *k = plan->kernels;
    const pool_split *s = stage->context;
    const int64_t first = fc_digit(&index, s->channel_parts) * s->channels, element = k->element;
    const int64_t row = fc_digit(&index, s->row_parts) * s->rows, end = fc_min(first + s->channels, p->channels);
    const int64_t rows = fc_min(s->rows, p->axis[1].out - row);
    const fc_window under = rows_under(p, row, rows);
    const fc_planes in = planes_of(p, 0, under.taps), out = planes_of(p, 1, rows);
    char *src = fc_own_scratch(call, thread), *dst = src + s->bytes;
    const int64_t from = index * p->src.outer + under.start * p->src.axis[1],
                  to = index * p->dst.outer + row * p->dst.axis[1];
    char *const inputs = fc_operand(call, stage->at.src), *const outputs = fc_operand(call, stage->at.dst);
    int64_t *indices = fc_operand(call, stage->at.index);
    fc_pool block = *p;
    for (int64_t c = first; c < end; c += s->lanes) {
        const int64_t lanes = fc_min(s->lanes, end - c);
        block.src = fc_interleaved_view(&in, lanes, 1);
        block.dst = fc_interleaved_view(&out, lanes, 1);
        const fc_pool_work work = {
            .pool = &block,
            .src = src - under.start * block.src.axis[1] * element,
            .dst = dst - row * block.dst.axis[1] * element,
            .indices = indices ? indices + index * p->index.outer + c * p->index.channel : NULL,
            .channels = lanes,
            .row = row,
            .rows = out.size[0] * rows,
            .columns = out.size[2],
        };
        fc_interleave(&in, k, lanes, inputs + (from + c * p->src.channel) * element, src, 1);
        s->kernel(&work);
        fc_interleave(&out, k, lanes, outputs + (to + c * p->dst.channel) * element, dst, 0);
    }
}

// Maxima are copies of their inputs, down to the smallest; sums need not be.
static void mark_exact(const fc_pool *p, fc_list *list) { list->schedule->exact = p->kind == FC_POOL_MAX; }

// Whether there is room for it.
static int interleaved_stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_pool *p = &plan->pool;
    const fc_kernels *k = plan->kernels;
    pool_split s = {.kernel = k->pool_channels, .rows = p->axis[1].out};
    s.lanes = fc_min(FC_POOL_STRIP * k->vl, fc_round_up(p->channels, k->vl));
    const int64_t blocks = fc_ceil_div(p->channels, s.lanes);
    const double block = plane_bytes(p, k) * (double)s.lanes;
    const int64_t some = fc_clamp(1, (int64_t)(FC_POOL_TASK / block), blocks);
    s.channels = even_part(some, blocks, some > 1 ? threads : 1) * s.lanes;
    s.channel_parts = fc_ceil_div(p->channels, s.channels);
    const size_t room = plan->machine.l2 / 4;
    const int deep = p->axis[0].in > 1;
    if (!deep && block > FC_POOL_TASK && p->batch * s.channel_parts < threads) s.rows = fc_ceil_div(s.rows, threads);
    for (;; s.rows = fc_ceil_div(s.rows, 2)) {
        s.bytes = interleaved_bytes(p, k, s.lanes, 0, most_under(p, s.rows));
        const size_t bytes = s.bytes + interleaved_bytes(p, k, s.lanes, 1, s.rows);
        if (bytes > room && (deep || s.rows == 1)) return 0;
        if (bytes > room) continue;
        fc_list_scratch(list, 0, bytes);
        break;
    }
    s.row_parts = fc_ceil_div(p->axis[1].out, s.rows);
    mark_exact(p, list);
    fc_list_stage(list, plan, interleaved_task, p->batch * s.channel_parts * s.row_parts,
                  fc_list_keep(list, &s, sizeof s));
    return 1;
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_pool *p = &plan->pool;
    const fc_kernels *k = plan->kernels;
    if (p->batch == 0 || p->channels == 0) return;
    const int64_t rows = p->axis[0].out * p->axis[1].out;
    pool_split s = {.kernel = forward_kernel(p, k, p->indexed), .columns = p->axis[2].out};
    const double plane = plane_bytes(p, k), row = plane / (double)rows;
    if (interleaved_form(p, k, s.kernel) && interleaved_stages(plan, threads, list)) return;
    if (over_channels(p)) { // all channels of some rows; a part of them when one row is too much
        const double wide = row * (double)p->channels;
        const int64_t least = fc_pool_shares_rows(p) ? FC_POOL_ALONE : 1, some = (int64_t)(FC_POOL_TASK / row);
        const int64_t block = 4 * k->vl;
        s.rows = even_part(fc_clamp(fc_clamp(1, least, rows), (int64_t)(FC_POOL_TASK / wide), rows), rows, threads);
        const int64_t fewest = s.kernel == k->pool_runs ? FC_POOL_WIDE : block;
        s.channels = wide > FC_POOL_TASK ? fc_max(fewest, some / block * block) : p->channels;
        s.channels = fc_min(s.channels, p->channels);
        const int64_t tasks = p->batch * fc_ceil_div(rows, s.rows);
        if (tasks < 4 * threads && tasks % threads) // few pixels of many inputs
            s.channels = fc_min(s.channels, fc_round_up(fc_ceil_div(p->channels, threads), k->vl));
    } else { // some planes, or some rows of one
        const int64_t some = fc_clamp(1, (int64_t)(FC_POOL_TASK / plane), p->channels);
        s.channels = even_part(some, p->channels, some > 1 ? threads : 1);
        s.rows = some > 1 ? rows : even_part(fc_clamp(1, (int64_t)(FC_POOL_TASK / row), rows), rows, 1);
    }
    if (over_channels(p) || s.kernel == k->pool_any || s.kernel == k->pool_lines) {
        const pool_piece piece = piece_of(p, k, s.channels);
        s.rows = fc_min(s.rows, piece.rows);
        s.columns = piece.columns;
    }
    s.row_parts = fc_ceil_div(rows, s.rows);
    s.column_parts = fc_ceil_div(p->axis[2].out, s.columns);
    s.channel_parts = fc_ceil_div(p->channels, s.channels);
    mark_exact(p, list);
    fc_list_stage(list, plan, task, p->batch * s.row_parts * s.column_parts * s.channel_parts,
                  fc_list_keep(list, &s, sizeof s));
}

static const char *refuse(const fc_request *r) {
    const fc_pool *p = r->op->problem;
    return p->direction == FC_FORWARD ? NULL : "a gradient";
}

static const fc_kind forward = {.name = "pool",
                                .traits = FC_SERVES_FORWARD,
                                .rows = 1,
                                .refuse = refuse,
                                .cost = cost,
                                .layout = layout,
                                .stages = stages};

// -------------------------------------------------------------------------------------------------------- the gradient

// How the work of a gradient is cut into tasks: channels, and rows of inputs where those are written one by one.
typedef struct grad_split {
    int gather;
    int64_t rows, row_parts, channels, channel_parts;
} grad_split;

static void grad_task(const fc_stage *stage, fc_call *call, int64_t index, int thread) {
    const fc_pool *p = &stage->plan->pool;
    const fc_kernels *k = stage->plan->kernels;
    const grad_split *s = stage->context;
    const int64_t channel = fc_digit(&index, s->channel_parts) * s->channels;
    const int64_t row = fc_digit(&index, s->row_parts) * s->rows;
    fc_pool_grad grad = {
        .pool = p,
        .d_dst = fc_operand(call, stage->at.src),
        .indices = fc_operand(call, stage->at.index),
        .d_src = fc_operand(call, stage->at.dst),
        .scratch = fc_own_scratch(call, thread),
        .image = index,
        .channel = channel,
        .channels = fc_min(s->channels, p->channels - channel),
        .row = row,
        .rows = fc_min(s->rows, p->axis[0].in * p->axis[1].in - row),
    };
    if (s->gather && k->pool_gather(&grad)) return;
    if (p->kind == FC_POOL_MAX) {
        if (!k->pool_max_grad(&grad)) atomic_store(&call->status, FC_INVALID);
        return;
    }
    if (!over_channels(p) && plane_form(p) && p->src.axis[2] == 1) {
        k->pool_avg_grad_planes(&grad);
        return;
    }
    fc_pool_avg_grad_fn *const kernel = over_channels(p) ? k->pool_avg_grad_channels : k->pool_avg_grad_rows;
    const int64_t rows = p->axis[0].out * p->axis[1].out, columns = p->axis[2].out;
    const pool_piece piece = piece_of(p, k, grad.channels);
    for (grad.row = 0; grad.row < rows; grad.row += piece.rows)
        for (grad.column = 0; grad.column < columns && !fc_must_stop(); grad.column += piece.columns) {
            grad.rows = fc_min(piece.rows, rows - grad.row);
            grad.columns = fc_min(piece.columns, columns - grad.column);
            kernel(&grad);
        }
}

// Whole planes, so that no two tasks add to the same element; or rows of averages, whose inputs are written once.  Where
// channels lie side by side, all of them if that makes tasks enough, else whole cache lines: rows are then read and
// written in one piece.
static void grad_stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_pool *p = &plan->pool;
    const fc_kernels *k = plan->kernels;
    if (p->batch == 0 || p->channels == 0) return;
    const int64_t rows = p->axis[0].in * p->axis[1].in;
    const double plane = plane_bytes(p, k);
    grad_split s = {.gather = gather_form(p, k), .rows = rows};
    s.channels = fc_clamp(1, (int64_t)(FC_POOL_TASK / plane), p->channels);
    if (p->src.channel == 1) {
        const int64_t block = 64 / k->element, parts = threads > 1 ? fc_ceil_div(4 * threads, p->batch) : 1;
        const int by_rows = s.gather && p->kind == FC_POOL_AVG;
        s.channels = fc_max(s.channels, fc_ceil_div(p->channels, by_rows ? 1 : parts));
        if (s.gather) s.channels = fc_min(s.channels, FC_POOL_TASK / k->element / fc_pool_gather_scratch(p, 1));
        s.channels = fc_min(p->channels, fc_round_up(fc_max(1, s.channels), block));
        const double wide = plane / (double)rows * (double)s.channels;
        if (by_rows) s.rows = even_part(fc_clamp(1, (int64_t)(FC_POOL_TASK / wide), rows), rows, 1);
    }
    s.row_parts = fc_ceil_div(rows, s.rows);
    s.channel_parts = fc_ceil_div(p->channels, s.channels);
    if (s.gather) fc_list_scratch(list, 0, (size_t)fc_pool_gather_scratch(p, s.channels) * k->element);
    mark_exact(p, list);
    fc_list_stage(list, plan, grad_task, p->batch * s.row_parts * s.channel_parts, fc_list_keep(list, &s, sizeof s));
}

static const fc_kind gradient = {.name = "pool_grad",
                                 .traits = FC_SERVES_INPUT,
                                 .rows = 1,
                                 .cost = grad_cost,
                                 .layout = layout,
                                 .stages = grad_stages};

const fc_kind *const fc_kinds_pool[] = {&forward, &gradient, NULL};
