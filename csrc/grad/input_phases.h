// SPDX-License-Identifier: BSD-3-Clause
//
// input_phases.h - the phases of an axis (views.c): inputs r, r + s, ... are a correlation of the output's gradient with every
// (s / g)-th tap in reverse.
#ifndef FC_PHASES_H
#define FC_PHASES_H

#include "conv/parts.h"

// Taps from one of a phase to its next.
static inline int64_t fc_phase_period(const fc_axis *a) { return a->stride / fc_gcd(a->stride, a->dilation); }

// How many taps there are from `first` on.
static inline int64_t fc_phase_taps(const fc_axis *a, int64_t first) {
    return first < a->kernel ? (a->kernel - 1 - first) / fc_phase_period(a) + 1 : 0;
}

// The last of them, which is the first one of the correlation.
static inline int64_t fc_phase_tap(const fc_axis *a, int64_t first) {
    return first + (fc_phase_taps(a, first) - 1) * fc_phase_period(a);
}

// The correlation that makes the inputs r, r + stride, ..., by the taps from `first` on: the first that has an output, j * s
// = r + p - first * e, at hand for input r.
static inline fc_axis fc_phase_axis(const fc_axis *a, int64_t first, int64_t r) {
    const int64_t taps = fc_phase_taps(a, first), dilation = a->dilation / (a->stride / fc_phase_period(a));
    return (fc_axis){
        .in = a->out,
        .out = (a->in - 1 - r) / a->stride + 1,
        .kernel = taps,
        .stride = 1,
        .dilation = dilation,
        .pad = (taps - 1) * dilation - (r + a->pad - first * a->dilation) / a->stride,
    };
}

#endif
