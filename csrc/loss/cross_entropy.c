// SPDX-License-Identifier: BSD-3-Clause
//
// cross_entropy.c - softmax cross-entropy and its gradient, a few rows of numbers at a time, which stay in the cache while
// their maximum, the sum of their exponentials and what becomes of these are found.
#include "core/plan.h"
#include "fastconv.h"

enum { FC_LOSS_ROWS = 64 }; // of a task

typedef struct loss_job {
    const fc_cross_entropy *work;
    const fc_kernels *kernels;
    int64_t parts;        // tasks of one n, where the rows of one n are several
    double weights, even; // the sum of all classes' weights; s / classes
} loss_job;

static double value_at(int32_t dtype, const void *p, int64_t i) {
    return dtype == FC_F32 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}

static void set_value(int32_t dtype, void *p, int64_t i, double value) {
    if (dtype == FC_F32) ((float *)p)[i] = (float)value;
    else ((double *)p)[i] = value;
}

static double weight_of(const fc_cross_entropy *w, int64_t class) {
    return w->weight ? value_at(w->dtype, w->weight, class) : 1;
}

// Rows of a task: of one n, their columns side by side, or each of an n of its own.
typedef struct loss_rows {
    int64_t first, count; // flat over (n, i)
    const char *src;
    int64_t offset; // of d, elements
    int beside;
} loss_rows;

static void fold(const loss_job *job, const loss_rows *r, fc_fold_kind kind, const void *centre, void *dst,
                 void *total) {
    const fc_cross_entropy *w = job->work;
    const fc_fold work = {
        .kind = kind,
        .groups = r->beside ? 1 : r->count,
        .rows = r->beside ? w->classes : 1,
        .columns = r->beside ? r->count : w->classes,
        .group = w->step[0],
        .row = w->step[1],
        .column = r->beside ? w->step[2] : w->step[1],
        .src = r->src,
        .centre = centre,
        .dst = dst,
        .dst_group = w->classes,
        .dst_row = w->inner,
        .dst_column = 1,
        .total = total,
    };
    (r->beside ? job->kernels->fold_columns : job->kernels->fold_all)(&work);
}

// d times a number of each row.
static void multiply(const loss_job *job, const loss_rows *r, void *d, const void *factor) {
    const int64_t row = r->beside ? job->work->inner : job->work->classes;
    const fc_map_rows work = {
        .code = FC_MAP_MUL,
        .low = -INFINITY,
        .high = INFINITY,
        .rows = r->beside ? job->work->classes : r->count,
        .columns = r->beside ? r->count : job->work->classes,
        .dst = d,
        .dst_row = row,
        .x = {d, row, 1},
        .y = {factor, !r->beside, r->beside},
    };
    job->kernels->map_rows(&work);
}

static int64_t place_of(const loss_rows *r, const fc_cross_entropy *w, int64_t i, int64_t class) {
    return r->beside ? class * w->inner + i : i * w->classes + class;
}

static double score(const loss_job *job, const loss_rows *r, int64_t i, int64_t class) {
    const fc_cross_entropy *w = job->work;
    return value_at(w->dtype, r->src, i * (r->beside ? w->step[2] : w->step[0]) + class * w->step[1]);
}

static double loss_of(const loss_job *job, const loss_rows *r, int64_t i, int64_t label, double log_sum) {
    const fc_cross_entropy *w = job->work;
    const double own = weight_of(w, label) * (1 - w->smoothing);
    double loss = own != 0 ? own * (log_sum - score(job, r, i, label)) : 0;
    for (int64_t c = 0; c < (w->smoothing != 0 ? w->classes : 0); c++) {
        const double even = job->even * weight_of(w, c);
        if (even != 0) loss += even * (log_sum - score(job, r, i, c));
    }
    return loss;
}

// The gradient of a row's loss, the weight of its own class, and whether any class counts: where none does, the gradient
// is 0 whatever the numbers are, and so in a mean of nothing.
static double gradient_of(const fc_cross_entropy *w, int64_t row) {
    return w->grad[w->each ? row : 0] / (w->mean ? w->divisor : 1);
}

static double own_of(const fc_cross_entropy *w, int64_t label) {
    return label == w->ignore ? 0 : weight_of(w, label) * (1 - w->smoothing);
}

static int counts(const loss_job *job, int64_t label) {
    const fc_cross_entropy *w = job->work;
    if (label == w->ignore || (w->mean && w->divisor == 0)) return 0;
    return own_of(w, label) != 0 || job->even * job->weights != 0;
}

