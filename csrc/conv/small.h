// SPDX-License-Identifier: BSD-3-Clause
//
// small.h - what convolutions and weight gradients of batches of small images have in common.
#ifndef FC_SMALL_H
#define FC_SMALL_H

#include "core/plan.h"

// Taps of a kernel, at most.
enum { FC_SMALL_KERNEL = 512 };

// Why images are not small, or not many, or have outputs that see none of their pixels; or NULL.
const char *fc_small_refuses(const fc_request *request);
// Pairs of an output and a tap that see the image.
int64_t fc_small_pairs(const fc_problem *problem);
// The first output along an axis that sees the image by tap k, and the end of those that do.
int64_t fc_small_seen(const fc_axis *axis, int64_t k, int64_t *end);
static inline int64_t fc_small_input(const fc_axis *a, int64_t k, int64_t out) {
    return out * a->stride - a->pad + k * a->dilation;
}
// The pixels of an image of so many along each axis, channels last, `pitch` elements apart.
void fc_small_copy(const fc_kernels *kernels, const fc_view *view, const int64_t size[FC_AXES], int64_t channels,
                   const void *image, void *pixels, int64_t pitch);

#endif
