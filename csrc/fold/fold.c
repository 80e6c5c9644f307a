// SPDX-License-Identifier: BSD-3-Clause
#include "fold/fold.h"

// --------------------------------------------------------------------------------------------------------------- axes

fc_status fc_fold_check(const fc_fold_axis *axes, int rank, int dtype, char message[FC_MESSAGE]) {
    int64_t elements = 1;
    FC_CHECK(dtype == FC_F32 || dtype == FC_F64, "dtype %d is unknown", dtype);
    FC_CHECK(rank >= 0 && rank <= FC_RANK, "%d axes", rank);
    for (int i = 0; i < rank; i++) {
        const fc_fold_axis *a = &axes[i];
        const int64_t strides[] = {a->src, a->dst, a->wei};
        FC_CHECK(a->count >= 0, "axis %d has %lld elements", i, (long long)a->count);
        FC_CHECK(fc_product_fits(&elements, fc_max(1, a->count)), "the product of the sizes exceeds 2^48");
        for (int t = 0; t < 3; t++)
            FC_CHECK(strides[t] >= -fc_largest && strides[t] <= fc_largest, "a stride exceeds 2^48 elements");
    }
    return FC_OK;
}

static int64_t magnitude(int64_t a) { return a < 0 ? -a : a; }

static int continues(const fc_fold_axis *outer, const fc_fold_axis *inner) {
    return outer->folded == inner->folded && outer->src == inner->src * inner->count &&
           outer->dst == inner->dst * inner->count && outer->wei == inner->wei * inner->count;
}

int fc_fold_joined(fc_fold_axis *out, const fc_fold_axis *axes, int rank) {
    fc_fold_axis sorted[FC_RANK];
    int n = 0;
    for (int i = 0; i < rank; i++) {
        if (axes[i].count == 1) continue;
        int at = n++;
        for (; at > 0 && magnitude(sorted[at - 1].src) < magnitude(axes[i].src); at--) sorted[at] = sorted[at - 1];
        sorted[at] = axes[i];
    }
    int left = 0;
    for (int i = 0; i < n; i++) {
        if (left > 0 && continues(&out[left - 1], &sorted[i])) {
            const int64_t count = out[left - 1].count * sorted[i].count;
            out[left - 1] = sorted[i];
            out[left - 1].count = count;
        } else out[left++] = sorted[i];
    }
    return left;
}

// An even share of `whole` in parts of at most `most`, in multiples of `step`.
static int64_t share(int64_t whole, int64_t most, int64_t step) {
    return fc_min(whole, fc_round_up(fc_even(whole, fc_max(1, most)), step));
}

// Takes the last axis that is folded or not, if there is one.
static fc_fold_axis take(fc_fold_axis *axes, int *rank, int folded) {
    for (int i = *rank - 1; i >= 0; i--)
        if (!axes[i].folded == !folded) {
            const fc_fold_axis found = axes[i];
            for (--*rank; i < *rank; i++) axes[i] = axes[i + 1];
            return found;
        }
    return (fc_fold_axis){.count = 1, .folded = folded};
}

