// SPDX-License-Identifier: BSD-3-Clause
//
// algorithms.h - what can compute a convolution or a gradient of one: every kind is listed here, and nowhere else.
#ifndef FC_ALGORITHMS_H
#define FC_ALGORITHMS_H

#include "core/kind.h"

// By direction and algorithm.  NULL where a gradient has none of its own: then that of the forward direction is asked.
extern const fc_kind *const fc_algorithms[FC_DIRECTIONS][FC_ALGOS];
// Of any algorithm and direction, by way of other problems; NULL behind the last.
extern const fc_kind *const fc_derived_kinds[];
// Of those, gradients as forward problems; and several images as one, each like any other.
extern const fc_kind fc_kind_views, fc_kind_images;

#endif
