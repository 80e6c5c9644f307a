// SPDX-License-Identifier: BSD-3-Clause
//
// smoke_pool.c - pooling without Python: every instruction set of this machine against the scalar one, in both dtypes
// and layouts, forward and backward, on random problems whose sums are exact.  As smoke.c, for machines where only a C
// program runs.
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PROBLEMS = 3000, ROOM = 64 * 1024 };

// What one instruction set makes of a problem.
typedef struct results {
    double dst[ROOM], d_src[ROOM];
    int64_t indices[ROOM];
} results;

static uint32_t state = 1;

static int64_t below(int64_t limit) {
    state = state * 1664525u + 1013904223u;
    return (int64_t)(state >> 8) % limit;
}

static fc_view view(const fc_pool *p, int64_t depth, int64_t height, int64_t width, int ndhwc) {
    const int64_t c = p->channels;
    if (ndhwc) return (fc_view){0, depth * height * width * c, 1, {height * width * c, width * c, c}};
    return (fc_view){0, depth * height * width * c, depth * height * width, {height * width, width, 1}};
}

// A problem that may be impossible: fc_op_check knows.
static fc_pool random_pool(void) {
    fc_pool p = {.batch = 1 + below(2),
                 .channels = 1 + below(20),
                 .dtype = (int32_t)below(FC_DTYPES),
                 .kind = (int32_t)below(2),
                 .adaptive = below(4) == 0,
                 .count_include_pad = (int32_t)below(2)};
    const int64_t largest[FC_AXES] = {1 + below(4), 8, 40};
    for (int i = 0; i < FC_AXES; i++) {
        fc_axis *a = &p.axis[i];
        *a = (fc_axis){.in = 1 + below(largest[i]), .kernel = 1 + below(5), .stride = 1 + below(3)};
        a->dilation = 1 + below(2);
        a->pad = p.pad_after[i] = below(a->kernel / 2 + 1);
        const int64_t room = a->in + 2 * a->pad - (a->kernel - 1) * a->dilation - 1;
        a->out = p.adaptive ? 1 + below(a->in + 2) : room < 0 ? 0 : room / a->stride + 1;
    }
    const int ndhwc = (int)below(2);
    p.src = view(&p, p.axis[0].in, p.axis[1].in, p.axis[2].in, ndhwc);
    p.dst = p.index = view(&p, p.axis[0].out, p.axis[1].out, p.axis[2].out, ndhwc);
    return p;
}

static double element(const fc_pool *p, const double *array, int64_t i) {
    return p->dtype == FC_F64 ? array[i] : (double)((const float *)array)[i];
}

// Whole numbers; among the candidates for a maximum also NaN and infinity.
static void fill(const fc_pool *p, double *array, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        double value = (double)below(9) - 4;
        if (p->kind == FC_POOL_MAX && below(40) == 0) value = below(2) ? (double)NAN : -(double)INFINITY;
        if (p->dtype == FC_F64) array[i] = value;
        else ((float *)array)[i] = (float)value;
    }
}

static int same(const fc_pool *p, const double *a, const double *b, int64_t count) {
    const double close = p->kind == FC_POOL_MAX ? 0 : p->dtype == FC_F64 ? 1e-13 : 1e-5;
    for (int64_t i = 0; i < count; i++) {
        const double x = element(p, a, i), y = element(p, b, i);
        if (x != y && !(isnan(x) && isnan(y)) && !(fabs(x - y) <= close)) return 0;
    }
    return 1;
}

static void forward(fc_pool p, fc_isa isa, const double *src, double *dst, int64_t *indices, int threads) {
    fc_status status;
    p.indexed = indices != NULL;
    const fc_operands operands = {.src = src, .dst = dst, .index = indices};
    run_op(&(fc_op){FC_POOL, &p}, isa, FC_AUTO, NULL, NULL, operands, threads, &status);
}

static void run(const fc_pool *p, fc_isa isa, const double *src, const double *d_dst, results *r) {
    memset(r, 0xff, sizeof *r); // NaN, and indices outside of any plane
    int64_t *indices = p->kind == FC_POOL_MAX ? r->indices : NULL;
    forward(*p, isa, src, r->dst, indices, 2);
    fc_status status;
    fc_pool gradient = *p;
    gradient.direction = FC_BACKWARD_INPUT;
    const fc_operands operands = {.src = d_dst, .dst = r->d_src, .index = indices};
    run_op(&(fc_op){FC_POOL, &gradient}, isa, FC_AUTO, NULL, NULL, operands, 2, &status);
    if (status != FC_OK) r->d_src[0] = INFINITY;
}

int main(void) {
    static double src[ROOM], d_dst[ROOM];
    static results scalar, other, unindexed;
    char message[FC_MESSAGE];
    int checked = 0;
    for (int i = 0; i < PROBLEMS; i++) {
        const fc_pool p = random_pool();
        if (fc_op_check(&(fc_op){FC_POOL, &p}, message) != FC_OK) continue;
        const int64_t planes = p.batch * p.channels;
        const int64_t in = planes * p.axis[0].in * p.axis[1].in * p.axis[2].in;
        const int64_t out = planes * p.axis[0].out * p.axis[1].out * p.axis[2].out;
        if (in > ROOM || out > ROOM) continue;
        fill(&p, src, in);
        fill(&p, d_dst, out);
        run(&p, FC_SCALAR, src, d_dst, &scalar);
        for (int isa = 0; isa < FC_ISAS; isa++) {
            if (!fc_isa_supported(isa)) continue;
            run(&p, isa, src, d_dst, &other);
            forward(p, isa, src, unindexed.dst, NULL, 1);
            checked++;
            if (same(&p, scalar.dst, other.dst, out) && same(&p, scalar.dst, unindexed.dst, out) &&
                same(&p, scalar.d_src, other.d_src, in) &&
                (p.kind == FC_POOL_AVG || !memcmp(scalar.indices, other.indices, (size_t)out * sizeof(int64_t))))
                continue;
            printf("FAIL: problem %d with %s differs from scalar\n", i, fc_isa_name(isa));
            return 1;
        }
    }
    printf("%d poolings agree\n", checked);
    return checked == 0;
}
