// SPDX-License-Identifier: BSD-3-Clause
//
// depthwise.h - the convolutions of one input channel whose taps are unrolled: taps x taps without dilation, their outputs
// `apart` inputs apart; in float64 only 3 x 3 of stride 1.
#ifndef FC_DEPTHWISE_H
#define FC_DEPTHWISE_H

#include "problem.h"

#define FC_DEPTHWISE_LIST(X, body)                                                                                     \
    X(body, 2, 1)                                                                                                      \
    X(body, 3, 1)                                                                                                      \
    X(body, 3, 2)                                                                                                      \
    X(body, 5, 1)                                                                                                      \
    X(body, 5, 2)                                                                                                      \
    X(body, 7, 1)

static inline int fc_depthwise_is(const fc_problem *p, int64_t taps, int64_t apart) {
    const fc_axis *h = &p->axis[1], *w = &p->axis[2];
    return h->kernel == taps && w->kernel == taps && h->stride == apart && w->stride == apart && h->dilation == 1 &&
           w->dilation == 1;
}

// Those of which one kernel has all gradients: the larger in float32, where there are 32 registers of vectors.
static inline int fc_depthwise_has_steps(const fc_problem *p, int larger) {
    return fc_depthwise_is(p, 3, 1) || fc_depthwise_is(p, 3, 2) ||
           (larger && (fc_depthwise_is(p, 5, 1) || fc_depthwise_is(p, 5, 2) || fc_depthwise_is(p, 7, 1)));
}

#endif
