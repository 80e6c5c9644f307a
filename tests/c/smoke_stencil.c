// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_stencil.c - stencils without Python: every instruction set of this machine against the sum as it is written, in
// both dtypes, dense and separable, with every border, on random problems whose sums are exact.  As smoke.c, for
// machines where only a C program runs.
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROBLEMS = 1500, ROOM = 64 * 1024 };

static uint32_t state = 1;

static int64_t below(int64_t limit) {
    state = state * 1664525u + 1013904223u;
    return (int64_t)(state >> 8) % limit;
}

// Borders step by step: what the core computes by remainders.
static int64_t inside(const fc_stencil_axis *a, int64_t i) {
    while (i < 0 || i >= a->in) switch (a->border) {
        case FC_BORDER_CONSTANT:
            return -1;
        case FC_BORDER_NEAREST:
            i = i < 0 ? 0 : a->in - 1;
            break;
        case FC_BORDER_REFLECT:
            i = i < 0 ? -1 - i : 2 * a->in - 1 - i;
            break;
        case FC_BORDER_MIRROR:
            i = a->in == 1 ? 0 : i < 0 ? -i : 2 * a->in - 2 - i;
            break;
        default:
            i += i < 0 ? a->in : -a->in;
        }
    return i;
}

static double value(const fc_stencil *s, const void *array, int64_t i) {
    return s->dtype == FC_F64 ? ((const double *)array)[i] : (double)((const float *)array)[i];
}

static void set(const fc_stencil *s, void *array, int64_t i, double x) {
    if (s->dtype == FC_F64) ((double *)array)[i] = x;
    else ((float *)array)[i] = (float)x;
}

static double weight(const fc_stencil *s, const void *wei, const int64_t *k, int64_t flat) {
    const int64_t rows = s->axis[s->rank - 2].kernel;
    return s->separable ? value(s, wei, k[s->rank - 2]) * value(s, wei, rows + k[s->rank - 1]) : value(s, wei, flat);
}

// The output at `o`, from an input that `fill` surrounds.
static double expected(const fc_stencil *s, const void *src, const void *wei, const int64_t *o, int64_t taps) {
    double sum = 0;
    for (int64_t t = 0; t < taps; t++) {
        int64_t k[FC_RANK], rest = t, at = 0;
        int outside = 0;
        for (int i = s->rank - 1; i >= 0; i--) {
            const fc_stencil_axis *a = &s->axis[i];
            k[i] = rest % a->kernel;
            rest /= a->kernel;
            const int64_t from = inside(a, o[i] + a->offset + k[i]);
            outside |= from < 0;
            at += from * a->src;
        }
        sum += weight(s, wei, k, t) * (outside ? s->fill : value(s, src, at));
    }
    return sum;
}

static int try_problem(int64_t number) {
    static double src[ROOM], wei[ROOM], dst[ROOM], right[ROOM];
    char message[FC_MESSAGE];
    fc_stencil s = {.rank = (int32_t)(2 + below(3)),
                    .dtype = (int32_t)below(FC_DTYPES),
                    .separable = (int32_t)below(2),
                    .fill = (double)below(3)};
    if (s.dtype == FC_F64) s.unfused = (int32_t)below(2);
    int64_t in = 1, out = 1, taps = 1;
    for (int i = s.rank - 1; i >= 0; i--) {
        const int plane = i >= s.rank - 2;
        fc_stencil_axis *a = &s.axis[i];
        a->in = 1 + below(i == s.rank - 1 ? 70 : plane ? 20 : 4);
        a->kernel = s.separable && !plane ? 1 : 1 + below(plane ? 9 : 3);
        a->out = 1 + below(a->in + 4);
        a->offset = below(a->kernel + 2) - a->kernel;
        a->border = (int32_t)below(FC_BORDERS);
        a->src = in;
        a->dst = out;
        in *= a->in;
        out *= a->out;
        taps *= a->kernel;
    }
    const int64_t weights = s.separable ? s.axis[s.rank - 2].kernel + s.axis[s.rank - 1].kernel : taps;
    for (int64_t i = 0; i < in; i++) set(&s, src, i, (double)(below(9) - 4));
    for (int64_t i = 0; i < weights; i++) set(&s, wei, i, (double)(below(9) - 4));
    for (int64_t i = 0; s.separable && i < s.axis[s.rank - 1].kernel; i++)
        s.fill_rows += s.fill * value(&s, wei, s.axis[s.rank - 2].kernel + i);
    const fc_op op = {FC_STENCIL, &s};
    if (fc_op_check(&op, message) != FC_OK) return printf("problem %d: %s\n", (int)number, message);
    fc_stencil rounded = s;
    rounded.unfused = 1;
    if ((fc_op_check(&(fc_op){FC_STENCIL, &rounded}, message) == FC_OK) != (s.dtype == FC_F64))
        return printf("problem %d: products of float32 rounded\n", (int)number);
    for (int64_t flat = 0; flat < out; flat++) {
        int64_t o[FC_RANK], rest = flat;
        for (int i = s.rank - 1; i >= 0; i--) {
            o[i] = rest % s.axis[i].out;
            rest /= s.axis[i].out;
        }
        right[flat] = expected(&s, src, wei, o, taps);
    }
    for (int isa = 0; isa < FC_ISAS; isa++) {
        if (!fc_isa_supported((fc_isa)isa)) continue;
        const int threads = 1 + (int)below(3);
        fc_status status;
        for (int64_t i = 0; i < out; i++) set(&s, dst, i, NAN);
        run_op(&op, (fc_isa)isa, FC_AUTO, wei, NULL, (fc_operands){.src = src, .dst = dst}, threads, &status);
        for (int64_t flat = 0; flat < out; flat++)
            if (value(&s, dst, flat) != right[flat])
                return printf("problem %d on %s: element %d is %g, not %g\n", (int)number, fc_isa_name((fc_isa)isa),
                              (int)flat, value(&s, dst, flat), right[flat]);
    }
    return 0;
}

int main(void) {
    for (int64_t i = 0; i < PROBLEMS; i++)
        if (try_problem(i)) return EXIT_FAILURE;
    printf("%d stencils: every instruction set agrees with the sum\n", PROBLEMS);
    return EXIT_SUCCESS;
}
