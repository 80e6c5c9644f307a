// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_train.c - batch norm, cross-entropy and steps of optimisers without Python: every instruction set of this machine,
// in both dtypes, along rows and across them, against plain loops in double.
#include "run.h"

#include <math.h>

enum { ROOM = 80000, CHANNELS = 800, CLASSES = 70, ROWS = 150 };

static double src[ROOM], grad[ROOM], dst[ROOM], vectors[FC_BATCH_ROWS * CHANNELS], gains[CHANNELS];
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

static void fill(int dtype, void *array, int64_t count, double most) {
    for (int64_t i = 0; i < count; i++) set(dtype, array, i, uniform(most));
}

static int wrong(const char *what, int kind, int dtype, fc_isa isa, double is, double right, int64_t terms) {
    const double precision = dtype == FC_F64 ? 0x1p-53 : 0x1p-24;
    if (fabs(is - right) <= 6 * sqrt((double)terms + 8) * precision * (8 + fabs(right))) return 0;
    return printf("%s %d on %s is %.17g, not %.17g\n", what, kind, fc_isa_name(isa), is, right);
}

static int try_batch_norm(int kind, int dtype, int64_t channels, int64_t count, int rows, double high, fc_isa isa) {
    const int64_t channel = rows ? count : 1, step = rows ? 1 : channels;
    const int finds = kind == FC_BATCH_MOMENTS || kind == FC_BATCH_SUMS;
    const int train = kind == FC_BATCH_TRAIN, gradient = kind == FC_BATCH_GRADIENT;
    const fc_batch_norm b = {
        .rank = 2,
        .dtype = dtype,
        .kind = kind,
        .second = channels,
        .low = high < INFINITY ? 0 : -INFINITY,
        .high = high,
        .eps = 0.25,
        .axis = {{channels, channel, finds ? 1 : channel, channel, 0}, {count, step, finds ? 0 : step, step, 1}}};
    fc_status status;
    fill(dtype, src, channels * count, 3);
    fill(dtype, grad, channels * count, 1);
    fill(dtype, vectors, FC_BATCH_ROWS * channels, 1);
    for (int64_t c = 0; c < channels; c++) set(dtype, vectors, FC_BATCH_VECTORS * channels + c, uniform(1) + 1.5);
    fill(dtype, gains, channels, 1);
    fill(dtype, dst, finds ? 2 * channels : channels * count, NAN);
    run_op(&(fc_op){FC_BATCH_NORM, &b}, isa, FC_AUTO, NULL, NULL,
           (fc_operands){.src = src,
                         .dst = dst,
                         .further = train || gradient ? vectors : NULL,
                         .other = {grad, train || gradient ? gains : vectors}},
           2, &status);
    if (status != FC_OK) return printf("batch norm %d: status %d\n", kind, (int)status);
    for (int64_t c = 0; c < channels; c++) {
        double v[FC_BATCH_ROWS], mean = 0, squares = 0, sum = 0, product = 0;
        for (int i = 0; i < FC_BATCH_ROWS; i++) v[i] = get(dtype, vectors, i * channels + c);
        for (int64_t i = 0; i < count; i++) mean += get(dtype, src, c * channel + i * step) / (double)count;
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = c * channel + i * step;
            const double x = get(dtype, src, at), g = get(dtype, grad, at), d = x - v[0], n = d * v[1] + v[2];
            const double forward = fmin(b.high, fmax(b.low, n + g));
            if (fabs(n - b.low) < 1e-5 || fabs(n - b.high) < 1e-5) return 0; // rounding decides
            const double m = n > b.low && n < b.high ? g : 0;
            squares += (x - mean) * (x - mean) / (double)count;
            sum += m;
            product += m * d;
            if (!finds && wrong("batch norm", kind, dtype, isa, get(dtype, dst, at),
                                train || kind == FC_BATCH_FORWARD ? forward : v[3] * m + v[4] * d + v[5], 4))
                return 1;
        }
        const double gain = get(dtype, gains, c), q = 1 / sqrt(v[6] + b.eps), a = gain * q, n = (double)count;
        const double pairs[][2] = {{train ? v[6] : v[7], train ? squares : sum},
                                   {train ? v[0] : v[8], train ? mean : q * product},
                                   {train ? v[1] : v[3], a},
                                   {train ? 0 : v[4], train ? 0 : -a * q * q * product / n},
                                   {train ? 0 : v[5], train ? 0 : -a * sum / n}};
        for (int i = 0; i < 5 && (train || gradient); i++)
            if (wrong("batch norm's channel", i, dtype, isa, pairs[i][0], pairs[i][1], 9 * count)) return 1;
        const int moments = kind == FC_BATCH_MOMENTS;
        if (finds && (wrong("batch norm", kind, dtype, isa, get(dtype, dst, c), moments ? mean : sum, count) ||
                      wrong("batch norm", kind, dtype, isa, get(dtype, dst, channels + c), moments ? squares : product,
                            9 * count)))
            return 1;
    }
    return 0;
}

