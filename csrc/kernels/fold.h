// SPDX-License-Identifier: BSD-3-Clause
//
// fold.h - contracts of the kernels that reduce, normalise, and resize.
#ifndef FC_FOLD_KERNELS_H
#define FC_FOLD_KERNELS_H

#include <stdint.h>

// What becomes of many numbers: a sum of x, x - centre, (x - centre)^2, |x| or exp(x - centre), or of x where the number
// at its place in `mask` is NaN or between `low` and `high`, if that is finite; a product, or an extreme that NaN wins.
typedef enum fc_fold_kind {
    FC_FOLD_SUM = 0,
    FC_FOLD_CENTRED,
    FC_FOLD_SQUARES,
    FC_FOLD_ABS,
    FC_FOLD_EXP,
    FC_FOLD_THROUGH,
    FC_FOLD_PRODUCT,
    FC_FOLD_MAX,
    FC_FOLD_MIN,
    FC_FOLDS
} fc_fold_kind;

// groups x rows x columns elements; fold_all makes one number of each group, fold_columns, of one group, one of each
// column.  The order in which numbers meet depends on rows and columns alone, and of a column on the rows alone.
typedef struct fc_fold {
    fc_fold_kind kind;
    int64_t groups, rows, columns, group, row, column; // how many, and elements from one to the next
    const void *src;
    const void *centre; // of kinds that have one: of each result; NULL for zero
    const void *mask;   // of FC_FOLD_THROUGH
    // Takes the terms of FC_FOLD_EXP, unless it is NULL, and of FC_FOLD_THROUGH, 0 where none is summed; may be src.
    void *dst;
    int64_t mask_group, mask_row, mask_column, dst_group, dst_row, dst_column; // as group, row and column
    double low, high;
    void *total; // of each result
} fc_fold;

// dst = (src - centre) * factor * scale + shift, or dst = src - centre - factor.
typedef struct fc_spread_work {
    int subtract; // the latter
    int64_t groups, rows, columns, src_group, src_row, src_column, dst_group, dst_row, dst_column;
    const void *src;
    void *dst; // may be src, if it is laid out alike
    const void *centre, *factor;
    int64_t each;              // 1: centre and factor are of each column; 0: one of each
    const void *scale, *shift; // both NULL, or laid out in these steps:
    int64_t wei_group, wei_row, wei_column;
} fc_spread_work;

// Local response normalisation of `pixels` pixels: dst[c] = src[c] / (k + share * sum of src[j]^2)^beta, the sum over
// c - before <= j <= c + after where there are such channels.  lrn_planes takes vectors of pixels; lrn_channels vectors of
// channels, and room for the squares of those, and of before + after + a vector more.
//
// lrn_grad_planes and lrn_grad_channels: the gradient of that, of which g is that of the result.  The former needs room
// for four vectors of each channel, the latter twice as much as lrn_channels.
typedef struct fc_lrn_work {
    int64_t channels, pixels, src_channel, src_pixel, g_channel, g_pixel, dst_channel, dst_pixel, before, after;
    double share, beta, k;
    const void *src, *g;
    void *dst, *room; // dst may be g, if it is laid out alike
} fc_lrn_work;

// resize_line: a line of `columns` numbers, the sum over t of weight[t][i] * src[index[t][i] * src_step], where a weight of
// zero leaves out its term, whatever it is; without weights a term is src itself, and taps is 1.
typedef struct fc_resize_line {
    int64_t columns, taps, src_step;
    const int32_t *index; // [taps][columns]
    const void *weight;   // [taps][columns], or NULL
    const void *src;
    void *dst;
} fc_resize_line;

// resize_blend: dst[i * dst_step] = sum over r of weight[r] * rows[r][i].
typedef struct fc_resize_blend {
    int64_t columns, count, dst_step;
    const void *const *rows;
    const void *weight;
    void *dst;
} fc_resize_blend;

// resize_channels: both at once, of pixels whose channels adjoin: dst[i * dst_step + c] =
// sum over r, t of row_weight[r] * weight[t][i] * rows[r][index[t][i] * src_step + c].
typedef struct fc_resize_pixels {
    fc_resize_line line; // src unused
    int64_t channels, count, dst_step;
    const void *const *rows;
    const void *row_weight;
} fc_resize_pixels;

typedef void fc_fold_fn(const fc_fold *work);
typedef void fc_spread_fn(const fc_spread_work *work);
typedef void fc_lrn_fn(const fc_lrn_work *work);
typedef void fc_resize_line_fn(const fc_resize_line *work);
typedef void fc_resize_blend_fn(const fc_resize_blend *work);
typedef void fc_resize_pixels_fn(const fc_resize_pixels *work);

#endif
