// SPDX-License-Identifier: BSD-3-Clause
//
// stencil.c - a correlation over an array of one channel, with borders as image filters have them.
//
// A task is a band of output rows of one plane, or some columns of it.  Input rows are copied, with their borders, into a
// ring that stays in the cache: each element of the image is read from memory once, and the kernel sees neither borders
// nor strides.  A separable stencil filters each row as it enters the ring, so that no intermediate image exists.
#include "core/family.h"
#include "core/plan.h"

enum { FC_LINE = 64 };

// ---------------------------------------------------------------------------------------------------------- borders

// Where element i of the extended axis lies, or -1 where the fill stands.
static int64_t source_of(const fc_stencil_axis *a, int64_t i) {
    const int64_t n = a->in;
    if (i >= 0 && i < n) return i;
    int64_t period;
    switch (a->border) {
    case FC_BORDER_NEAREST:
        return i < 0 ? 0 : n - 1;
    case FC_BORDER_WRAP:
        i %= n;
        return i < 0 ? i + n : i;
    case FC_BORDER_REFLECT: // c b a | a b c | c b a
        period = 2 * n;
        i %= period;
        if (i < 0) i += period;
        return i < n ? i : period - 1 - i;
    case FC_BORDER_MIRROR: // c b | a b c | b a
        if (n == 1) return 0;
        period = 2 * (n - 1);
        i %= period;
        if (i < 0) i += period;
        return i < n ? i : period - i;
    default:
        return -1;
    }
}

// -------------------------------------------------------------------------------------------------------- the tasks

// How the work is cut into tasks, and what each thread needs for one.
typedef struct stencil_split {
    int64_t depth, planes;                               // source planes of an output plane; output planes
    int64_t slots, pitch, line_pitch;                    // of a ring: rows, and elements from row to row; of a line
    int64_t columns, column_parts;                       // per task
    int64_t rows, row_parts;                             // per task
    size_t table_bytes, planes_bytes, line_bytes, bytes; // of a thread
} stencil_split;

// A task at work.
typedef struct stencil_job {
    const fc_stencil *stencil;
    const stencil_split *split;
    fc_stencil_fn *kernel;
    const char *src, *weights; // weights as the kernel has them
    char *dst;
    int64_t element;
} stencil_job;

#define FC_COPIES(T)                                                                                                   \
    static void extend_##T(const fc_stencil_axis *a, const T *row, int64_t first, int64_t from, int64_t to, T fill,    \
                           T *out) {                                                                                   \
        for (int64_t i = from; i < to; i++) {                                                                          \
            const int64_t at = row ? source_of(a, first + i) : -1;                                                     \
            out[i] = at < 0 ? fill : row[at * a->src];                                                                 \
        }                                                                                                              \
    }                                                                                                                  \
    /* `count` elements of an extended row from element `first` on; NULL is a row of fill. */                          \
    static void copy_##T(const fc_stencil_axis *a, const void *row, int64_t first, int64_t count, T fill, T *out) {    \
        const T *src = row;                                                                                            \
        const int64_t low = src ? fc_min(count, fc_max(0, -first)) : count;                                            \
        const int64_t high = src ? fc_max(low, fc_min(count, a->in - first)) : count;                                  \
        extend_##T(a, src, first, 0, low, fill, out);                                                                  \
        if (a->src == 1 && high > low) memcpy(out + low, src + first + low, (size_t)(high - low) * sizeof(T));         \
        else                                                                                                           \
            for (int64_t i = low; i < high; i++) out[i] = src[(first + i) * a->src];                                   \
        extend_##T(a, src, first, high, count, fill, out);                                                             \
    }

FC_COPIES(float)
FC_COPIES(double)
#undef FC_COPIES

static void copy_row(const stencil_job *job, const void *row, int64_t first, int64_t count, double fill, void *out) {
    const fc_stencil *s = job->stencil;
    const fc_stencil_axis *a = &s->axis[s->rank - 1];
    if (s->dtype == FC_F32) copy_float(a, row, first, count, (float)fill, out);
    else copy_double(a, row, first, count, fill, out);
}

// What a thread works in.
typedef struct stencil_place {
    const void **table;
    const char **planes; // [depth]: source planes, NULL where all is fill
    char *line, *ring;
} stencil_place;

static stencil_place place_in(char *own, const stencil_split *s) {
    return (stencil_place){(const void **)own, (const char **)(own + s->table_bytes),
                           own + s->table_bytes + s->planes_bytes,
                           own + s->table_bytes + s->planes_bytes + s->line_bytes};
}