fc_folding fc_folding_of(const fc_fold_axis *axes, int rank, int64_t vl, int passes) {
    fc_folding f = {.blocks = 1, .chunks = 1, .count = 1, .column_parts = 1};
    fc_fold_axis joined[FC_RANK];
    rank = fc_fold_joined(joined, axes, rank);
    for (int i = 0; i < rank; i++) f.count *= joined[i].folded ? joined[i].count : 1;
    f.over_lanes = rank > 0 && !joined[rank - 1].folded;
    f.lane = take(joined, &rank, !f.over_lanes);
    f.row = take(joined, &rank, 1);
    f.side = f.over_lanes ? f.lane : take(joined, &rank, 0);
    for (int i = 0; i < rank; i++) {
        if (joined[i].folded) f.folded[f.folded_rank++] = joined[i];
        else f.kept[f.kept_rank++] = joined[i];
        *(joined[i].folded ? &f.chunks : &f.blocks) *= joined[i].count;
    }
    f.columns = f.lane.count;
    if (f.over_lanes) {
        // What is read several times stays in the first-level cache, if it can.
        const int64_t most = passes == 1 ? 1024 : fc_clamp(4 * vl, 8192 / fc_max(1, f.count), 1024);
        f.width = share(f.side.count, most, 4 * vl);
        f.rows = share(f.row.count, fc_clamp(16, FC_FOLD_CHUNK / fc_max(1, f.width), 512), 1);
    } else {
        f.columns = share(f.lane.count, FC_FOLD_CHUNK, 4 * vl);
        f.column_parts = f.columns ? fc_ceil_div(f.lane.count, f.columns) : 1;
        f.rows = share(f.row.count, FC_FOLD_CHUNK / fc_max(1, f.columns), 1);
        f.width = share(f.side.count, fc_clamp(1, 4096 / fc_max(1, f.count), 64), vl);
    }
    f.widths = f.width ? fc_ceil_div(f.side.count, f.width) : 0;
    f.row_parts = f.rows ? fc_ceil_div(f.row.count, f.rows) : 1;
    f.blocks *= f.widths;
    f.chunks *= f.row_parts * f.column_parts;
    return f;
}

// Adds where entry `index` of these axes lies, in row-major order.
static void walk(const fc_fold_axis *axes, int rank, int64_t index, fc_piece *p) {
    for (int i = rank - 1; i >= 0 && index; i--) {
        const int64_t at = index % axes[i].count;
        index /= axes[i].count;
        p->src += at * axes[i].src;
        p->dst += at * axes[i].dst;
        p->wei += at * axes[i].wei;
    }
}

fc_piece fc_fold_piece(const fc_folding *f, int64_t block, int64_t chunk) {
    const int64_t side = block % f->widths * f->width, results = fc_min(f->width, f->side.count - side);
    fc_piece p = {.groups = 1, .rows = f->row.count, .columns = f->columns};
    walk(f->kept, f->kept_rank, block / f->widths, &p);
    if (f->over_lanes) p.columns = results;
    else p.groups = results;
    if (f->chunks > 1) {
        const int64_t column = chunk % f->column_parts * f->columns, above = chunk / f->column_parts;
        const int64_t row = above % f->row_parts * f->rows;
        if (!f->over_lanes) p.columns = fc_min(f->columns, f->lane.count - column);
        p.rows = fc_min(f->rows, f->row.count - row);
        walk(f->folded, f->folded_rank, above / f->row_parts, &p);
        p.src += row * f->row.src + column * f->lane.src;
        p.dst += row * f->row.dst + column * f->lane.dst;
        p.wei += row * f->row.wei + column * f->lane.wei;
    }
    p.src += side * f->side.src;
    p.dst += side * f->side.dst;
    p.wei += side * f->side.wei;
    return p;
}

// -------------------------------------------------------------------------------------------------------------- values

// Arrays of T, by dtype.
static double value_at(const fc_kernels *k, const void *p, int64_t i) {
    return k->dtype == FC_F32 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}

static void set_value(const fc_kernels *k, void *p, int64_t i, double value) {
    if (k->dtype == FC_F32) ((float *)p)[i] = (float)value;
    else ((double *)p)[i] = value;
}

static double neutral(fc_fold_kind kind) {
    return kind == FC_FOLD_MAX ? -INFINITY : kind == FC_FOLD_MIN ? INFINITY : kind == FC_FOLD_PRODUCT ? 1 : 0;
}

static double joined(fc_fold_kind kind, double a, double b) {
    if (kind == FC_FOLD_MAX) return b > a || isnan(b) ? b : a;
    if (kind == FC_FOLD_MIN) return b < a || isnan(b) ? b : a;
    return kind == FC_FOLD_PRODUCT ? a * b : a + b;
}

// --------------------------------------------------------------------------------------------------------------- work

// One call at work, on the blocks from `block` on.
typedef struct folding_call {
    const fc_plan *plan;
    const fc_fold_plan *folds;
    const char *src, *other[2];
    char *dst;
} folding_call;