static void gradients(const loss_job *job, const loss_rows *r, void *d, const void *sum) {
    const fc_cross_entropy *w = job->work;
    double factor[FC_LOSS_ROWS]; // of dtype
    for (int64_t i = 0; i < r->count; i++) {
        const double all = own_of(w, w->target[r->first + i]) + job->even * job->weights;
        set_value(w->dtype, factor, i, gradient_of(w, r->first + i) * all / value_at(w->dtype, sum, i));
    }
    multiply(job, r, d, factor);
    for (int64_t i = 0; i < r->count; i++) {
        const int64_t label = w->target[r->first + i], there = counts(job, label);
        const double g = gradient_of(w, r->first + i);
        for (int64_t c = 0; c < (!there || w->smoothing != 0 ? w->classes : 0); c++) {
            const int64_t at = place_of(r, w, i, c);
            set_value(w->dtype, d, at, there ? value_at(w->dtype, d, at) - g * job->even * weight_of(w, c) : 0);
        }
        if (!there) continue;
        const int64_t at = place_of(r, w, i, label);
        set_value(w->dtype, d, at, value_at(w->dtype, d, at) - g * own_of(w, label));
    }
}

static loss_rows rows_of(const loss_job *job, int64_t task) {
    const fc_cross_entropy *w = job->work;
    const int64_t n = task / job->parts, part = task % job->parts * FC_LOSS_ROWS;
    if (w->inner > 1)
        return (loss_rows){
            .beside = 1,
            .first = n * w->inner + part,
            .count = fc_min(FC_LOSS_ROWS, w->inner - part),
            .src = fc_at(w->src, n * w->step[0] + part * w->step[2], w->dtype),
            .offset = n * w->classes * w->inner + part,
        };
    const int64_t first = task * FC_LOSS_ROWS;
    return (loss_rows){
        .first = first,
        .count = fc_min(FC_LOSS_ROWS, w->outer - first),
        .src = fc_at(w->src, first * w->step[0], w->dtype),
        .offset = first * w->classes,
    };
}

static void loss_task(void *context, int64_t task, int thread) {
    (void)thread;
    const loss_job *job = context;
    const fc_cross_entropy *w = job->work;
    const loss_rows r = rows_of(job, task);
    double largest[FC_LOSS_ROWS], sum[FC_LOSS_ROWS]; // of dtype
    char *d = w->d ? (char *)w->d + r.offset * fc_bytes(w->dtype) : NULL;
    fold(job, &r, FC_FOLD_MAX, NULL, NULL, largest);
    fold(job, &r, FC_FOLD_EXP, largest, d, sum);
    for (int64_t i = 0; i < (w->loss ? r.count : 0); i++) {
        const int64_t label = w->target[r.first + i];
        const double log_sum = value_at(w->dtype, largest, i) + log(value_at(w->dtype, sum, i));
        w->loss[r.first + i] = label == w->ignore ? 0 : loss_of(job, &r, i, label, log_sum);
    }
    if (d) gradients(job, &r, d, sum);
}

int64_t fc_cross_entropy_run(fc_cross_entropy *w, fc_isa isa, int threads) {
    const int64_t rows = w->outer * w->inner;
    loss_job job = {.work = w, .kernels = fc_kernels_for(isa, (fc_dtype)w->dtype)};
    w->total = w->divisor = 0;
    for (int64_t i = 0; i < rows; i++) {
        if (w->target[i] == w->ignore) continue;
        if (w->target[i] < 0 || w->target[i] >= w->classes) return i;
        w->divisor += weight_of(w, w->target[i]);
    }
    for (int64_t c = 0; c < w->classes; c++) job.weights += weight_of(w, c);
    job.even = w->classes ? w->smoothing / (double)w->classes : 0;
    job.parts = w->inner > 1 ? fc_ceil_div(w->inner, FC_LOSS_ROWS) : 1;
    const int64_t tasks = w->inner > 1 ? w->outer * job.parts : fc_ceil_div(rows, FC_LOSS_ROWS);
    const double seconds = (double)rows * (20e-9 + (double)w->classes * 3e-9 / (double)job.kernels->vl);
    fc_parallel_exact(tasks, fc_worthwhile_threads(seconds, threads), loss_task, &job);
    for (int64_t i = 0; i < (w->loss ? rows : 0); i++) w->total += w->loss[i];
    return -1;
}
