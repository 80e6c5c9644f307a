// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_half.c - float16: every number of every instruction set there and back, and every midpoint between neighbours
// with the float32 numbers beside it, in either mode for denormals.  As smoke.c, for machines where only a C program
// runs.  And which mixtures of types are planned.
#include "core/team.h"
#include "fastconv.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ALL = 1 << 16, FINITE = 0x7c00, POINTS = 3 };

static uint16_t halves[ALL], back[ALL];
static float wide[ALL], between[POINTS * FINITE];
static uint16_t rounded[POINTS * FINITE];

static double value_of(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 0x3ff;
    const double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return half >> 15 ? -size : size;
}

static int is_nan(uint16_t half) { return (half & 0x7fff) > FINITE; }

typedef struct job {
    const fc_kernels *kernels;
    int failures;
} job;

static void check(void *context, int64_t task, int thread) {
    (void)task, (void)thread;
    job *j = context;
    j->kernels->widen(halves, wide, ALL);
    j->kernels->narrow(wide, back, ALL);
    for (int i = 0; i < ALL; i++) {
        const int right = is_nan(halves[i])                ? isnan(wide[i]) && back[i] == (halves[i] | 0x200)
                          : (halves[i] & 0x7fff) == FINITE ? isinf(wide[i]) && back[i] == halves[i]
                                                           : wide[i] == value_of(halves[i]) && back[i] == halves[i];
        j->failures += !right || (signbit(wide[i]) != 0) != (halves[i] >> 15);
    }
    // The midpoint goes to the even neighbour; what is beside it, to the nearer one.
    for (int i = 0; i < FINITE; i++) {
        const double upper = i + 1 == FINITE ? 65536 : value_of((uint16_t)(i + 1));
        const float middle = (float)((value_of((uint16_t)i) + upper) / 2);
        between[POINTS * i] = nextafterf(middle, 0);
        between[POINTS * i + 1] = middle;
        between[POINTS * i + 2] = nextafterf(middle, INFINITY);
    }
    for (int odd = 0; odd < 5; odd++) { // ends that fill no vector
        memset(rounded, 0xff, sizeof rounded);
        j->kernels->narrow(between, rounded, POINTS * FINITE - odd);
        for (int i = 0; i < POINTS * FINITE; i++) {
            const int lower = i / POINTS, nearest = lower + (i % POINTS == 2 || (i % POINTS == 1 && lower % 2));
            j->failures += rounded[i] != (i < POINTS * FINITE - odd ? nearest : 0xffff);
        }
    }
}

// Of all mixtures of types those are planned for which there are kernels, and float16 forward only.
static int check_types(void) {
    const fc_axis one = {1, 1, 1, 1, 1, 0};
    fc_problem p = {.batch = 1, .groups = 1, .in_channels = 1, .out_channels = 1, .axis = {one, one, one}};
    enum { LEAST = -1, KINDS = FC_F16 + 3 };
    char message[FC_MESSAGE];
    int failures = 0;
    for (int i = 0; i < 3 * KINDS * KINDS * KINDS * KINDS; i++) {
        const int mixture = i / 3, source = mixture % KINDS + LEAST;
        p.direction = i % 3;
        p.types = (fc_types){source, mixture / KINDS % KINDS + LEAST, mixture / KINDS / KINDS % KINDS + LEAST,
                             mixture / KINDS / KINDS / KINDS + LEAST};
        const int sums = source == FC_F16 ? FC_F32 : source, known = source >= FC_F32 && source <= FC_F16;
        const int right = known && p.types.weight == source && p.types.accumulator == sums &&
                          p.types.destination == source && (source != FC_F16 || p.direction == FC_FORWARD);
        failures += fc_op_check(&(fc_op){FC_CONV, &p}, message) != (right ? FC_OK : FC_INVALID);
    }
    printf("types   %d failures\n", failures);
    return failures;
}

int main(void) {
    int failures = check_types();
    for (int i = 0; i < ALL; i++) halves[i] = (uint16_t)i;
    for (fc_isa isa = FC_SCALAR; isa < FC_ISAS; isa++) {
        if (!fc_isa_supported(isa)) continue;
        job j = {fc_kernels_for(isa, FC_F32), 0};
        fc_parallel(1, 1, check, &j); // denormals count as zero
        fc_parallel_exact(1, 1, check, &j);
        printf("%-7s %d failures\n", fc_isa_name(isa), j.failures);
        failures += j.failures;
    }
    return failures != 0;
}