static folding_call call_of(const fc_stage *stage, fc_call *call) {
    return (folding_call){stage->plan,
                          stage->plan->state,
                          fc_operand(call, stage->at.src),
                          {fc_operand(call, stage->at.other[0]), fc_operand(call, stage->at.other[1])},
                          fc_operand(call, stage->at.dst)};
}

static void fold_piece(const folding_call *c, int step, const fc_piece *p, const void *centre, void *total) {
    const fc_folding *f = &c->folds->folding;
    const fc_kernels *k = c->plan->kernels;
    const fc_fold work = {
        .kind = c->folds->step[step].kind,
        .groups = p->groups,
        .rows = p->rows,
        .columns = p->columns,
        .group = f->side.src,
        .row = f->row.src,
        .column = f->lane.src,
        .src = c->src + p->src * k->element,
        .centre = centre,
        .mask = c->folds->step[step].kind == FC_FOLD_THROUGH ? c->other[0] + p->wei * k->element : NULL,
        .mask_group = f->side.wei,
        .mask_row = f->row.wei,
        .mask_column = f->lane.wei,
        .low = c->folds->low,
        .high = c->folds->high,
        .dst = c->folds->step[step].keeps ? c->dst + p->dst * k->element : NULL,
        .dst_group = f->side.dst,
        .dst_row = f->row.dst,
        .dst_column = f->lane.dst,
        .total = total,
    };
    (f->over_lanes ? k->fold_columns : k->fold_all)(&work);
}

static void spread_piece(const folding_call *c, const fc_piece *p, const void *centre, const void *factor) {
    const fc_fold_plan *folds = c->folds;
    const fc_folding *f = &folds->folding;
    const fc_kernels *k = c->plan->kernels;
    const int kept = folds->step[folds->steps - 1].keeps;
    const fc_spread_work work = {
        .subtract = folds->subtract,
        .groups = p->groups,
        .rows = p->rows,
        .columns = p->columns,
        .src_group = kept ? f->side.dst : f->side.src,
        .src_row = kept ? f->row.dst : f->row.src,
        .src_column = kept ? f->lane.dst : f->lane.src,
        .dst_group = f->side.dst,
        .dst_row = f->row.dst,
        .dst_column = f->lane.dst,
        .src = kept ? c->dst + p->dst * k->element : c->src + p->src * k->element,
        .dst = c->dst + p->dst * k->element,
        .centre = centre,
        .factor = factor,
        .each = f->over_lanes,
        .scale = folds->scales && c->other[0] ? c->other[0] + p->wei * k->element : NULL,
        .shift = folds->scales && c->other[1] ? c->other[1] + p->wei * k->element : NULL,
        .wei_group = f->side.wei,
        .wei_row = f->row.wei,
        .wei_column = f->lane.wei,
    };
    k->spread(&work);
}

// Where statistics of a block lie, `width` of each: partial totals and what kernels read in T, the rest in double.
typedef struct fc_statistics {
    double *total, *centre, *factor;
    char *kernel_centre, *kernel_factor, *partial;
} fc_statistics;

static int64_t statistics_bytes(const fc_folding *f) { return fc_round_up(6 * fc_max(1, f->width) * 8, FC_ALIGN); }

static fc_statistics statistics_in(char *memory, const fc_folding *f) {
    const int64_t bytes = fc_max(1, f->width) * 8;
    return (fc_statistics){(double *)memory,   (double *)(memory + bytes), (double *)(memory + 2 * bytes),
                           memory + 3 * bytes, memory + 4 * bytes,         memory + 5 * bytes};
}

// In double and as kernels read them.
static void set_statistics(const folding_call *c, const fc_statistics *s, int64_t width) {
    for (int64_t i = 0; i < width; i++) {
        set_value(c->plan->kernels, s->kernel_centre, i, s->centre[i]);
        set_value(c->plan->kernels, s->kernel_factor, i, s->factor[i]);
    }
}

