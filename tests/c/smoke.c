// SPDX-License-Identifier: BSD-3-Clause
//
// smoke.c - the C core without Python: every algorithm of every instruction set this machine has, in both dtypes, both
// layouts and all three directions, against the reference algorithm in float64.  For machines where only a C program
// runs, such as qemu-user (tools/check_aarch64.sh), and for sanitizers; the test suite proper is in Python.
#define _POSIX_C_SOURCE 200809L // posix_memalign
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
    int64_t batch, groups, in_channels, out_channels, height, width, kernel, stride, dilation, pad;
} shape;

// Sizes on both sides of the tiles, primes, and each feature alone.
static const shape SHAPES[] = {
    {1, 1, 1, 1, 5, 5, 3, 1, 1, 0},
    {2, 1, 3, 8, 17, 19, 3, 1, 1, 1},
    {1, 1, 16, 33, 14, 14, 3, 1, 1, 1},
    {1, 1, 64, 31, 13, 13, 3, 1, 1, 1},
    {2, 1, 37, 16, 9, 11, 1, 1, 1, 0},
    {1, 1, 24, 64, 8, 8, 1, 2, 1, 0},
    {1, 1, 5, 7, 23, 23, 5, 2, 1, 2},
    {1, 1, 6, 6, 15, 15, 3, 1, 2, 2},
    {1, 4, 3, 5, 12, 12, 3, 1, 1, 1},
    {2, 17, 1, 1, 15, 17, 3, 1, 1, 1},
    {1, 32, 1, 1, 14, 14, 3, 2, 1, 1},
    {1, 1, 3, 13, 31, 29, 7, 2, 1, 3},
    {1, 1, 300, 9, 6, 6, 3, 1, 1, 1},
    {0, 1, 3, 4, 8, 8, 3, 1, 1, 1},
    // Groups of a few channels, as many outputs.
    {1, 5, 2, 2, 9, 9, 3, 1, 1, 1},
    {1, 3, 4, 4, 7, 7, 3, 2, 1, 1},
    {2, 3, 8, 8, 6, 5, 3, 1, 2, 1},
    {1, 2, 16, 16, 5, 5, 5, 1, 1, 2},
    // Kernel rows joined or not, longer than a block of k; images read where they lie.
    {1, 1, 100, 9, 8, 8, 3, 1, 1, 0},
    {1, 1, 100, 9, 9, 9, 3, 2, 2, 0},
    {1, 1, 300, 5, 7, 7, 3, 3, 1, 0},
    {1, 1, 3, 17, 35, 35, 11, 4, 1, 0},
    {1, 1, 86, 5, 8, 9, 3, 3, 1, 1},
    // Winograd: 5x5 kernels; several chunks of few channels and of many.
    {1, 1, 9, 17, 13, 11, 5, 1, 1, 2},
    {1, 1, 33, 5, 60, 61, 3, 1, 1, 1},
    {1, 1, 720, 1, 34, 33, 3, 1, 1, 1},
    // Kernels beyond the image; strides beyond the kernel, with gaps; as many phases as taps.
    {2, 1, 3, 17, 3, 4, 12, 1, 1, 11},
    {2, 2, 3, 4, 13, 11, 2, 5, 2, 1},
    {1, 1, 5, 3, 18, 20, 6, 6, 1, 0},
};
enum { SHAPES_COUNT = sizeof SHAPES / sizeof *SHAPES, THREADS = 2 };

static fc_view view(int64_t groups, int64_t channels, int64_t height, int64_t width, int nhwc) {
    const int64_t plane = height * width, all = groups * channels;
    if (nhwc) return (fc_view){channels, plane * all, 1, {plane * all, width * all, all}};
    return (fc_view){channels * plane, all * plane, plane, {plane, width, 1}};
}

// One run of the core.
typedef struct job {
    const shape *shape;
    int32_t dtype, direction;
    int nhwc;
} job;

