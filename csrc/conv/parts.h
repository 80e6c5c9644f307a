// SPDX-License-Identifier: BSD-3-Clause
//
// parts.h - problems that fall apart into forward problems, of which many are the same.
#ifndef FC_PARTS_H
#define FC_PARTS_H

#include "core/plan.h"

// Parts along one axis that are the same problem: of each the first tap, and the first positions of src and of dst.
typedef struct fc_series {
    fc_axis axis;
    int64_t count; // may be 0
    int64_t tap, tap_step, from, from_step, at, at_step;
} fc_series;

// How a problem falls apart.  One series along each axis makes count * count * count parts, which have taps and write
// positions of their own; a position that no part writes is an empty sum.
typedef struct fc_split {
    fc_problem whole; // a forward problem; of its axes only what `series` goes by
    int64_t positions[FC_AXES];
    int64_t step[FC_AXES], tap_step[FC_AXES]; // of a part: from output to output, and from tap to tap
    int64_t src_step[FC_AXES];                // and from input to input
    int one_kernel;                           // every part has all the weights: they are packed but once
    int64_t kinds[FC_AXES];                   // fours of series
    int64_t sample;                           // of an axis' kinds, as many as an estimate looks at
    int64_t length[FC_AXES], tile, by_taps;   // of bands (conv/bands.c)
    fc_series (*series)(const struct fc_split *split, int axis, int64_t index);
} fc_split;

// Of an axis that does not fall apart.
fc_series fc_whole_series(const fc_split *split, int axis, int64_t index);

static inline int64_t fc_gcd(int64_t a, int64_t b) {
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static inline int64_t fc_floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

typedef fc_verdict (*fc_ask_fn)(const fc_op *op, const fc_options *options);

// The sums of what all parts say when asked; a refusal of any.
fc_verdict fc_parts_ask(const fc_split *split, fc_ask_fn ask, const fc_options *options);
// The verbs of a kind.
fc_status fc_parts_layout(fc_plan *plan, const fc_split *split, const fc_request *request, const fc_options *options,
                          char message[FC_MESSAGE]);
fc_status fc_parts_pack(const fc_plan *plan, const void *wei, const void *bias, void *packed, int threads);
void fc_parts_stages(const fc_plan *plan, int threads, fc_list *list);
const char *fc_parts_form(const fc_plan *plan);

#endif
