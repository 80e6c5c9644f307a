// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_fold.c - reductions, norms, local response normalisation and resizing without Python: every instruction set of
// this machine, in both dtypes, along rows and across them, against plain loops in double.  As smoke.c, for machines where
// only a C program runs.
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROOM = 80000, BEHIND = 100 };

static double src[ROOM], dst[ROOM], scale[ROOM], shift[ROOM];
static uint32_t state = 1;

static double uniform(double most) {
    state = state * 1664525u + 1013904223u;
    return most * ((double)(state >> 8) * 0x1p-23 - 1);
}

static double get(int dtype, const void *array, int64_t i) {
    return dtype == FC_F64 ? ((const double *)array)[i] : (double)((const float *)array)[i];
}

static void set(int dtype, void *array, int64_t i, double x) {
    if (dtype == FC_F64) ((double *)array)[i] = x;
    else ((float *)array)[i] = (float)x;
}

// `count` numbers to read, with NaN behind them, and NaN where there will be `results`.
static void fill(int dtype, int64_t count, int64_t results) {
    for (int64_t i = 0; i < count + BEHIND; i++) {
        set(dtype, src, i, i < count ? uniform(3) : NAN);
        set(dtype, scale, i, i < count ? uniform(1) : NAN);
        set(dtype, shift, i, i < count ? uniform(1) : NAN);
    }
    for (int64_t i = 0; i < results; i++) set(dtype, dst, i, NAN);
}

static void run(fc_family family, const void *problem, fc_isa isa) {
    fc_status status;
    run_op(&(fc_op){family, problem}, isa, FC_AUTO, NULL, NULL,
           (fc_operands){.src = src, .dst = dst, .other = {scale, shift}}, 2, &status);
    if (status != FC_OK) exit(2);
}

static int wrong(const char *what, int kind, int dtype, fc_isa isa, double is, double right, int64_t terms) {
    const double precision = dtype == FC_F64 ? 0x1p-53 : 0x1p-24;
    if (fabs(is - right) <= 6 * sqrt((double)terms + 8) * precision * (8 + fabs(right))) return 0;
    return printf("%s %d on %s is %.17g, not %.17g\n", what, kind, fc_isa_name(isa), is, right);
}

// results x count numbers, of which those of a result adjoin, or else those of the other results.
static fc_fold_axis along(int64_t count, int64_t step, int64_t wei, int folded) {
    return (fc_fold_axis){.count = count, .src = step, .dst = step, .wei = wei, .folded = folded};
}

static double reduced(int kind, int dtype, int64_t first, int64_t count, int64_t step) {
    double sum = 0, squares = 0, absolute = 0, low = INFINITY, high = -INFINITY, total = 0;
    for (int64_t i = 0; i < count; i++) {
        const double x = get(dtype, src, first + i * step);
        sum += x;
        squares += x * x;
        absolute += fabs(x);
        low = fmin(low, x);
        high = fmax(high, x);
        if (kind == FC_REDUCE_LOG_SUM_EXP) total += exp(x);
    }
    const double all[] = {sum, sum / (double)count, high, low, 0, squares, absolute, sqrt(squares), log(total)};
    return all[kind];
}

static int try_reduce(int kind, int dtype, int64_t results, int64_t count, int rows, fc_isa isa) {
    const int64_t result = rows ? count : 1, step = rows ? 1 : results;
    fc_reduce r = {
        .rank = 2, .dtype = dtype, .kind = kind, .axis = {along(results, result, 0, 0), along(count, step, 0, 1)}};
    r.axis[0].dst = 1;
    fill(dtype, results * count, results);
    run(FC_REDUCE, &r, isa);
    for (int64_t i = 0; i < results; i++)
        if (wrong("reduction", kind, dtype, isa, get(dtype, dst, i), reduced(kind, dtype, i * result, count, step),
                  count))
            return 1;
    return 0;
}

// The result of the clamp stands in `scale`; a channel's numbers adjoin, or else those of the other channels.
static int try_through(int dtype, int64_t channels, int64_t count, int rows, fc_isa isa) {
    const int64_t channel = rows ? count : 1, step = rows ? 1 : channels, all = channels * count;
    const double low = -0.25, high = rows ? 0.5 : INFINITY;
    const fc_reduce r = {.rank = 2,
                         .dtype = dtype,
                         .kind = FC_REDUCE_THROUGH,
                         .second = all,
                         .low = low,
                         .high = high,
                         .axis = {along(channels, channel, channel, 0), along(count, step, step, 1)}};
    fill(dtype, all, all + channels);
    run(FC_REDUCE, &r, isa);
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = c * channel + i * step;
            const double y = get(dtype, scale, at), right = y > low && y < high ? get(dtype, src, at) : 0;
            if (get(dtype, dst, at) != right) return wrong("clamp", rows, dtype, isa, get(dtype, dst, at), right, 0);
            sum += right;
        }
        if (wrong("sum below a clamp", rows, dtype, isa, get(dtype, dst, all + c), sum, count)) return 1;
    }
    return 0;
}