// docs/performance.md: the largest error relative to the largest result, float32 against float64.
static double forward_bound(fc_algo_id algorithm, const job *job) {
    if (job->dtype == FC_F64) return 1e-14;
    switch (algorithm) {
    case FC_WINOGRAD_F2:
        return job->shape->kernel == 5 ? 5e-6 : 1e-6; // F(2,5) has as many points as F(4,3)
    case FC_WINOGRAD_F3:
    case FC_WINOGRAD_F4:
        return 5e-6;
    case FC_WINOGRAD_F6:
        return 3e-5;
    default:
        return 5e-7;
    }
}

// A weight's gradient sums a product per pixel, none of them negative: rounding errors walk on.
static double bound(fc_algo_id algorithm, const job *job) {
    const double pixels = (double)(job->shape->batch * job->shape->height * job->shape->width);
    const double growth = job->direction == FC_BACKWARD_WEIGHT ? fmax(1, sqrt(pixels / 100)) : 1;
    return growth * forward_bound(algorithm, job);
}

static fc_problem problem_of(const job *job) {
    const shape *s = job->shape;
    const int64_t reach = (s->kernel - 1) * s->dilation + 1;
    const int64_t h = (s->height + 2 * s->pad - reach) / s->stride + 1;
    const int64_t w = (s->width + 2 * s->pad - reach) / s->stride + 1;
    const int64_t taps = s->kernel * s->kernel;
    return (fc_problem){
        .batch = s->batch,
        .groups = s->groups,
        .in_channels = s->in_channels,
        .out_channels = s->out_channels,
        .axis = {{1, 1, 1, 1, 1, 0},
                 {s->height, h, s->kernel, s->stride, s->dilation, s->pad},
                 {s->width, w, s->kernel, s->stride, s->dilation, s->pad}},
        .src = view(s->groups, s->in_channels, s->height, s->width, job->nhwc),
        .wei = {s->out_channels * s->in_channels * taps, s->in_channels * taps, taps, {taps, s->kernel, 1}},
        .dst = view(s->groups, s->out_channels, h, w, job->nhwc),
        .types = fc_types_of(job->dtype),
        .direction = job->direction,
        .low = -INFINITY,
        .high = INFINITY,
    };
}

// NaN, as many bytes and no more: AddressSanitizer sees what reads or writes on.
static void *allocate(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes)) abort();
    return memory ? memset(memory, 0xff, bytes) : NULL;
}

static void *allocate_tensor(int64_t count, int32_t dtype) {
    return allocate((size_t)count * (dtype == FC_F64 ? sizeof(double) : sizeof(float)));
}

// The same numbers in either dtype: they are floats.
static void *random_tensor(int64_t count, int32_t dtype, double low, double scale, uint32_t seed) {
    void *tensor = allocate_tensor(count, dtype);
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        const double value = (seed >> 8) / 16777216.0 * 2 - 1;
        const float x = (float)((value > low ? value : low) * scale);
        if (dtype == FC_F64) ((double *)tensor)[i] = x;
        else ((float *)tensor)[i] = x;
    }
    return tensor;
}

// The output, or NULL when the algorithm refuses.  Output and scratch start as NaN.
static void *run(const job *job, fc_isa isa, fc_algo_id algorithm, int64_t *count) {
    const fc_problem p = problem_of(job);
    const shape *s = job->shape;
    const int64_t taps = s->kernel * s->kernel, out_channels = s->groups * s->out_channels;
    const int64_t src_count = s->batch * s->groups * s->in_channels * s->height * s->width;
    const int64_t wei_count = out_channels * s->in_channels * taps;
    const int64_t dst_count = s->batch * out_channels * p.axis[1].out * p.axis[2].out;

    void *src = random_tensor(src_count, job->dtype, 0, 1, 1);
    void *wei = random_tensor(wei_count, job->dtype, -1, sqrt(6.0 / (double)(s->in_channels * taps)), 2);
    void *dst = random_tensor(dst_count, job->dtype, 0, 1, 3);
    void *bias = random_tensor(out_channels, job->dtype, -1, 0.1, 4);
    const void *source = src, *weights = wei;
    *count = dst_count;
    if (job->direction == FC_BACKWARD_INPUT) source = dst, *count = src_count;
    if (job->direction == FC_BACKWARD_WEIGHT) weights = dst, *count = wei_count;

    void *output = allocate_tensor(*count, job->dtype);
    fc_status status;
    const fc_operands operands = {.src = source, .dst = output};
    const int served = run_op(&(fc_op){FC_CONV, &p}, isa, algorithm, weights,
                              job->direction == FC_FORWARD ? bias : NULL, operands, THREADS, &status);
    free(src), free(wei), free(dst), free(bias);
    if (served != FC_ALGOS) return output;
    free(output);
    return NULL;
}

