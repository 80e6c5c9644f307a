// SPDX-License-Identifier: BSD-3-Clause
//
// activate.c - finds the runs of what was stored that are neighbours in memory.
#include "conv/activate.h"

static void run(const fc_plan *plan, void *data, int64_t at, int64_t count, int64_t step) {
    const fc_kernels *k = plan->kernels;
    k->map((fc_activation)plan->problem.activation, (char *)data + at * k->element, count, step);
}

void fc_activate_box(const fc_plan *plan, void *data, const fc_box *box) {
    const int along = box->stride[0] == 1 && box->stride[2] != 1 ? 0 : 2, across = 2 - along;
    const int64_t step = box->stride[along];
    int64_t length = box->size[along], lines = box->size[1], runs = box->size[across];
    if (box->stride[across] == length * step) {
        length *= runs;
        runs = 1;
    }
    if (box->stride[1] == length * step) {
        length *= lines;
        lines = 1;
    }
    for (int64_t r = 0; r < runs; r++)
        for (int64_t y = 0; y < lines; y++) run(plan, data, r * box->stride[across] + y * box->stride[1], length, step);
}

static int rows_adjoin(const fc_gemm_tile *t) {
    for (int64_t i = 1; i < t->m; i++)
        if (t->row_offset[i] != t->row_offset[0] + i) return 0;
    return t->m > 1;
}

void fc_activate_tile(const fc_plan *plan, const fc_gemm_tile *t) {
    const int turned = t->column_stride != 1 && rows_adjoin(t); // runs go along the rows' numbers
    for (int64_t r = 0; r < t->run_count; r++) {
        const fc_run of = t->runs[r];
        for (int64_t j = 0; turned && j < of.length; j++)
            run(plan, t->dst, t->row_offset[0] + of.offset + j * t->column_stride, t->m, 1);
        for (int64_t i = 0; !turned && i < t->m; i++)
            run(plan, t->dst, t->row_offset[i] + of.offset, of.length, t->column_stride);
    }
}
