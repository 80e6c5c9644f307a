// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_memory.c - allocations that fail, each in its turn, while a problem is planned, scheduled, packed and run: either
// all is well or the status is FC_NO_MEMORY, and nothing stays allocated.  It stands between the core and glibc's
// allocator, and so does nothing elsewhere or where a sanitizer stands there.
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

// How many allocations succeed before one fails; none does where that is negative.  Blocks in use.
static long before_failure = -1, blocks;

static void *counted(void *memory) {
    blocks += memory != NULL;
    return memory;
}

static int fails(void) { return before_failure >= 0 && before_failure-- == 0; }

void *malloc(size_t bytes) { return fails() ? NULL : counted(__libc_malloc(bytes)); }

void *calloc(size_t count, size_t bytes) { return fails() ? NULL : counted(__libc_calloc(count, bytes)); }

void *realloc(void *old, size_t bytes) {
    if (fails()) return NULL;
    void *memory = __libc_realloc(old, bytes);
    blocks += memory && !old;
    return memory;
}

void *aligned_alloc(size_t align, size_t bytes) { return fails() ? NULL : counted(__libc_memalign(align, bytes)); }

void free(void *memory) {
    blocks -= memory != NULL;
    __libc_free(memory);
}

typedef struct shape {
    int64_t batch, groups, in_channels, out_channels, in, kernel, stride, dilation, pad;
} shape;

// Plain; grouped; with phases, of which some have no taps; of one tap; with bands; of many parts.
static const shape SHAPES[] = {
    {2, 1, 5, 9, 14, 3, 1, 1, 1}, {2, 6, 1, 1, 11, 3, 1, 1, 1},  {2, 1, 3, 4, 23, 2, 5, 1, 0},
    {2, 1, 8, 8, 6, 1, 1, 1, 0},  {1, 1, 2, 2, 3, 40, 1, 1, 39}, {1, 1, 1, 2, 45, 5, 5, 1, 0},
};
enum { LARGEST = 1 << 16 };

static float src[LARGEST], wei[LARGEST], bias[64], dst[LARGEST];

static fc_problem problem_of(const shape *s, int32_t direction, int32_t dtype) {
    const int64_t out = (s->in + 2 * s->pad - (s->kernel - 1) * s->dilation - 1) / s->stride + 1;
    const int64_t taps = s->kernel * s->kernel, in_plane = s->in * s->in, out_plane = out * out;
    const fc_axis axis = {s->in, out, s->kernel, s->stride, s->dilation, s->pad};
    return (fc_problem){
        .batch = s->batch,
        .groups = s->groups,
        .in_channels = s->in_channels,
        .out_channels = s->out_channels,
        .axis = {{1, 1, 1, 1, 1, 0}, axis, axis},
        .src = {s->in_channels * in_plane, s->groups * s->in_channels * in_plane, in_plane, {in_plane, s->in, 1}},
        .wei = {s->out_channels * s->in_channels * taps, s->in_channels * taps, taps, {taps, s->kernel, 1}},
        .dst = {s->out_channels * out_plane, s->groups * s->out_channels * out_plane, out_plane, {out_plane, out, 1}},
        .direction = direction,
        .types = fc_types_of(dtype),
        .low = -INFINITY,
        .high = INFINITY,
    };
}

static fc_status plan_and_run(const fc_problem *problem, const fc_options *options) {
    char message[FC_MESSAGE];
    fc_plan *plan;
    fc_status status = fc_plan_create(&(fc_op){FC_CONV, problem}, options, &plan, message);
    if (status != FC_OK) return plan ? FC_INVALID : status;
    const fc_schedule *schedule;
    status = fc_plan_schedule(plan, 1, &schedule);
    void *packed = fc_memory_acquire(fc_plan_packed_bytes(plan)), *scratch = NULL;
    if (status == FC_OK) scratch = fc_memory_acquire(fc_schedule_scratch_bytes(schedule));
    if (status == FC_OK) status = packed && scratch ? fc_plan_pack(plan, wei, bias, packed, 1) : FC_NO_MEMORY;
    const void *weights = fc_plan_packed_bytes(plan) ? packed : wei;
    if (status == FC_OK)
        status = fc_schedule_run(schedule, &(fc_operands){.src = src, .wei = weights, .dst = dst}, scratch);
    if (scratch) fc_memory_release(scratch, fc_schedule_scratch_bytes(schedule));
    fc_memory_release(packed, fc_plan_packed_bytes(plan));
    fc_plan_destroy(plan);
    return status;
}

// Where the first to fail is one allocation later each time, until none does.
static int check(const fc_problem *problem, const fc_options *options, long *failed) {
    if (plan_and_run(problem, options) == FC_UNSUPPORTED) return 0;
    for (long position = 0; position < 100000; position++) {
        const long start = blocks;
        before_failure = position;
        const fc_status status = plan_and_run(problem, options);
        const int all = before_failure >= 0;
        before_failure = -1;
        if (blocks != start || status != (all ? FC_OK : FC_NO_MEMORY)) {
            printf("allocation %ld: status %d, %ld blocks kept\n", position, (int)status, blocks - start);
            return 1;
        }
        if (all) return 0;
        ++*failed;
    }
    return 1;
}

int main(void) {
    int failures = 0;
    long failed = 0;
    for (const shape *s = SHAPES; s < SHAPES + sizeof SHAPES / sizeof *SHAPES; s++)
        for (int32_t direction = FC_FORWARD; direction <= FC_BACKWARD_WEIGHT; direction++)
            for (int half = 0; half <= (direction == FC_FORWARD); half++)
                for (fc_algo_id algorithm = FC_AUTO; algorithm < FC_ALGOS; algorithm++)
                    for (int invariant = 0; invariant < 2; invariant++) {
                        fc_options options = options_for(fc_isa_best(), algorithm);
                        options.batch_invariant = invariant;
                        const fc_problem problem = problem_of(s, direction, half ? FC_F16 : FC_F32);
                        if (check(&problem, &options, &failed)) {
                            failures++;
                            printf("shape %d, direction %d, half %d, algorithm %d\n", (int)(s - SHAPES), (int)direction,
                                   half, (int)algorithm);
                        }
                    }
    printf("%ld allocations failed, %d not as they should\n", failed, failures);
    return failures != 0;
}

#else

int main(void) {
    puts("the allocator of this system is not stood in for");
    return 0;
}

#endif
