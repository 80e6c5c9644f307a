// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_product.c - matrix products and recurrent layers without Python: every instruction set of this machine, in both
// dtypes, against plain loops in double.  As smoke.c, for machines where only a C program runs.
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROOM = 60000 };

static double src[ROOM], dst[ROOM], other[ROOM], memory[ROOM], wei[ROOM], bias[ROOM];
static uint32_t state = 1;

static double uniform(double most) {
    state = state * 1664525u + 1013904223u;
    return most * ((double)(state >> 8) * 0x1p-23 - 1);
}

static double get(int dtype, const void *array, int64_t i) {
    return dtype == FC_F64 ? ((const double *)array)[i] : (double)((const float *)array)[i];
}

static void fill(int dtype, void *array, double most) {
    for (int64_t i = 0; i < ROOM; i++) {
        const double x = isnan(most) ? most : uniform(most);
        if (dtype == FC_F64) ((double *)array)[i] = x;
        else ((float *)array)[i] = (float)x;
    }
}

static void run(fc_family family, const void *problem, int dtype, fc_isa isa) {
    fc_status status;
    fill(dtype, src, 1), fill(dtype, other, 1), fill(dtype, memory, 1);
    fill(dtype, wei, 0.3), fill(dtype, bias, 1), fill(dtype, dst, NAN);
    run_op(&(fc_op){family, problem}, isa, FC_AUTO, wei, bias,
           (fc_operands){.src = src, .dst = dst, .other = {other, memory}}, 2, &status);
    if (status != FC_OK) exit(2);
}

static int wrong(const char *what, int dtype, fc_isa isa, double is, double right, int64_t terms) {
    const double precision = dtype == FC_F64 ? 0x1p-53 : 0x1p-24;
    if (fabs(is - right) <= 2 * (double)(terms + 8) * precision * (1 + fabs(right))) return 0;
    return printf("%s on %s is %.17g, not %.17g\n", what, fc_isa_name(isa), is, right);
}

// `turned`: each matrix lies column by column.
static int try_product(int dtype, int64_t pairs, int64_t m, int64_t k, int64_t n, int turned, fc_isa isa) {
    const fc_product p = {.dtype = dtype,
                          .pairs = pairs,
                          .rows = m,
                          .depth = k,
                          .columns = n,
                          .src = {m * k, turned & 1 ? 1 : k, turned & 1 ? m : 1},
                          .other = {k * n, turned & 2 ? 1 : n, turned & 2 ? k : 1},
                          .dst = {m * n, turned & 4 ? 1 : n, turned & 4 ? m : 1}};
    run(FC_PRODUCT, &p, dtype, isa);
    for (int64_t b = 0; b < pairs; b++)
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double right = 0;
                for (int64_t d = 0; d < k; d++)
                    right += get(dtype, src, b * p.src[0] + i * p.src[1] + d * p.src[2]) *
                             get(dtype, other, b * p.other[0] + d * p.other[1] + j * p.other[2]);
                if (wrong("product", dtype, isa, get(dtype, dst, b * p.dst[0] + i * p.dst[1] + j * p.dst[2]), right, k))
                    return 1;
            }
    return 0;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

// One element of a state from the gates' sums.
static double cell(const fc_recurrent *r, const double *x, const double *p, double h, double *c) {
    if (r->kind == FC_GRU) {
        const double z = sigmoid(x[0] + p[0]), n = tanh(x[2] + sigmoid(x[1] + p[1]) * p[2]);
        return (1 - z) * n + z * h;
    }
    *c = sigmoid(x[2] + p[2]) * *c + sigmoid(x[0] + p[0]) * tanh(x[3] + p[3]);
    return sigmoid(x[1] + p[1]) * tanh(*c);
}

static int try_recurrent(int dtype, int kind, int64_t steps, int64_t directions, int64_t batch, int64_t hidden,
                         int64_t backward, fc_isa isa) {
    const fc_recurrent r = {.dtype = dtype,
                            .kind = kind,
                            .steps = steps,
                            .directions = directions,
                            .batch = batch,
                            .hidden = hidden,
                            .backward = backward};
    const int64_t gates = kind == FC_LSTM ? 4 : 3, rows = gates * hidden;
    run(FC_RECURRENT, &r, dtype, isa);
    for (int64_t d = 0; d < directions; d++)
        for (int64_t b = 0; b < batch; b++) {
            double h[64], c[64], next[64];
            for (int64_t j = 0; j < hidden; j++) {
                h[j] = get(dtype, other, (d * batch + b) * hidden + j);
                c[j] = get(dtype, memory, (d * batch + b) * hidden + j);
            }
            for (int64_t i = 0; i < steps; i++) {
                const int64_t t = backward >> d & 1 ? steps - 1 - i : i;
                for (int64_t j = 0; j < hidden; j++) {
                    double x[4], p[4];
                    for (int64_t g = 0; g < gates; g++) {
                        const int64_t row = d * rows + g * hidden + j;
                        x[g] = get(dtype, src, ((d * steps + t) * batch + b) * rows + g * hidden + j);
                        p[g] = get(dtype, bias, row);
                        for (int64_t q = 0; q < hidden; q++) p[g] += get(dtype, wei, row * hidden + q) * h[q];
                    }
                    next[j] = cell(&r, x, p, h[j], &c[j]);
                }
                memcpy(h, next, sizeof h);
                for (int64_t j = 0; j < hidden; j++)
                    if (wrong("state", dtype, isa, get(dtype, dst, ((t * directions + d) * batch + b) * hidden + j),
                              h[j], steps * (hidden + 8)))
                        return 1;
            }
            for (int64_t j = 0; j < hidden && kind == FC_LSTM; j++)
                if (wrong("memory", dtype, isa, get(dtype, dst, ((steps * directions + d) * batch + b) * hidden + j),
                          c[j], steps * (hidden + 8)))
                    return 1;
        }
    return 0;
}

int main(void) {
    static const int64_t sizes[][4] = {{1, 1, 1, 1}, {3, 5, 7, 2}, {2, 17, 300, 40}, {1, 70, 9, 33}, {5, 14, 64, 16}};
    static const int64_t layers[][5] = {{1, 1, 1, 1, 0}, {4, 1, 2, 33, 1}, {3, 2, 1, 16, 2}, {2, 2, 5, 20, 1}};
    int tried = 0;
    for (int isa = 0; isa < FC_ISAS; isa++)
        for (int dtype = 0; dtype < 2 && fc_isa_supported((fc_isa)isa); dtype++) {
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
                for (int turned = 0; turned < 8; turned++, tried++)
                    if (try_product(dtype, sizes[s][0], sizes[s][1], sizes[s][2], sizes[s][3], turned, (fc_isa)isa))
                        return 1;
            for (size_t s = 0; s < sizeof layers / sizeof *layers; s++)
                for (int kind = 0; kind < FC_RECURRENCES; kind++, tried++)
                    if (try_recurrent(dtype, kind, layers[s][0], layers[s][1], layers[s][2], layers[s][3], layers[s][4],
                                      (fc_isa)isa))
                        return 1;
        }
    printf("%d products and recurrent layers are right\n", tried);
    return 0;
}
