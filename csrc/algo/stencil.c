// SPDX-License-Identifier: BSD-3-Clause
//
// stencil.c - a correlation over an array of one channel, with borders as image filters have them.
//
// A task is a band of output rows of one plane, or some columns of it.  Input rows are copied, with their borders, into a
// ring that stays in the cache: each element of the image is read from memory once, and the kernel sees neither borders
// nor strides.  A separable stencil filters each row as it enters the ring, so that no intermediate image exists.
#include "kernels/kernels.h"
#include "parallel.h"

#include <stdio.h>
#include <string.h>

// Of one ring: half of a second-level cache.
enum { FC_RING_BYTES = 512 * 1024, FC_LINE = 64 };

static int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ----------------------------------------------------------------------------------------------------------- checks

#define REQUIRE(condition, ...)                                                                                        \
    if (!(condition)) {                                                                                                \
        snprintf(message, FC_MESSAGE, __VA_ARGS__);                                                                    \
        return FC_INVALID;                                                                                             \
    }

fc_status fc_stencil_check(const fc_stencil *s, char message[FC_MESSAGE]) {
    const int64_t limit = INT64_C(1) << 40; // keeps every sum and product below from overflowing
    int64_t taps = 1;
    REQUIRE(s->rank >= 2 && s->rank <= FC_RANK, "%d axes", (int)s->rank)
    REQUIRE(s->dtype == FC_F32 || s->dtype == FC_F64, "dtype %d is unknown", (int)s->dtype)
    for (int i = 0; i < s->rank; i++) {
        const fc_stencil_axis *a = &s->axis[i];
        REQUIRE(a->in > 0 && a->out > 0 && a->kernel > 0 && a->in < limit && a->out < limit && a->kernel < limit,
                "axis %d: %lld -> %lld elements by %lld", i, (long long)a->in, (long long)a->out, (long long)a->kernel)
        REQUIRE(a->offset > -limit && a->offset < limit, "axis %d: offset %lld", i, (long long)a->offset)
        REQUIRE(a->border >= 0 && a->border < FC_BORDERS, "axis %d: border %d", i, (int)a->border)
        REQUIRE(taps < limit / a->kernel, "the kernel is too large")
        REQUIRE(!s->separable || i + 2 >= s->rank || a->kernel == 1, "a separable stencil has a plane's taps only")
        taps *= a->kernel;
    }
    REQUIRE(s->axis[s->rank - 1].dst == 1, "the rows of the output are not contiguous")
    return FC_OK;
}

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

typedef struct stencil_job {
    const fc_stencil *stencil;
    const fc_kernels *kernels;
    fc_stencil_fn kernel;
    const char *src, *weights; // weights as the kernel has them
    char *dst, *scratch;
    int64_t depth, planes;                               // source planes of an output plane; output planes
    int64_t slots, pitch, line_pitch;                    // of a ring: rows, and elements from row to row; of a line
    int64_t columns, column_parts;                       // per task
    int64_t rows, row_parts;                             // per task
    size_t table_bytes, planes_bytes, line_bytes, bytes; // of a thread
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
        const int64_t low = src ? min_of(count, max_of(0, -first)) : count;                                            \
        const int64_t high = src ? max_of(low, min_of(count, a->in - first)) : count;                                  \
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

static stencil_place place_of(const stencil_job *job, int thread) {
    char *own = job->scratch + (size_t)thread * job->bytes;
    return (stencil_place){(const void **)own, (const char **)(own + job->table_bytes),
                           own + job->table_bytes + job->planes_bytes,
                           own + job->table_bytes + job->planes_bytes + job->line_bytes};
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
    for (int64_t t = 0; t < job->depth; t++) {
        int64_t rest = t, src = 0;
        int outside = 0;
        for (int i = leading - 1; i >= 0; i--) {
            const fc_stencil_axis *a = &s->axis[i];
            const int64_t from = source_of(a, at[i] + a->offset + rest % a->kernel);
            rest /= a->kernel;
            outside |= from < 0;
            src += from * a->src;
        }
        planes[t] = outside ? NULL : job->src + src * job->kernels->element;
    }
    return job->dst + dst * job->kernels->element;
}

// Fills ring rows with columns [x, x + columns) of extended row `y` of every plane.
static void enter(const stencil_job *job, const stencil_place *place, int64_t y, int64_t x, int64_t columns) {
    const fc_stencil *s = job->stencil;
    const fc_stencil_axis *h = &s->axis[s->rank - 2], *w = h + 1;
    const int64_t element = job->kernels->element, row = source_of(h, y + h->offset), slot = y % job->slots;
    for (int64_t t = 0; t < job->depth; t++) {
        char *out = place->ring + (t * job->slots + slot) * job->pitch * element;
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
                                      .dst = out};
        job->kernel(&work);
    }
}

static void stencil_task(void *context, int64_t task, int thread) {
    const stencil_job *job = context;
    const fc_stencil *s = job->stencil;
    const fc_stencil_axis *h = &s->axis[s->rank - 2], *w = h + 1;
    const int64_t element = job->kernels->element;
    const stencil_place place = place_of(job, thread);
    const int64_t x = task % job->column_parts * job->columns, columns = min_of(job->columns, w->out - x);
    task /= job->column_parts;
    const int64_t first = task % job->row_parts * job->rows, last = min_of(first + job->rows, h->out);
    char *dst = aim(job, task / job->row_parts, place.planes) + x * element;
    int64_t entered = first;
    for (int64_t y = first; y < last;) {
        const int64_t count = min_of(min_of(FC_STENCIL_ROWS, h->kernel), last - y), height = h->kernel + count - 1;
        for (; entered < y + height; entered++) enter(job, &place, entered, x, columns);
        for (int64_t t = 0; t < job->depth; t++)
            for (int64_t i = 0; i < height; i++)
                place.table[t * height + i] =
                    place.ring + (t * job->slots + (y + i) % job->slots) * job->pitch * element;
        const fc_stencil_rows work = {.rows = place.table,
                                      .weights = job->weights,
                                      .depth = job->depth,
                                      .height = h->kernel,
                                      .width = s->separable ? 1 : w->kernel,
                                      .count = count,
                                      .columns = columns,
                                      .dst = dst + y * h->dst * element,
                                      .dst_row = h->dst};
        job->kernel(&work);
        y += count;
    }
}