// The source planes under every leading tap of output plane `index`, and where that plane begins.
static char *aim(const stencil_job *job, int64_t index, const char **planes) {
    const fc_stencil *s = job->stencil;
    const int leading = s->rank - 2;
    int64_t at[FC_RANK] = {0}, dst = 0;
    for (int i = leading - 1; i >= 0; i--) {
        at[i] = index % s->axis[i].out;
        index /= s->axis[i].out;
        dst += at[i] * s->axis[i].dst;
    }
    for (int64_t t = 0; t < job->split->depth; t++) {
        int64_t rest = t, src = 0;
        int outside = 0;
        for (int i = leading - 1; i >= 0; i--) {
            const fc_stencil_axis *a = &s->axis[i];
            const int64_t from = source_of(a, at[i] + a->offset + rest % a->kernel);
            rest /= a->kernel;
            outside |= from < 0;
            src += from * a->src;
        }
        planes[t] = outside ? NULL : job->src + src * job->element;
    }
    return job->dst + dst * job->element;
}

// Fills ring rows with columns [x, x + columns) of extended row `y` of every plane.
static void enter(const stencil_job *job, const stencil_place *place, int64_t y, int64_t x, int64_t columns) {
    const fc_stencil *s = job->stencil;
    const fc_stencil_axis *h = &s->axis[s->rank - 2], *w = h + 1;
    const int64_t element = job->element, row = source_of(h, y + h->offset), slot = y % job->split->slots;
    for (int64_t t = 0; t < job->split->depth; t++) {
        char *out = place->ring + (t * job->split->slots + slot) * job->split->pitch * element;
        const char *src = row < 0 || !place->planes[t] ? NULL : place->planes[t] + row * h->src * element;
        if (!s->separable || !src) {
            copy_row(job, src, x + w->offset, columns + w->kernel - 1, s->separable ? s->fill_rows : s->fill, out);
            continue;
        }
        copy_row(job, src, x + w->offset, columns + w->kernel - 1, s->fill, place->line);
        const void *line = place->line;
        const fc_stencil_rows work = {.rows = &line,
                                      .weights = job->weights + h->kernel * element,
                                      .depth = 1,
                                      .height = 1,
                                      .width = w->kernel,
                                      .count = 1,
                                      .columns = columns,
                                      .dst = out,
                                      .unfused = s->unfused};
        job->kernel(&work);
    }
}

static void stencil_task(const fc_stage *stage, fc_call *call, int64_t task, int thread) {
    const fc_stencil *s = &stage->plan->stencil;
    const stencil_split *split = stage->context;
    const fc_kernels *k = stage->plan->kernels;
    const stencil_job job = {
        .stencil = s,
        .split = split,
        .kernel = k->stencil,
        .src = fc_operand(call, stage->at.src),
        .weights = fc_operand(call, stage->at.wei),
        .dst = fc_operand(call, stage->at.dst),
        .element = k->element,
    };
    const fc_stencil_axis *h = &s->axis[s->rank - 2], *w = h + 1;
    const int64_t element = k->element;
    const stencil_place place = place_in(fc_own_scratch(call, thread), split);
    const int64_t x = task % split->column_parts * split->columns, columns = fc_min(split->columns, w->out - x);
    task /= split->column_parts;
    const int64_t first = task % split->row_parts * split->rows, last = fc_min(first + split->rows, h->out);
    char *dst = aim(&job, task / split->row_parts, place.planes) + x * element;
    int64_t entered = first;
    for (int64_t y = first; y < last && !fc_must_stop();) {
        const int64_t count = fc_min(fc_min(FC_STENCIL_ROWS, h->kernel), last - y), height = h->kernel + count - 1;
        for (; entered < y + height; entered++) enter(&job, &place, entered, x, columns);
        for (int64_t t = 0; t < split->depth; t++)
            for (int64_t i = 0; i < height; i++)
                place.table[t * height + i] =
                    place.ring + (t * split->slots + (y + i) % split->slots) * split->pitch * element;
        const fc_stencil_rows work = {.rows = place.table,
                                      .weights = job.weights,
                                      .depth = split->depth,
                                      .height = h->kernel,
                                      .width = s->separable ? 1 : w->kernel,
                                      .count = count,
                                      .columns = columns,
                                      .dst = dst + y * h->dst * element,
                                      .dst_row = h->dst,
                                      .unfused = s->unfused};
        job.kernel(&work);
        y += count;
    }
}

// ---------------------------------------------------------------------------------------------------------- sharing

static size_t align(int64_t bytes) { return fc_align((size_t)bytes); }

// An odd number of cache lines from row to row, or rows would share few sets of the first-level cache.
static int64_t pitch_of(int64_t elements, int64_t element) {
    return (elements * element / FC_LINE | 1) * FC_LINE / element + 2 * FC_LINE / element;
}