static int try_norm(int kind, int dtype, int64_t results, int64_t count, int rows, fc_isa isa) {
    const int64_t result = rows ? count : 1, step = rows ? 1 : results;
    const int softmax = kind == FC_NORM_SOFTMAX || kind == FC_NORM_LOG_SOFTMAX;
    fc_norm n = {.rank = 2, .dtype = dtype, .kind = kind, .eps = 1e-5};
    n.axis[0] = along(results, result, 0, 0);
    n.axis[1] = along(count, step, 1, 1);
    fill(dtype, results * count, results * count);
    run(FC_NORM, &n, isa);
    for (int64_t r = 0; r < results; r++) {
        double mean = 0, centred = 0, squares = 0, high = -INFINITY, total = !softmax;
        for (int64_t i = 0; i < count; i++) {
            const double x = get(dtype, src, r * result + i * step);
            mean += x / (double)count;
            squares += x * x / (double)count;
            high = fmax(high, x);
        }
        for (int64_t i = 0; i < count; i++) {
            const double x = get(dtype, src, r * result + i * step);
            centred += (x - mean) * (x - mean) / (double)count;
            if (softmax) total += exp(x - high);
        }
        const double logarithm = log(total);
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = r * result + i * step;
            const double x = get(dtype, src, at), a = get(dtype, scale, i), b = get(dtype, shift, i);
            const double all[] = {(x - mean) / sqrt(centred + n.eps) * a + b, x / sqrt(squares + n.eps) * a + b,
                                  (softmax ? exp(x - high) : 0) / total, x - high - logarithm};
            if (wrong("norm", kind, dtype, isa, get(dtype, dst, at), all[kind], count)) return 1;
        }
    }
    return 0;
}

static int try_lrn(int dtype, int64_t channels, int64_t pixels, int rows, double beta, fc_isa isa) {
    const int64_t channel = rows ? 1 : pixels, pixel = rows ? channels : 1;
    const fc_lrn l = {.rank = 2,
                      .dtype = dtype,
                      .before = 2,
                      .after = 1,
                      .share = 0.2,
                      .beta = beta,
                      .k = 1.5,
                      .axis = {along(pixels, pixel, 0, 0), along(channels, channel, 0, 1)}};
    fill(dtype, channels * pixels, channels * pixels);
    run(FC_LRN, &l, isa);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = 0; c < channels; c++) {
            double sum = 0;
            for (int64_t j = c - 2; j <= c + 1; j++) {
                const double x = j < 0 || j >= channels ? 0 : get(dtype, src, p * pixel + j * channel);
                sum += x * x;
            }
            const int64_t at = p * pixel + c * channel;
            const double right = get(dtype, src, at) * pow(1.5 + 0.2 * sum, -beta);
            if (wrong("lrn", 0, dtype, isa, get(dtype, dst, at), right, 4)) return 1;
        }
    return 0;
}

static int try_lrn_gradient(int dtype, int64_t channels, int64_t pixels, int rows, double beta, fc_isa isa) {
    const int64_t channel = rows ? 1 : pixels, pixel = rows ? channels : 1;
    const fc_lrn l = {.rank = 2,
                      .dtype = dtype,
                      .gradient = 1,
                      .before = 2,
                      .after = 1,
                      .share = 0.2,
                      .beta = beta,
                      .k = 1.5,
                      .axis = {along(pixels, pixel, pixel, 0), along(channels, channel, channel, 1)}};
    static double s[ROOM], power[ROOM]; // of a pixel
    fill(dtype, channels * pixels, channels * pixels);
    run(FC_LRN, &l, isa);
    for (int64_t p = 0; p < pixels; p++) {
        for (int64_t c = 0; c < channels; c++) {
            s[c] = 1.5;
            for (int64_t j = c - 2; j <= c + 1; j++) {
                const double x = j < 0 || j >= channels ? 0 : get(dtype, src, p * pixel + j * channel);
                s[c] += 0.2 * x * x;
            }
            power[c] = pow(s[c], -beta - 1);
        }
        for (int64_t c = 0; c < channels; c++) {
            const int64_t at = p * pixel + c * channel;
            double sum = 0;
            for (int64_t j = c - 1; j <= c + 2; j++) {
                const int64_t there = p * pixel + j * channel;
                if (j < 0 || j >= channels) continue;
                sum += get(dtype, scale, there) * get(dtype, src, there) * power[j];
            }
            const double right = get(dtype, scale, at) * power[c] * s[c] - 2 * 0.2 * beta * get(dtype, src, at) * sum;
            if (wrong("gradient of lrn", 0, dtype, isa, get(dtype, dst, at), right, 16)) return 1;
        }
    }
    return 0;
}