// Before anything is folded: where sums of differences are asked for, a first guess at each centre is the first of the
// elements, from which those lose nothing to a mean far from zero.
static void guess(const folding_call *c, const fc_statistics *s, const fc_piece *head, int64_t width) {
    const fc_folding *f = &c->folds->folding;
    const int pivots = c->folds->step[0].kind == FC_FOLD_CENTRED && f->count > 0;
    for (int64_t i = 0; i < width; i++) {
        const double first = pivots ? value_at(c->plan->kernels, c->src, head->src + i * f->side.src) : 0;
        s->centre[i] = isfinite(first) ? first : 0;
        s->factor[i] = 1;
    }
    set_statistics(c, s, width);
}

static void begin(const folding_call *c, int step, const fc_statistics *s, int64_t width) {
    for (int64_t i = 0; i < width; i++) s->total[i] = neutral(c->folds->step[step].kind);
}

static void join(const folding_call *c, int step, const fc_statistics *s, const char *partial, int64_t width) {
    for (int64_t i = 0; i < width; i++)
        s->total[i] = joined(c->folds->step[step].kind, s->total[i], value_at(c->plan->kernels, partial, i));
}

static void conclude(const folding_call *c, int step, const fc_statistics *s, int64_t width) {
    c->folds->conclude(c->plan, step, s->total, width, s->centre, s->factor);
    set_statistics(c, s, width);
}

static void write_out(const folding_call *c, int64_t block, const fc_piece *p, const fc_statistics *s, int64_t width) {
    const fc_folding *f = &c->folds->folding;
    const fc_kernels *k = c->plan->kernels;
    const int64_t first = c->folds->apart ? c->folds->second + block * f->width : p->dst;
    const int64_t step = c->folds->apart ? 1 : f->side.dst;
    for (int64_t i = 0, at = first; i < width; i++, at += step) {
        if (c->folds->results > 0) set_value(k, c->dst, at, s->centre[i]);
        if (c->folds->results > 1) set_value(k, c->dst, at + c->folds->second, s->factor[i]);
    }
}

static int64_t width_of(const fc_folding *f, const fc_piece *p) { return f->over_lanes ? p->columns : p->groups; }

// Whole blocks, one after the other.
static void fold_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const folding_call c = call_of(stage, call);
    const fc_folding *f = &c.folds->folding;
    const fc_statistics s = statistics_in(fc_own_scratch(call, thread), f);
    const int64_t each = *(const int64_t *)stage->context, first = task * each;
    for (int64_t block = first; block < fc_min(first + each, f->blocks); block++) {
        const fc_piece head = fc_fold_piece(f, block, 0);
        const int64_t width = width_of(f, &head);
        guess(&c, &s, &head, width);
        for (int step = 0; step < c.folds->steps; step++) {
            begin(&c, step, &s, width);
            for (int64_t chunk = 0; chunk < f->chunks && !(f->chunks > 1 && fc_must_stop()); chunk++) {
                const fc_piece p = chunk ? fc_fold_piece(f, block, chunk) : head;
                fold_piece(&c, step, &p, s.kernel_centre, s.partial);
                join(&c, step, &s, s.partial, width);
            }
            conclude(&c, step, &s, width);
        }
        write_out(&c, block, &head, &s, width);
        for (int64_t chunk = 0; chunk < (c.folds->spreads ? f->chunks : 0); chunk++) {
            const fc_piece p = chunk ? fc_fold_piece(f, block, chunk) : head;
            spread_piece(&c, &p, s.kernel_centre, s.kernel_factor);
        }
    }
}

// The same with a chunk a task: statistics of every block, then the partial totals of [block][chunk], in shared scratch.
typedef struct fold_wave {
    int step;
    int64_t partials; // bytes behind the statistics
} fold_wave;

static fc_statistics shared_statistics(const fc_stage *stage, fc_call *call, const fc_folding *f, int64_t block) {
    return statistics_in((char *)fc_operand(call, stage->at.shared) + block * statistics_bytes(f), f);
}

static char *shared_partial(const fc_stage *stage, fc_call *call, const fc_folding *f, int64_t block, int64_t chunk) {
    const fold_wave *w = stage->context;
    return (char *)fc_operand(call, stage->at.shared) + w->partials + (block * f->chunks + chunk) * f->width * 8;
}

