// SPDX-License-Identifier: BSD-3-Clause
//
// pool.c - pooling: what makes it safe, which kernel suits the strides, and how the work is shared.
#include "kernels/kernels.h"
#include "parallel.h"

#include <stdatomic.h>
#include <stdio.h>

// Bytes of one task: some ten microseconds of memory traffic, much more than it costs to hand a task out.
enum { FC_POOL_TASK = 128 * 1024 };
// Nominal speed of one thread, for deciding how many are worth waking.
static const double fc_pool_bytes_per_second = 1e10, fc_pool_taps_per_second = 4e9;

static int64_t clamp(int64_t low, int64_t value, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

// ----------------------------------------------------------------------------------------------------------- checks

#define REQUIRE(condition, ...)                                                                                        \
    if (!(condition)) {                                                                                                \
        snprintf(message, FC_MESSAGE, __VA_ARGS__);                                                                    \
        return FC_INVALID;                                                                                             \
    }

static fc_status check_axis(const fc_pool *p, int i, char message[FC_MESSAGE]) {
    const fc_axis *a = &p->axis[i];
    const int64_t limit = (INT64_C(1) << 48) + 1; // keeps every sum and product of the kernels from overflowing
    const long long in = a->in, out = a->out;
    REQUIRE(in > 0 && out > 0 && in < limit && out < limit, "axis %d: %lld -> %lld elements", i, in, out)
    if (p->adaptive) {
        REQUIRE(in < INT64_MAX / (out + 1), "axis %d: %lld x %lld overflows", i, in, out)
        return FC_OK;
    }
    REQUIRE(a->kernel > 0 && a->stride > 0 && a->dilation > 0 && a->kernel < limit && a->stride < limit &&
                a->dilation < limit,
            "axis %d: kernel %lld, stride %lld and dilation %lld must be positive", i, (long long)a->kernel,
            (long long)a->stride, (long long)a->dilation)
    REQUIRE(a->pad >= 0 && p->pad_after[i] >= 0 && a->pad < limit && p->pad_after[i] < limit,
            "axis %d: padding %lld and %lld must not be negative", i, (long long)a->pad, (long long)p->pad_after[i])
    REQUIRE(a->kernel < INT64_MAX / 4 / a->dilation && out < INT64_MAX / 4 / a->stride,
            "axis %d: kernel x dilation or output x stride overflows", i)
    REQUIRE((out - 1) * a->stride - a->pad < in, "axis %d: the last window starts behind the input", i)
    // Of the windows that start in the padding the first reaches least far; wide dilation may step over the input.
    for (int64_t o = 0; o < (a->dilation > in ? out : 1) && o * a->stride < a->pad; o++)
        REQUIRE(fc_pool_window(p, i, o).taps > 0, "axis %d: window %lld holds no element", i, (long long)o)
    return FC_OK;
}

fc_status fc_pool_check(const fc_pool *p, char message[FC_MESSAGE]) {
    REQUIRE(p->batch >= 0 && p->channels >= 0, "%lld images of %lld channels", (long long)p->batch,
            (long long)p->channels)
    REQUIRE(p->dtype == FC_F32 || p->dtype == FC_F64, "dtype %d is unknown", (int)p->dtype)
    REQUIRE(p->kind == FC_POOL_MAX || p->kind == FC_POOL_AVG, "kind %d is unknown", (int)p->kind)
    for (int i = 0; i < FC_AXES; i++) {
        const fc_status status = check_axis(p, i, message);
        if (status != FC_OK) return status;
    }
    return FC_OK;
}

// ------------------------------------------------------------------------------------------------- what is suitable

static int channels_form(const fc_pool *p) { return p->channels > 1 && p->src.channel == 1 && p->dst.channel == 1; }

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
        if (i == 1) span += (double)(fc_pool_band_rows(p) - 1) * (p->adaptive ? span : (double)a->stride);
        reach = reach * (double)a->in + (span < (double)a->in ? span : (double)a->in);
    }
    return reach < (double)(1 << 24);
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