static int try_update(int kind, int states, int nesterov, int fresh, int dtype, int64_t count, fc_isa isa) {
    const fc_update_rule rule = {kind, nesterov, 0.1, 0.2, 0.9, 0.7, 0.95, 0.8, 1.5, 1e-3};
    const int64_t bytes = count * fc_bytes(dtype);
    const size_t whole = (size_t)(2 * (2 + FC_UPDATE_STATES) * bytes + 1);
    char *room = poisoned(whole);
    char *at[2][2 + FC_UPDATE_STATES];
    fc_update_arrays two[2];
    for (int t = 0; t < 2; t++) {
        for (int a = 0; a < 2 + FC_UPDATE_STATES; a++) {
            at[t][a] = room + (t * (2 + FC_UPDATE_STATES) + a) * bytes;
            if (a < 2 || !fresh) fill(dtype, at[t][a], count, 1);
            for (int64_t i = 0; i < count && a > 2; i++) set(dtype, at[t][a], i, fabs(get(dtype, at[t][a], i)));
        }
        two[t] = (fc_update_arrays){.rule = &rule, .dtype = dtype, .fresh = fresh, .count = count};
        two[t].p = at[t][0], two[t].g = at[t][1];
        for (int s = 0; s < states; s++) two[t].state[s] = at[t][2 + s];
    }
    char *before = poisoned(whole);
    memcpy(before, room, (size_t)(2 * (2 + FC_UPDATE_STATES) * bytes));
    fc_update(two, 2, isa, 2);
    int failed = 0;
    for (int t = 0; t < 2 && !failed; t++)
        for (int64_t i = 0; i < count && !failed; i++) {
            double x[2 + FC_UPDATE_STATES];
            for (int a = 0; a < 2 + FC_UPDATE_STATES; a++) x[a] = get(dtype, before + (at[t][a] - room), i);
            if (kind == FC_UPDATE_ADAM) x[0] *= rule.shrink;
            const double d = x[1] + rule.decay * x[0];
            double move = d;
            if (kind == FC_UPDATE_SGD && states) {
                x[2] = fresh ? d : rule.momentum * x[2] + rule.keep * d;
                move = nesterov ? d + rule.momentum * x[2] : x[2];
            } else if (kind == FC_UPDATE_ADAM) {
                x[2] = rule.momentum * x[2] + (1 - rule.momentum) * d;
                x[3] = rule.square * x[3] + (1 - rule.square) * d * d;
                x[4] = fmax(x[4], x[3]);
                move = x[2] / (sqrt(states > 2 ? x[4] : x[3]) * rule.root + rule.eps);
            }
            failed = wrong("update", kind, dtype, isa, get(dtype, at[t][0], i), x[0] - rule.rate * move, 64);
            for (int s = 0; s < states && !failed; s++)
                failed = wrong("state", s, dtype, isa, get(dtype, at[t][2 + s], i), x[2 + s], 8);
        }
    fc_memory_release(room, whole);
    fc_memory_release(before, whole);
    return failed;
}