static double element(const void *tensor, int32_t dtype, int64_t i) {
    return dtype == FC_F64 ? ((const double *)tensor)[i] : ((const float *)tensor)[i];
}

// max |got - expected| / max |expected|; NaN counts as infinitely wrong.
static double error(const void *got, int32_t dtype, const double *expected, int64_t count) {
    double difference = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        const double d = fabs(element(got, dtype, i) - expected[i]);
        difference = d <= difference ? difference : isnan(d) ? INFINITY : d;
        largest = fmax(largest, fabs(expected[i]));
    }
    return largest > 0 ? difference / largest : difference;
}

// Runs every algorithm on one problem; counts who served it and returns how many were wrong.  The reference, which knows
// no instruction sets, is tried with those of one alone.
static int check(const job *job, fc_isa isa, const double *expected, int served[FC_ALGOS]) {
    static const char *const directions[] = {"forward", "input gradient", "weight gradient"};
    int wrong = 0;
    for (fc_algo_id algorithm = 0; algorithm < FC_ALGOS; algorithm++) {
        if (algorithm == FC_REFERENCE && (isa != FC_SCALAR || job->dtype == FC_F64)) continue;
        int64_t count;
        void *got = run(job, isa, algorithm, &count);
        if (!got) continue;
        served[algorithm]++;
        const double e = error(got, job->dtype, expected, count);
        if (!(e <= bound(algorithm, job))) {
            wrong++;
            printf("%s: shape %d, %s, %s, %s, algorithm %d: error %g\n", fc_isa_name(isa), (int)(job->shape - SHAPES),
                   job->dtype == FC_F64 ? "f64" : "f32", job->nhwc ? "NHWC" : "NCHW", directions[job->direction],
                   (int)algorithm, e);
        }
        free(got);
    }
    return wrong;
}

// Runs every instruction set and dtype on one problem, whose numbers are the same in each.
static int check_all(const shape *s, int32_t direction, int nhwc, int served[FC_ISAS][FC_ALGOS]) {
    int64_t count;
    double *expected = run(&(job){s, FC_F64, direction, nhwc}, FC_SCALAR, FC_REFERENCE, &count);
    int wrong = 0;
    for (fc_isa isa = FC_SCALAR; isa < FC_ISAS; isa++)
        for (int32_t dtype = 0; dtype < FC_DTYPES && fc_isa_supported(isa); dtype++)
            wrong += check(&(job){s, dtype, direction, nhwc}, isa, expected, served[isa]);
    free(expected);
    return wrong;
}

int main(void) {
    int failures = 0, served[FC_ISAS][FC_ALGOS] = {0};
    for (const shape *s = SHAPES; s < SHAPES + SHAPES_COUNT; s++)
        for (int32_t direction = FC_FORWARD; direction <= FC_BACKWARD_WEIGHT; direction++)
            for (int nhwc = 0; nhwc < 2; nhwc++) failures += check_all(s, direction, nhwc, served);
    for (fc_isa isa = FC_SCALAR; isa < FC_ISAS; isa++) {
        if (!fc_isa_supported(isa)) continue;
        printf("%-7s problems served by each algorithm:", fc_isa_name(isa));
        for (int i = 0; i < FC_ALGOS; i++) {
            printf(" %d", served[isa][i]);
            failures += served[isa][i] == 0 && (i != FC_REFERENCE || isa == FC_SCALAR);
        }
        printf("\n");
    }
    printf(failures ? "%d failures\n" : "all agree\n", failures);
    return failures != 0;
}
