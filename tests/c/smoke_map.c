// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_map.c - activations without Python: every instruction set of this machine, in both dtypes, in place and not,
// against the C library's exp in double.  As smoke.c, for machines where only a C program runs.
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROOM = 20000 };

static uint32_t state = 1;

static double uniform(double most) {
    state = state * 1664525u + 1013904223u;
    return most * ((double)(state >> 8) * 0x1p-23 - 1);
}

static double expected(int activation, double x) {
    const double e = exp(-fabs(x)), sigmoid = (x > 0 ? 1 : e) / (1 + e);
    if (activation == FC_ACT_HARDSWISH) return x * (fmin(6, fmax(0, x + 3)) / 6);
    return activation == FC_ACT_SILU ? x * sigmoid : sigmoid;
}

static double value(int dtype, const void *array, int64_t i) {
    return dtype == FC_F64 ? ((const double *)array)[i] : (double)((const float *)array)[i];
}

static void set(int dtype, void *array, int64_t i, double x) {
    if (dtype == FC_F64) ((double *)array)[i] = x;
    else ((float *)array)[i] = (float)x;
}

static int same(double is, double right, double precision) {
    if (isnan(right)) return isnan(is);
    return is == right || fabs(is - right) <= 6 * precision * fabs(right) + 1e-40;
}

static int try_map(const fc_map *m, fc_isa isa, int in_place) {
    static double src[ROOM], dst[ROOM];
    static const double ends[] = {NAN, INFINITY, -INFINITY, 0, -3, 3, 1e30, -1e30};
    const double precision = m->dtype == FC_F64 ? 0x1p-53 : 0x1p-24;
    fc_status status;
    for (int64_t i = 0; i < m->count; i++) set(m->dtype, src, i, i % 20 ? uniform(i % 2 ? 5 : 90) : ends[i / 20 % 8]);
    for (int64_t i = 0; i < m->count; i++) set(m->dtype, dst, i, in_place ? value(m->dtype, src, i) : NAN);
    run_op(&(fc_op){FC_MAP, m}, isa, FC_AUTO, NULL, NULL, (fc_operands){.src = in_place ? dst : src, .dst = dst}, 2,
           &status);
    for (int64_t i = 0; i < m->count; i++) {
        const double x = value(m->dtype, src, i), right = expected(m->activation, x), is = value(m->dtype, dst, i);
        if (!same(is, right, precision))
            return printf("activation %d of %g on %s is %.17g, not %.17g\n", m->activation, x, fc_isa_name(isa), is,
                          right);
    }
    return 0;
}

int main(void) {
    static const int64_t counts[] = {0, 1, 3, 15, 16, 17, 400, 4096, 4097, ROOM};
    int tried = 0;
    for (int isa = 0; isa < FC_ISAS; isa++)
        for (int activation = FC_ACT_SILU; activation < FC_ACTIVATIONS; activation++)
            for (int form = 0; form < 4; form++)
                for (size_t i = 0; fc_isa_supported((fc_isa)isa) && i < sizeof counts / sizeof *counts; i++, tried++)
                    if (try_map(&(fc_map){counts[i], form / 2, activation}, (fc_isa)isa, form % 2)) return EXIT_FAILURE;
    printf("%d arrays: every instruction set agrees with the C library's exp\n", tried);
    return EXIT_SUCCESS;
}
