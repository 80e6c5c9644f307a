// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_net.c - networks without Python: a convolution, two poolings of its result and the map that adds them, in one
// schedule over a table of arrays, for one thread and three, every algorithm, instruction set and dtype.  The bits are
// those of the plans one by one.  As smoke.c, for machines where only a C program runs.
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2, IN = 7, OUT = 33, SIZE = 30, HALF = SIZE / 2, KERNEL = 3 };
enum { PIXELS = SIZE * SIZE, QUARTER = HALF * HALF, IMAGE = BATCH * OUT * PIXELS, POOLED = BATCH * OUT * QUARTER };

// The table: what lies between the first step and the last shares one array, the arena.
enum { SRC = FC_NET_ARRAYS, PACKED, ARENA, DST, ARRAYS };
enum { CONV, HIGHEST, MEAN, SUM, STEPS };

static double src[BATCH * IN * PIXELS], wei[OUT * IN * KERNEL * KERNEL], bias[OUT];
static double image[IMAGE], highest[POOLED], mean[POOLED], expected[POOLED], dst[POOLED], arena[IMAGE + 2 * POOLED];

static int widest; // of the schedules that ran

static void fill(int dtype, double *array, int64_t count) {
    static uint32_t state = 1;
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        const double value = (double)(state >> 8) * 0x1p-23 - 1;
        if (dtype == FC_F64) array[i] = value;
        else ((float *)array)[i] = (float)value;
    }
}

static fc_view planes(int64_t channels, int64_t size) {
    return (fc_view){0, channels * size * size, size * size, {size * size, size, 1}};
}

static fc_pool pooling(int dtype, fc_pool_kind kind) {
    const fc_axis axis = {.in = SIZE, .out = HALF, .kernel = 2, .stride = 2, .dilation = 1};
    return (fc_pool){.batch = BATCH,
                     .channels = OUT,
                     .axis = {{1, 1, 1, 1, 1, 0}, axis, axis},
                     .src = planes(OUT, SIZE),
                     .dst = planes(OUT, HALF),
                     .dtype = dtype,
                     .kind = kind};
}

static fc_place behind(int base, int64_t bytes) { return (fc_place){base, base, bytes}; }

