// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_map.c - elementwise maps without Python: every instruction set of this machine, in both dtypes, in place and not,
// against the C library in double, and arrays turned and broadcast.  As smoke.c, for machines where only a C program runs.
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROOM = 20000 };

static uint32_t state = 1;
static double src[ROOM], other[ROOM], dst[ROOM];

static double uniform(double most) {
    state = state * 1664525u + 1013904223u;
    return most * ((double)(state >> 8) * 0x1p-23 - 1);
}

static double sigmoid(double x) {
    const double e = exp(-fabs(x));
    return (x > 0 ? 1 : e) / (1 + e);
}

static double silu(double x) { return x * sigmoid(x); }
static double hardswish(double x) { return x * (fmin(6, fmax(0, x + 3)) / 6); }

// What rounding its argument takes from erfc, where that is small, is exp of the difference of the squares.
static double gelu(double x) {
    const double a = -x * sqrt(0.5), square = a * a, rest = fma(x / 2, x, -square) - fma(a, a, -square);
    return x * (erfc(a) / 2) * (a > 0 && a < 40 ? exp(-rest) : 1);
}

static double softplus(double x) { return fmax(x, 0) + log1p(exp(-fabs(x))); }

static const struct {
    fc_map_code code;
    double (*function)(double);
} functions[] = {{FC_MAP_SIGMOID, sigmoid}, {FC_MAP_SILU, silu},  {FC_MAP_HARDSWISH, hardswish},
                 {FC_MAP_EXP, exp},         {FC_MAP_LOG, log},    {FC_MAP_ERF, erf},
                 {FC_MAP_TANH, tanh},       {FC_MAP_GELU, gelu},  {FC_MAP_SOFTPLUS, softplus},
                 {FC_MAP_FLOOR, floor},     {FC_MAP_ROUND, rint}, {FC_MAP_SQRT, sqrt}};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

static double value(int dtype, const void *array, int64_t i) {
    return dtype == FC_F64 ? ((const double *)array)[i] : (double)((const float *)array)[i];
}

static void set(int dtype, void *array, int64_t i, double x) {
    if (dtype == FC_F64) ((double *)array)[i] = x;
    else ((float *)array)[i] = (float)x;
}

static int same(double is, double right, int dtype) {
    const double precision = dtype == FC_F64 ? 0x1p-53 : 0x1p-24, least = dtype == FC_F64 ? 0x1p-1074 : 0x1p-149;
    const double lost = 40 * least; // near the smallest numbers the C library's products have lost digits, too
    if (isnan(right)) return isnan(is);
    if (dtype == FC_F32 && fabs(right) > 0x1.ffffffp127) return isinf(is);
    return is == right || fabs(is - right) <= 8 * precision * fabs(right) + lost;
}

static int try_function(int64_t count, int dtype, fc_isa isa, int f, int in_place) {
    static const double ends[] = {NAN, INFINITY, -INFINITY, 0, -3, 3, 1e30, -1e30};
    const fc_map m = {
        .dtype = dtype, .rank = 1, .count = 1, .axis = {{count, 1, 1, {0}}}, .op = {{.code = functions[f].code}}};
    fc_status status;
    for (int64_t i = 0; i < count; i++) set(dtype, src, i, i % 20 ? uniform(i % 2 ? 5 : 90) : ends[i / 20 % 8]);
    for (int64_t i = 0; i < count; i++) set(dtype, dst, i, in_place ? value(dtype, src, i) : NAN);
    run_op(&(fc_op){FC_MAP, &m}, isa, FC_AUTO, NULL, NULL, (fc_operands){.src = in_place ? dst : src, .dst = dst}, 2,
           &status);
    for (int64_t i = 0; i < count; i++) {
        const double x = value(dtype, src, i), right = functions[f].function(x), is = value(dtype, dst, i);
        if (!same(is, right, dtype))
            return printf("%s of %g on %s is %.17g, not %.17g\n", fc_map_names[functions[f].code], x, fc_isa_name(isa),
                          is, right);
    }
    return 0;
}

// dst[r][c] = max(0, src[c][r] + other[c]), one element behind the other.
static int try_turned(int64_t rows, int64_t columns, int dtype, fc_isa isa) {
    const fc_map m = {.dtype = dtype,
                      .rank = 2,
                      .others = 1,
                      .count = 2,
                      .axis = {{rows, 1, columns, {0}}, {columns, rows, 1, {1}}},
                      .op = {{.code = FC_MAP_ADD}, {.code = FC_MAP_CLAMP, .a = 0, .b = INFINITY}}};
    fc_status status;
    for (int64_t i = 0; i < rows * columns; i++) set(dtype, src, i, uniform(4));
    for (int64_t i = 0; i < columns; i++) set(dtype, other, i, uniform(4));
    for (int64_t i = 0; i <= rows * columns; i++) set(dtype, dst, i, NAN);
    run_op(&(fc_op){FC_MAP, &m}, isa, FC_AUTO, NULL, NULL, (fc_operands){.src = src, .other = {other}, .dst = dst}, 2,
           &status);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            const double sum = value(dtype, src, c * rows + r) + value(dtype, other, c);
            const double is = value(dtype, dst, r * columns + c);
            if (!same(is, fmax(0, sum), dtype))
                return printf("row %d column %d of %d x %d on %s is %g, not %g\n", (int)r, (int)c, (int)rows,
                              (int)columns, fc_isa_name(isa), is, fmax(0, sum));
        }
    if (isnan(value(dtype, dst, rows * columns))) return 0;
    return printf("what lies behind %d x %d was written on %s\n", (int)rows, (int)columns, fc_isa_name(isa));
}

int main(void) {
    static const int64_t counts[] = {0, 1, 3, 15, 16, 17, 400, 4096, 4097, ROOM};
    static const int64_t sides[] = {1, 2, 3, 15, 16, 17, 33, 130};
    enum { COUNTS = sizeof counts / sizeof *counts, SIDES = sizeof sides / sizeof *sides };
    int tried = 0;
    for (int isa = 0; isa < FC_ISAS; isa++) {
        if (!fc_isa_supported((fc_isa)isa)) continue;
        for (int form = 0; form < 4 * FUNCTIONS; form++)
            for (int i = 0; i < COUNTS; i++, tried++)
                if (try_function(counts[i], form % 2, (fc_isa)isa, form / 4, form / 2 % 2)) return EXIT_FAILURE;
        for (int form = 0; form < 2 * SIDES * SIDES; form++, tried++)
            if (try_turned(sides[form / 2 % SIDES], sides[form / 2 / SIDES], form % 2, (fc_isa)isa))
                return EXIT_FAILURE;
    }
    printf("%d arrays: every instruction set agrees with the C library\n", tried);
    return EXIT_SUCCESS;
}
