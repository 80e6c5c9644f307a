// SPDX-License-Identifier: BSD-3-Clause
//
// activate.c - finds rows of what was stored that lie at even distances, with neighbours in memory along them.
#include "conv/activate.h"

enum { FC_GATHERED = 256 };

// Rows of neighbours.
static void rows_of(const fc_kernels *k, const fc_problem *p, void *data, int64_t rows, int64_t columns, int64_t row) {
    const fc_map_rows work = {
        .code = (fc_map_code)p->activation,
        .a = p->alpha,
        .low = -INFINITY,
        .high = INFINITY,
        .rows = rows,
        .columns = columns,
        .dst = data,
        .dst_row = row,
        .x = {data, row, 1},
    };
    k->map_rows(&work);
}

// Of elements that are no neighbours, by a copy.
static void apart(const fc_kernels *k, const fc_problem *p, char *data, int64_t count, int64_t step) {
    double lane[FC_GATHERED];
    for (int64_t n; count > 0; data += n * step * k->element, count -= n) {
        n = fc_min(count, FC_GATHERED);
        fc_rectangle copy = {.src = data, .dst = lane, .rows = 1, .columns = n, .src_column = step, .dst_column = 1};
        k->rectangle(&copy);
        rows_of(k, p, lane, 1, n, n);
        copy = (fc_rectangle){.src = lane, .dst = data, .rows = 1, .columns = n, .src_column = 1, .dst_column = step};
        k->rectangle(&copy);
    }
}

static void rectangle(const fc_plan *plan, void *data, int64_t rows, int64_t columns, int64_t row, int64_t column) {
    const fc_kernels *k = plan->kernels;
    const fc_problem *p = &plan->problem;
    if ((row == 1 && column != 1) || columns == 1) { // rows are columns
        const int64_t count = rows, step = row;
        rows = columns, row = column;
        columns = count, column = step;
    }
    if (row == columns * column) { // they go on where the one before ends
        columns *= rows;
        rows = 1;
    }
    if (column == 1) rows_of(k, p, data, rows, columns, row);
    else
        for (int64_t r = 0; r < rows; r++) apart(k, p, (char *)data + r * row * k->element, columns, column);
}

void fc_activate_run(const fc_kernels *k, const fc_problem *p, void *data, int64_t count, int64_t step) {
    if (p->activation == FC_MAP_CLAMP) return;
    if (step == 1) rows_of(k, p, data, 1, count, count);
    else apart(k, p, data, count, step);
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
    for (int64_t y = 0; y < lines; y++)
        rectangle(plan, (char *)data + y * box->stride[1] * plan->kernels->element, runs, length, box->stride[across],
                  step);
}

void fc_activate_channels(const fc_plan *plan, void *data, int64_t channels, fc_run pixels) {
    if (pixels.length == 0) return;
    const fc_view *dst = &plan->problem.dst;
    rectangle(plan, (char *)data + pixels.offset * plan->kernels->element, channels, pixels.length, dst->channel,
              dst->axis[2]);
}

// How far apart the rows of a tile are, if all are as far.
static int is_even(const fc_gemm_tile *t, int64_t *apart_by) {
    *apart_by = t->m > 1 ? t->row_offset[1] - t->row_offset[0] : 1;
    for (int64_t i = 2; i < t->m; i++)
        if (t->row_offset[i] - t->row_offset[i - 1] != *apart_by) return 0;
    return 1;
}

void fc_activate_tile(const fc_plan *plan, const fc_gemm_tile *t) {
    int64_t row;
    const int64_t together = is_even(t, &row) ? t->m : 1; // rows
    for (int64_t r = 0; r < t->run_count; r++)
        for (int64_t i = 0; i < t->m; i += together)
            rectangle(plan, (char *)t->dst + (t->row_offset[i] + t->runs[r].offset) * plan->kernels->element, together,
                      t->runs[r].length, row, t->column_stride);
}