static int try_net(int dtype, fc_isa isa, fc_algo_id algorithm) {
    const int64_t bytes = fc_bytes(dtype);
    const fc_axis axis = {.in = SIZE, .out = SIZE, .kernel = KERNEL, .stride = 1, .dilation = 1, .pad = 1};
    const fc_problem conv = {
        .batch = BATCH,
        .groups = 1,
        .in_channels = IN,
        .out_channels = OUT,
        .axis = {{1, 1, 1, 1, 1, 0}, axis, axis},
        .src = planes(IN, SIZE),
        .wei = {0, IN * KERNEL * KERNEL, KERNEL * KERNEL, {KERNEL * KERNEL, KERNEL, 1}},
        .dst = planes(OUT, SIZE),
        .types = fc_types_of(dtype),
        .low = 0,
        .high = INFINITY,
    };
    const fc_pool maxima = pooling(dtype, FC_POOL_MAX), means = pooling(dtype, FC_POOL_AVG);
    const fc_map sum = {.dtype = dtype,
                        .rank = 1,
                        .others = 1,
                        .count = 1,
                        .axis = {{POOLED, 1, 1, {1}}},
                        .op = {{.code = FC_MAP_ADD}}};
    const fc_op ops[STEPS] = {{FC_CONV, &conv}, {FC_POOL, &maxima}, {FC_POOL, &means}, {FC_MAP, &sum}};

    fill(dtype, src, BATCH * IN * PIXELS);
    fill(dtype, wei, OUT * IN * KERNEL * KERNEL);
    fill(dtype, bias, OUT);
    memset(expected, 0xff, sizeof expected);
    const fc_operands operands[STEPS] = {{.src = src, .dst = image},
                                         {.src = image, .dst = highest},
                                         {.src = image, .dst = mean},
                                         {.src = highest, .dst = expected, .other = {mean}}};
    fc_step steps[STEPS] = {0};
    for (int i = 0; i < STEPS; i++) {
        const fc_algo_id chosen = i == CONV ? algorithm : FC_AUTO;
        const fc_options options = options_for(isa, chosen);
        fc_status status;
        char message[FC_MESSAGE];
        fc_plan *plan;
        if (run_op(&ops[i], isa, chosen, wei, bias, operands[i], 1, &status) == FC_ALGOS) return 0;
        if (status != FC_OK || fc_plan_create(&ops[i], &options, &plan, message) != FC_OK) exit(2);
        steps[i].plan = plan;
    }
    const fc_place conved = behind(ARENA, 0), most = behind(ARENA, IMAGE * bytes);
    const fc_place averaged = behind(ARENA, (IMAGE + POOLED) * bytes);
    steps[CONV].at = (fc_places){.src = behind(SRC, 0), .wei = behind(PACKED, 0), .dst = conved};
    steps[HIGHEST].at = (fc_places){.src = conved, .dst = most};
    steps[MEAN].at = (fc_places){.src = conved, .dst = averaged};
    steps[SUM].at = (fc_places){.src = most, .dst = behind(DST, 0), .other = {averaged}};
    void *packed = poisoned(fc_plan_packed_bytes(steps[CONV].plan));
    if (fc_plan_pack(steps[CONV].plan, wei, bias, packed, 1) != FC_OK) exit(2);

    for (int threads = 1; threads <= 3; threads += 2) {
        fc_net *net;
        if (fc_net_create(steps, STEPS, threads, &net) != FC_OK) exit(2);
        if (fc_net_threads(net) < 1 || fc_net_threads(net) > threads || fc_net_waves(net) < STEPS) exit(2);
        if (fc_net_threads(net) > widest) widest = fc_net_threads(net);
        void *scratch = poisoned(fc_net_scratch_bytes(net));
        double *starts = calloc((size_t)fc_net_waves(net) + 1, sizeof *starts), seconds[STEPS], total = 0;
        if (!starts) exit(2);
        char *const arrays[ARRAYS] = {NULL, scratch, (char *)src, packed, (char *)arena, (char *)dst};
        for (int timed = 0; timed < 2; timed++) {
            memset(arena, 0xff, sizeof arena);
            memset(dst, 0xff, sizeof dst);
            for (int i = 0; i < STEPS; i++) seconds[i] = -1;
            if (fc_net_run(net, arrays, timed ? starts : NULL, seconds) != FC_OK) exit(2);
            if (memcmp(dst, expected, sizeof dst) != 0) {
                printf("a network of dtype %d on %s with algorithm %d has other bits in %d threads\n", dtype,
                       fc_isa_name(isa), (int)algorithm, threads);
                return 1;
            }
            for (int i = 0; i < STEPS; i++) {
                total += seconds[i];
                if (timed ? seconds[i] >= 0 : seconds[i] == -1) continue;
                printf("step %d of a network took %g seconds\n", i, seconds[i]);
                return 1;
            }
        }
        total += STEPS; // of the run that was not timed
        if (!(fabs(total - (starts[fc_net_waves(net)] - starts[0])) < 1e-9)) {
            printf("the steps of a network took %g seconds together, and it %g\n", total,
                   starts[fc_net_waves(net)] - starts[0]);
            return 1;
        }
        free(starts);
        fc_memory_release(scratch, fc_net_scratch_bytes(net));
        fc_net_destroy(net);
    }
    fc_memory_release(packed, fc_plan_packed_bytes(steps[CONV].plan));
    for (int i = 0; i < STEPS; i++) fc_plan_destroy((fc_plan *)steps[i].plan);
    return 0;
}

int main(void) {
    int tried = 0;
    for (int isa = 0; isa < FC_ISAS; isa++)
        for (int dtype = 0; dtype < FC_DTYPES && fc_isa_supported((fc_isa)isa); dtype++)
            for (int algorithm = FC_AUTO; algorithm < FC_ALGOS; algorithm++, tried++)
                if (try_net(dtype, (fc_isa)isa, (fc_algo_id)algorithm)) return 1;
    if (widest < 3) {
        printf("no network was worth three threads\n");
        return 1;
    }
    printf("%d networks have the bits of their steps\n", tried);
    return 0;
}
