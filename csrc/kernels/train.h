// SPDX-License-Identifier: BSD-3-Clause
//
// train.h - contracts of the kernels that only training needs.
#ifndef FC_TRAIN_KERNELS_H
#define FC_TRAIN_KERNELS_H

#include "problem.h"

// groups x rows x columns elements; what is of each channel is of each group, or if `each`, of one group, of each column.
// d, n and m are those of fc_batch_norm.
//
//   batch_norm_sums    total[0], total[1] of each channel: the sum of m, and that of m * d; the order in which numbers meet
//                      depends on rows and columns alone
//   batch_norm_spread  dst = clamp(n + g), where g may be NULL, or if `backward` dst = a * m + b * d + c
typedef struct fc_batch_norm_work {
    int backward;
    int64_t each;
    int64_t groups, rows, columns, x_group, x_row, x_column, g_group, g_row, g_column, dst_group, dst_row, dst_column;
    const void *x, *g;
    void *dst;                                    // may be g, if it is laid out alike
    const void *mean, *scale, *shift, *a, *b, *c; // of each channel
    double low, high;
    void *total[2];
} fc_batch_norm_work;

// A step of an optimiser on `count` elements.
typedef struct fc_update_work {
    const fc_update_rule *rule;
    int fresh;
    int64_t count;
    void *p;
    const void *g;
    void *state[FC_UPDATE_STATES];
} fc_update_work;

typedef void fc_batch_norm_fn(const fc_batch_norm_work *work);
typedef void fc_update_fn(const fc_update_work *work);

#endif