static fc_pool_fn forward_kernel(const fc_pool *p, const fc_kernels *k, int indexed) {
    const int exact = !indexed || offsets_exact(p);
    if (channels_form(p)) return exact ? k->pool_channels : k->pool_any;
    if (!rows_form(p)) return k->pool_any;
    if (plane_form(p)) return k->pool_planes;
    if (pairs_form(p) && !indexed) return k->pool_pairs;
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

static const fc_kernels *kernels_of(const fc_pool *p, fc_isa isa) {
    const fc_kernels *k = fc_kernels_for(isa, (fc_dtype)p->dtype);
    return k ? k : fc_kernels_for(FC_SCALAR, (fc_dtype)p->dtype);
}

static double plane_bytes(const fc_pool *p, const fc_kernels *k) {
    const fc_axis *a = p->axis;
    return ((double)a[0].in * (double)a[1].in * (double)a[2].in +
            (double)a[0].out * (double)a[1].out * (double)a[2].out) *
           (double)k->element;
}

// Both ways of pooling touch fewer elements than windows have, by far when they are large.
static int worthwhile_threads(const fc_pool *p, const fc_kernels *k, int threads) {
    const fc_axis *a = p->axis;
    double taps = (double)a[0].out * (double)a[1].out * (double)a[2].out;
    for (int i = 0; i < FC_AXES; i++) taps *= p->adaptive ? (double)(a[i].in / a[i].out + 1) : (double)a[i].kernel;
    const double planes = (double)p->batch * (double)p->channels;
    return fc_worthwhile_threads(
        planes * (plane_bytes(p, k) / fc_pool_bytes_per_second + taps / (double)k->vl / fc_pool_taps_per_second),
        threads);
}

// Maxima are copies of their inputs, down to the smallest; sums need not be.
static void share(const fc_pool *p, int64_t tasks, int threads, fc_task_fn task, void *job) {
    if (p->kind == FC_POOL_MAX) fc_parallel_exact(tasks, threads, task, job);
    else fc_parallel(tasks, threads, task, job);
}

// ---------------------------------------------------------------------------------------------------------- forward

typedef struct fc_pool_forward_job {
    fc_pool_work work; // of the whole
    fc_pool_fn kernel;
    int64_t rows, row_parts, channels, channel_parts; // of one task, and tasks per image
} fc_pool_forward_job;

static int64_t rest_of(int64_t part, int64_t size, int64_t whole) {
    return whole - part * size < size ? whole - part * size : size;
}

// About `size` elements of `whole` in each part, and as many parts for every thread.
static int64_t even_part(int64_t size, int64_t whole, int threads) {
    int64_t parts = (whole + size - 1) / size;
    parts = clamp(1, (parts + threads - 1) / threads * threads, whole);
    return (whole + parts - 1) / parts;
}

static void forward_task(void *context, int64_t task, int thread) {
    (void)thread;
    const fc_pool_forward_job *job = context;
    const fc_pool *p = job->work.pool;
    const int64_t channel_part = task % job->channel_parts, row_part = task / job->channel_parts % job->row_parts;
    fc_pool_work work = job->work;
    work.image = task / job->channel_parts / job->row_parts;
    work.channel = channel_part * job->channels;
    work.channels = rest_of(channel_part, job->channels, p->channels);
    work.row = row_part * job->rows;
    work.rows = rest_of(row_part, job->rows, p->axis[0].out * p->axis[1].out);
    job->kernel(&work);
}

void fc_pool_forward(const fc_pool *pool, fc_isa isa, const void *src, void *dst, int64_t *indices, int threads) {
    if (pool->batch == 0 || pool->channels == 0) return;
    const fc_pool simple = simplified(pool), *p = &simple;
    const fc_kernels *k = kernels_of(p, isa);
    const int64_t rows = p->axis[0].out * p->axis[1].out;
    fc_pool_forward_job job = {.work = {.pool = p, .src = src, .dst = dst, .indices = indices},
                               .kernel = forward_kernel(p, k, indices != NULL)};
    const double plane = plane_bytes(p, k), row = plane / (double)rows;
    threads = worthwhile_threads(p, k, threads);
    if (channels_form(p)) { // all channels of some rows; a part of them when one row is too much
        const double wide = row * (double)p->channels;
        const int64_t least = fc_pool_shares_rows(p) ? FC_POOL_ALONE : 1, some = (int64_t)(FC_POOL_TASK / row);
        const int64_t block = 4 * k->vl;
        job.rows = even_part(clamp(clamp(1, least, rows), (int64_t)(FC_POOL_TASK / wide), rows), rows, threads);
        job.channels = wide > FC_POOL_TASK ? clamp(block, some / block * block, p->channels) : p->channels;
    } else { // some planes, or some rows of one
        const int64_t some = clamp(1, (int64_t)(FC_POOL_TASK / plane), p->channels);
        job.channels = even_part(some, p->channels, some > 1 ? threads : 1);
        job.rows = some > 1 ? rows : even_part(clamp(1, (int64_t)(FC_POOL_TASK / row), rows), rows, 1);
    }
    job.row_parts = (rows + job.rows - 1) / job.rows;
    job.channel_parts = (p->channels + job.channels - 1) / job.channels;
    share(p, p->batch * job.row_parts * job.channel_parts, threads, forward_task, &job);
}

// --------------------------------------------------------------------------------------------------------- backward

typedef struct fc_pool_backward_job {
    fc_pool_grad grad; // of the whole
    const fc_kernels *kernels;
    fc_pool_avg_grad_fn average;
    int64_t channels, channel_parts;
    atomic_int outside;
} fc_pool_backward_job;

static void backward_task(void *context, int64_t task, int thread) {
    (void)thread;
    fc_pool_backward_job *job = context;
    fc_pool_grad grad = job->grad;
    grad.image = task / job->channel_parts;
    grad.channel = task % job->channel_parts * job->channels;
    grad.channels = rest_of(task % job->channel_parts, job->channels, grad.pool->channels);
    if (grad.pool->kind == FC_POOL_AVG) job->average(&grad);
    else if (!job->kernels->pool_max_grad(&grad)) atomic_store(&job->outside, 1);
}

fc_status fc_pool_backward(const fc_pool *pool, fc_isa isa, const void *d_dst, const int64_t *indices, void *d_src,
                           int threads) {
    if (pool->batch == 0 || pool->channels == 0) return FC_OK;
    const fc_pool simple = simplified(pool), *p = &simple;
    const fc_kernels *k = kernels_of(p, isa);
    fc_pool_backward_job job = {.grad = {.pool = p, .d_dst = d_dst, .indices = indices, .d_src = d_src},
                                .kernels = k,
                                .average = channels_form(p) ? k->pool_avg_grad_channels : k->pool_avg_grad_rows};
    // Whole planes, so that no two tasks add to the same element; whole cache lines of channels where those lie together.
    const int64_t block = p->src.channel == 1 ? 64 / k->element : 1;
    const int64_t some = (int64_t)(FC_POOL_TASK / plane_bytes(p, k)) / block * block;
    job.channels = clamp(block < p->channels ? block : p->channels, some, p->channels);
    job.channel_parts = (p->channels + job.channels - 1) / job.channels;
    share(p, p->batch * job.channel_parts, worthwhile_threads(p, k, threads), backward_task, &job);
    return atomic_load(&job.outside) ? FC_INVALID : FC_OK;
}