static int try_cross_entropy(int dtype, int64_t outer, int64_t classes, int64_t inner, double smoothing, fc_isa isa) {
    static int64_t target[ROWS];
    static double loss[ROWS], weight[CLASSES];
    const double g = 0.7;
    fill(dtype, src, outer * classes * inner, 4);
    fill(dtype, dst, outer * classes * inner, NAN);
    fill(dtype, weight, classes, 1);
    for (int64_t i = 0; i < outer * inner; i++) target[i] = i % 5 == 3 ? -7 : i % classes;
    fc_cross_entropy w = {.dtype = dtype,
                          .outer = outer,
                          .classes = classes,
                          .inner = inner,
                          .step = {classes * inner, inner, 1},
                          .src = src,
                          .target = target,
                          .weight = weight,
                          .ignore = -7,
                          .smoothing = smoothing,
                          .loss = loss,
                          .d = dst,
                          .grad = &g};
    if (fc_cross_entropy_run(&w, isa, 2) != -1) return printf("an index is said to be wrong\n");
    for (int64_t n = 0; n < outer; n++)
        for (int64_t i = 0; i < inner; i++) {
            const int64_t label = target[n * inner + i], there = label != -7;
            double total = 0, sum = 0, right = 0;
            for (int64_t c = 0; c < classes; c++) total += exp(get(dtype, src, (n * classes + c) * inner + i));
            for (int pass = 0; pass < 2; pass++)
                for (int64_t c = 0; c < classes; c++) {
                    const int64_t at = (n * classes + c) * inner + i;
                    const double x = get(dtype, src, at), share = (c == label) * (1 - smoothing);
                    const double part = there * get(dtype, weight, c) * (share + smoothing / (double)classes);
                    if (pass == 0) sum += part, right += part * (log(total) - x);
                    else if (wrong("cross-entropy", 1, dtype, isa, get(dtype, dst, at),
                                   g * (exp(x) / total * sum - part), classes))
                        return 1;
                }
            if (wrong("cross-entropy", 0, dtype, isa, loss[n * inner + i], right, classes)) return 1;
        }
    target[outer * inner - 1] = classes;
    if (fc_cross_entropy_run(&w, isa, 2) != outer * inner - 1) return printf("a wrong index is not found\n");
    return 0;
}

int main(void) {
    static const int64_t sizes[][2] = {{1, 1},   {1, 70},    {3, 17},  {40, 5}, {17, 130},
                                       {70, 33}, {2, 20000}, {700, 9}, {9, 700}};
    static const int64_t shapes[][3] = {{1, 1, 1}, {150, 7, 1}, {65, 70, 1}, {2, 7, 70}, {3, 17, 16}};
    int tried = 0;
    for (int isa = 0; isa < FC_ISAS; isa++)
        for (int dtype = 0; dtype < 2 && fc_isa_supported((fc_isa)isa); dtype++) {
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
                for (int kind = 0; kind < FC_BATCH_KINDS; kind++)
                    for (int rows = 0; rows < 2; rows++, tried++)
                        if (try_batch_norm(kind, dtype, sizes[s][0], sizes[s][1], rows, INFINITY, (fc_isa)isa) ||
                            try_batch_norm(kind, dtype, sizes[s][0], sizes[s][1], rows, 0.5, (fc_isa)isa))
                            return 1;
            for (int64_t count = 0; count < 40; count += 13, tried++)
                for (int form = 0; form < 4; form++)
                    if (try_update(FC_UPDATE_SGD, form > 0, form > 1, form > 2, dtype, count, (fc_isa)isa) ||
                        try_update(FC_UPDATE_ADAM, 2 + form % 2, 0, 0, dtype, 1000 * count, (fc_isa)isa))
                        return 1;
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++, tried++)
                if (try_cross_entropy(dtype, shapes[s][0], shapes[s][1], shapes[s][2], 0, (fc_isa)isa) ||
                    try_cross_entropy(dtype, shapes[s][0], shapes[s][1], shapes[s][2], 0.2, (fc_isa)isa))
                    return 1;
        }
    printf("%d batch norms, updates and losses are right\n", tried);
    return 0;
}