static int try_resize(int dtype, int64_t channels, int64_t in, int64_t out, int last, fc_isa isa) {
    static int32_t index[200];
    static double weight[200];
    for (int64_t i = 0; i < out; i++) {
        index[i] = (int32_t)(i * in / out);
        index[out + i] = (int32_t)((i * in / out + 1) % in);
        weight[i] = i % 3 ? 0.25 : 1;
        weight[out + i] = i % 3 ? 0.75 : 0;
    }
    const fc_resize_axis axis = {.in = in, .out = out, .taps = 2, .index = index, .weight = weight};
    static const int32_t none[] = {0};
    fc_resize z = {.dtype = dtype, .batch = 1, .channels = channels, .axis = {{1, 1, 1, none, NULL}, axis, axis}};
    z.src = (fc_view){0, 0, last ? 1 : in * in, {0, last ? in * channels : in, last ? channels : 1}};
    z.dst = (fc_view){0, 0, last ? 1 : out * out, {0, last ? out * channels : out, last ? channels : 1}};
    fill(dtype, channels * in * in, channels * out * out);
    run(FC_RESIZE, &z, isa);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t y = 0; y < out; y++)
            for (int64_t x = 0; x < out; x++) {
                double right = 0;
                for (int t = 0; t < 4; t++) {
                    const int64_t v = t / 2 * out + y, u = t % 2 * out + x;
                    right += weight[v] * weight[u] *
                             get(dtype, src, c * z.src.channel + index[v] * z.src.axis[1] + index[u] * z.src.axis[2]);
                }
                const double is = get(dtype, dst, c * z.dst.channel + y * z.dst.axis[1] + x * z.dst.axis[2]);
                if (wrong("resize", last, dtype, isa, is, right, 4)) return 1;
            }
    return 0;
}

int main(void) {
    static const int64_t sizes[][2] = {{1, 1},   {1, 70},    {3, 17},  {40, 5}, {17, 130},
                                       {70, 33}, {2, 20000}, {700, 9}, {9, 700}};
    int tried = 0;
    for (int isa = 0; isa < FC_ISAS; isa++)
        for (int dtype = 0; dtype < 2 && fc_isa_supported((fc_isa)isa); dtype++) {
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
                for (int rows = 0; rows < 2; rows++) {
                    for (int kind = 0; kind < FC_REDUCE_MOMENTS; kind++, tried++)
                        if (kind != FC_REDUCE_PRODUCT &&
                            try_reduce(kind, dtype, sizes[s][0], sizes[s][1], rows, (fc_isa)isa))
                            return 1;
                    for (int kind = 0; kind < FC_NORMS; kind++, tried++)
                        if (try_norm(kind, dtype, sizes[s][0], sizes[s][1], rows, (fc_isa)isa)) return 1;
                    tried++;
                    if (try_through(dtype, sizes[s][0], sizes[s][1], rows, (fc_isa)isa)) return 1;
                    for (int beta = 0; beta < 4; beta++, tried++)
                        if (try_lrn(dtype, sizes[s][0], sizes[s][1], rows, 0.25 * (beta + 1), (fc_isa)isa) ||
                            try_lrn_gradient(dtype, sizes[s][0], sizes[s][1], rows, 0.25 * (beta + 1), (fc_isa)isa))
                            return 1;
                }
            for (int last = 0; last < 2; last++)
                for (int64_t channels = 1; channels <= 40; channels += 13, tried++)
                    if (try_resize(dtype, channels, 7, 15, last, (fc_isa)isa) ||
                        try_resize(dtype, channels, 20, 33, last, (fc_isa)isa) ||
                        try_resize(dtype, channels, 20, 6, last, (fc_isa)isa))
                        return 1;
        }
    printf("%d reductions, norms and resizings are right\n", tried);
    return 0;
}