static stencil_split split_of(const fc_stencil *s, const fc_plan *plan, int threads) {
    const fc_kernels *k = plan->kernels;
    const fc_stencil_axis *h = &s->axis[s->rank - 2], *w = h + 1;
    stencil_split split = {.depth = 1, .planes = 1};
    for (int i = 0; i + 2 < s->rank; i++) {
        split.depth *= s->axis[i].kernel;
        split.planes *= s->axis[i].out;
    }
    split.slots = h->kernel + fc_min(FC_STENCIL_ROWS, h->kernel) - 1;
    // Columns: as many as keep the ring in the cache, but no fewer than the borders that are copied with them.
    const int64_t beside = s->separable ? 0 : w->kernel - 1; // of a ring's rows; separable ones hold sums
    const int64_t room = plan->machine.l2 / 2 / (split.slots * split.depth * k->element) - beside;
    const int64_t least = fc_max(8 * k->vl, 2 * w->kernel);
    split.column_parts = fc_ceil_div(w->out, fc_max(room, least));
    split.columns = fc_ceil_div(fc_ceil_div(w->out, split.column_parts), k->vl) * k->vl;
    split.column_parts = fc_ceil_div(w->out, split.columns);
    split.pitch = pitch_of(split.columns + beside, k->element);
    split.line_pitch = s->separable ? pitch_of(split.columns + w->kernel - 1, k->element) : 0;
    // Rows: a band repeats what it shares with the last one, so it is much higher than that, unless threads would idle.
    const int64_t others = split.planes * split.column_parts;
    int64_t parts = fc_max(1, fc_ceil_div(4 * threads, others));
    parts = fc_min(parts, fc_max(fc_ceil_div(threads, others), h->out / (8 * h->kernel)));
    split.rows = fc_max(1, fc_ceil_div(h->out, parts));
    split.row_parts = fc_ceil_div(h->out, split.rows);
    split.table_bytes = align(split.depth * split.slots * (int64_t)sizeof(void *));
    split.planes_bytes = align(split.depth * (int64_t)sizeof(void *));
    split.line_bytes = align(split.line_pitch * k->element);
    split.bytes = split.table_bytes + split.planes_bytes + split.line_bytes +
                  align(split.depth * split.slots * split.pitch * k->element);
    return split;
}

static int64_t taps_of(const fc_stencil *s) {
    int64_t taps = 1;
    for (int i = 0; i < s->rank; i++) taps *= s->axis[i].kernel;
    return s->separable ? s->axis[s->rank - 2].kernel + s->axis[s->rank - 1].kernel : taps;
}

// Of one thread on a nominal machine; an output costs its taps and some copying, reading and writing.
static double cost(const fc_request *r) {
    const fc_stencil *s = r->op->problem;
    double outputs = 1;
    for (int i = 0; i < s->rank; i++) outputs *= (double)s->axis[i].out;
    const double vectors = outputs / (double)fc_min(r->kernels->vl, s->axis[s->rank - 1].out);
    return 1e-6 + vectors * (0.16e-9 * (double)taps_of(s) + 2.5e-9);
}

// -------------------------------------------------------------------------------------------------------------- verbs

static fc_status layout(fc_plan *plan, const fc_request *r, char message[FC_MESSAGE]) {
    (void)message;
    plan->packed_bytes = align(taps_of(r->op->problem) * r->kernels->element);
    return FC_OK;
}

// Kernel columns one after the other: what the rows of a tile need of one lies together.
static fc_status pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads) {
    (void)bias, (void)threads;
    const fc_stencil *s = &plan->stencil;
    const int64_t element = plan->kernels->element, height = s->axis[s->rank - 2].kernel;
    const int64_t width = s->axis[s->rank - 1].kernel, plane = height * width;
    for (int64_t i = 0; i < taps_of(s); i++) {
        const int64_t at = s->separable ? i : i / plane * plane + i % width * height + i % plane / width;
        memcpy((char *)packed + at * element, (const char *)wei + i * element, (size_t)element);
    }
    return FC_OK;
}

static void stages(const fc_plan *plan, int threads, fc_list *list) {
    const stencil_split split = split_of(&plan->stencil, plan, threads);
    fc_list_scratch(list, 0, split.bytes);
    fc_list_stage(list, plan, stencil_task, split.planes * split.row_parts * split.column_parts,
                  fc_list_keep(list, &split, sizeof split));
}

static const fc_kind kind = {.name = "stencil",
                             .traits = FC_SERVES_FORWARD,
                             .rows = 1,
                             .cost = cost,
                             .layout = layout,
                             .pack = pack,
                             .stages = stages};

const fc_kind *const fc_kinds_stencil[] = {&kind, NULL};