static void chunk_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const folding_call c = call_of(stage, call);
    const fc_folding *f = &c.folds->folding;
    const int64_t block = task / f->chunks, chunk = task % f->chunks;
    const fc_piece p = fc_fold_piece(f, block, chunk);
    fold_piece(&c, ((const fold_wave *)stage->context)->step, &p,
               shared_statistics(stage, call, f, block).kernel_centre, shared_partial(stage, call, f, block, chunk));
}

// One block: what its chunks came to, or before the first step, -1, a guess.
static void join_task(const fc_stage *stage, fc_call *call, int64_t block, int thread) {
    (void)thread;
    const folding_call c = call_of(stage, call);
    const fc_folding *f = &c.folds->folding;
    const int step = ((const fold_wave *)stage->context)->step;
    const fc_statistics s = shared_statistics(stage, call, f, block);
    const fc_piece head = fc_fold_piece(f, block, 0);
    const int64_t width = width_of(f, &head);
    if (step < 0) {
        guess(&c, &s, &head, width);
        return;
    }
    begin(&c, step, &s, width);
    for (int64_t chunk = 0; chunk < f->chunks; chunk++)
        join(&c, step, &s, shared_partial(stage, call, f, block, chunk), width);
    conclude(&c, step, &s, width);
    if (step == c.folds->steps - 1) write_out(&c, block, &head, &s, width);
}

static void spread_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    (void)thread;
    const folding_call c = call_of(stage, call);
    const fc_folding *f = &c.folds->folding;
    const int64_t block = task / f->chunks;
    const fc_piece p = fc_fold_piece(f, block, task % f->chunks);
    const fc_statistics s = shared_statistics(stage, call, f, block);
    spread_piece(&c, &p, s.kernel_centre, s.kernel_factor);
}

// -------------------------------------------------------------------------------------------------------------- verbs

double fc_fold_cost(const fc_folding *f, const fc_kernels *k, int passes, int exponentials) {
    const double blocks = (double)f->blocks, elements = blocks * (double)f->width * (double)f->count;
    const double bytes = elements * (double)k->element * passes;
    return 2e-7 + blocks * (60e-9 + 10e-9 * (double)f->width) + bytes / 2e10 +
           exponentials * elements * 3e-9 / (double)k->vl;
}

// Blocks are shared out whole where there are enough of them; else in chunks, in waves.
void fc_fold_stages(const fc_plan *plan, int threads, fc_list *list) {
    const fc_fold_plan *folds = plan->state;
    const fc_folding *f = &folds->folding;
    list->schedule->exact = 1; // extremes are copies, and the smallest exponentials are there
    if (f->blocks == 0) return;
    if (threads == 1 || f->chunks == 1 || f->blocks >= 4 * threads) {
        int64_t each = fc_max(1, FC_FOLD_TASK / fc_max(1, f->count * f->width));
        each = fc_min(each, fc_ceil_div(f->blocks, threads));
        fc_list_scratch(list, 0, (size_t)statistics_bytes(f));
        fc_list_stage(list, plan, fold_task, fc_ceil_div(f->blocks, each), fc_list_keep(list, &each, sizeof each));
        return;
    }
    fold_wave wave = {-1, f->blocks * statistics_bytes(f)};
    fc_list_scratch(list, (size_t)(wave.partials + f->blocks * f->chunks * f->width * 8), 0);
    fc_list_stage(list, plan, join_task, f->blocks, fc_list_keep(list, &wave, sizeof wave));
    for (wave.step = 0; wave.step < folds->steps; wave.step++) {
        const void *context = fc_list_keep(list, &wave, sizeof wave);
        fc_list_stage(list, plan, chunk_task, f->blocks * f->chunks, context);
        fc_list_stage(list, plan, join_task, f->blocks, context);
    }
    if (folds->spreads)
        fc_list_stage(list, plan, spread_task, f->blocks * f->chunks, fc_list_keep(list, &wave, sizeof wave));
}
