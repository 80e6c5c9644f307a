// SPDX-License-Identifier: BSD-3-Clause
#ifndef FC_PADDED_H
#define FC_PADDED_H

#include "core/plan.h"

// Zero-padded rows, split into the phases of the stride: what direct and depthwise read instead of the image over
// pixels.
typedef struct fc_padded {
    int64_t rows;       // output rows that they serve
    int64_t rows_extra; // further rows of a phase plane
    int64_t width;      // of a phase plane
    int64_t pixel;      // elements from column to column
    int64_t plane;      // elements of a phase plane
    int64_t elements;   // of all planes, and of `slack` elements that a last vector may read on
} fc_padded;

// Whether one output row of one channel takes at most `bytes`: to be asked first, since what follows would overflow.
int fc_padded_fits(const fc_problem *problem, int64_t bytes);
fc_padded fc_padded_rows(const fc_problem *problem, int64_t rows, int64_t channels, int64_t pixel, int64_t slack);
// With the elements of so many planes.
fc_padded fc_padded_of_planes(fc_padded padded, int64_t planes, int64_t slack);
// Where the input of each tap of each plane of channels lies: offsets[channels * taps].
void fc_padded_offsets(const fc_problem *problem, const fc_padded *padded, int64_t channels, int64_t *offsets);

#endif
