// SPDX-License-Identifier: BSD-3-Clause
//
// update.c - a step of an optimiser on all arrays of a network in one parallel region: stretches of elements are its tasks,
// whichever array they belong to, since most arrays are small and a few are large.
#include "core/plan.h"
#include "fastconv.h"

enum { FC_UPDATE_TASK = 16384 }; // elements: the stretches of five arrays lie in the second-level cache

typedef struct update_job {
    const fc_update_arrays *arrays;
    int64_t count;
    fc_isa isa;
} update_job;

static int64_t tasks_of(const fc_update_arrays *a) { return fc_ceil_div(a->count, FC_UPDATE_TASK); }

static void *behind(const void *array, int64_t bytes) { return array ? (char *)array + bytes : NULL; }

static void update_task(void *context, int64_t task, int thread) {
    (void)thread;
    const update_job *job = context;
    int64_t low = 0, high = job->count; // of the last array whose first task is no later than this one
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        *(job->arrays[middle].task <= task ? &low : &high) = middle;
    }
    const fc_update_arrays *a = &job->arrays[low];
    const int64_t first = (task - a->task) * FC_UPDATE_TASK, bytes = first * fc_bytes(a->dtype);
    fc_update_work work = {
        .rule = a->rule,
        .fresh = a->fresh,
        .count = fc_min(FC_UPDATE_TASK, a->count - first),
        .p = behind(a->p, bytes),
        .g = behind(a->g, bytes),
    };
    for (int s = 0; s < FC_UPDATE_STATES; s++) work.state[s] = behind(a->state[s], bytes);
    fc_kernels_for(job->isa, (fc_dtype)a->dtype)->update(&work);
}

void fc_update(fc_update_arrays *arrays, int64_t count, fc_isa isa, int threads) {
    update_job job = {arrays, count, isa};
    int64_t tasks = 0;
    double bytes = 0;
    for (int64_t i = 0; i < count; i++) {
        arrays[i].task = tasks;
        tasks += tasks_of(&arrays[i]);
        bytes += 20.0 * (double)arrays[i].count;
    }
    fc_parallel(tasks, fc_worthwhile_threads(bytes / 2e10, threads), update_task, &job);
}