// ---------------------------------------------------------------------------------------------------------- sharing

static size_t align(int64_t bytes) { return (size_t)(ceil_div(bytes, FC_LINE) * FC_LINE); }

// An odd number of cache lines from row to row, or rows would share few sets of the first-level cache.
static int64_t pitch_of(int64_t elements, int64_t element) {
    return (elements * element / FC_LINE | 1) * FC_LINE / element + 2 * FC_LINE / element;
}

static stencil_job job_of(const fc_stencil *s, fc_isa isa, int threads) {
    const fc_kernels *k = fc_kernels_for(isa, s->dtype);
    const fc_stencil_axis *h = &s->axis[s->rank - 2], *w = h + 1;
    stencil_job job = {.stencil = s, .kernels = k, .depth = 1, .planes = 1};
    job.kernel = s->unfused ? k->stencil_unfused : k->stencil;
    for (int i = 0; i + 2 < s->rank; i++) {
        job.depth *= s->axis[i].kernel;
        job.planes *= s->axis[i].out;
    }
    job.slots = h->kernel + min_of(FC_STENCIL_ROWS, h->kernel) - 1;
    // Columns: as many as keep the ring in the cache, but no fewer than the borders that are copied with them.
    const int64_t beside = s->separable ? 0 : w->kernel - 1; // of a ring's rows; separable ones hold sums
    const int64_t room = FC_RING_BYTES / (job.slots * job.depth * k->element) - beside;
    const int64_t least = max_of(8 * k->vl, 2 * w->kernel);
    job.column_parts = ceil_div(w->out, max_of(room, least));
    job.columns = ceil_div(ceil_div(w->out, job.column_parts), k->vl) * k->vl;
    job.column_parts = ceil_div(w->out, job.columns);
    job.pitch = pitch_of(job.columns + beside, k->element);
    job.line_pitch = s->separable ? pitch_of(job.columns + w->kernel - 1, k->element) : 0;
    // Rows: a band repeats what it shares with the last one, so it is much higher than that, unless threads would idle.
    const int64_t others = job.planes * job.column_parts;
    int64_t parts = max_of(1, ceil_div(4 * threads, others));
    parts = min_of(parts, max_of(ceil_div(threads, others), h->out / (8 * h->kernel)));
    job.rows = max_of(1, ceil_div(h->out, parts));
    job.row_parts = ceil_div(h->out, job.rows);
    job.table_bytes = align(job.depth * job.slots * (int64_t)sizeof(void *));
    job.planes_bytes = align(job.depth * (int64_t)sizeof(void *));
    job.line_bytes = align(job.line_pitch * k->element);
    job.bytes =
        job.table_bytes + job.planes_bytes + job.line_bytes + align(job.depth * job.slots * job.pitch * k->element);
    return job;
}

static int64_t taps_of(const fc_stencil *s) {
    int64_t taps = 1;
    for (int i = 0; i < s->rank; i++) taps *= s->axis[i].kernel;
    return s->separable ? s->axis[s->rank - 2].kernel + s->axis[s->rank - 1].kernel : taps;
}

// Of one thread on a nominal machine; an output costs its taps and some copying, reading and writing.
double fc_stencil_cost(const fc_stencil *s, fc_isa isa) {
    const fc_kernels *k = fc_kernels_for(isa, s->dtype);
    double outputs = 1;
    for (int i = 0; i < s->rank; i++) outputs *= (double)s->axis[i].out;
    const double vectors = outputs / (double)min_of(k->vl, s->axis[s->rank - 1].out);
    return 1e-6 + vectors * (0.16e-9 * (double)taps_of(s) + 2.5e-9);
}

static size_t weight_bytes(const fc_stencil *s, const fc_kernels *k) { return align(taps_of(s) * k->element); }

size_t fc_stencil_scratch_bytes(const fc_stencil *s, fc_isa isa, int threads) {
    const stencil_job job = job_of(s, isa, threads);
    return (size_t)threads * job.bytes + weight_bytes(s, job.kernels);
}

// Kernel columns one after the other: what the rows of a tile need of one lies together.
static void pack(const fc_stencil *s, const stencil_job *job, const char *wei, char *packed) {
    const int64_t element = job->kernels->element, height = s->axis[s->rank - 2].kernel;
    const int64_t width = s->axis[s->rank - 1].kernel, plane = height * width;
    for (int64_t i = 0; i < taps_of(s); i++) {
        const int64_t at = s->separable ? i : i / plane * plane + i % width * height + i % plane / width;
        memcpy(packed + at * element, wei + i * element, (size_t)element);
    }
}

void fc_stencil_run(const fc_stencil *s, fc_isa isa, const void *src, const void *wei, void *dst, void *scratch,
                    int threads) {
    stencil_job job = job_of(s, isa, threads);
    pack(s, &job, wei, scratch);
    job.weights = scratch;
    job.src = src;
    job.dst = dst;
    job.scratch = (char *)scratch + weight_bytes(s, job.kernels);
    fc_parallel(job.planes * job.row_parts * job.column_parts, fc_worthwhile_threads(fc_stencil_cost(s, isa), threads),
                stencil_task, &job);
}
