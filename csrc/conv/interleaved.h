// SPDX-License-Identifier: BSD-3-Clause
//
// interleaved.h - planes of channels, a vector of which are interleaved in scratch memory.
#ifndef FC_CONV_INTERLEAVED_H
#define FC_CONV_INTERLEAVED_H

#include "core/plan.h"

// Vectors copied in the time that one takes to be transposed.
static const double fc_turn = 1.5;
// Stages of a block, which its task runs alone, in the time of one of a call.
enum { FC_ALONE_STAGES = 16 };

// The planes of a tensor: sizes, and in `view` from element to element; from channel to channel, of any group, it is `step`.
typedef struct fc_planes {
    int64_t size[FC_AXES];
    const fc_view *view;
    int64_t step;
} fc_planes;

// Of what is read by a forward convolution, or of what that writes.
static inline fc_planes fc_planes_of(const fc_problem *p, int outputs) {
    const fc_view *v = outputs ? &p->dst : &p->src;
    fc_planes planes = {.view = v, .step = p->in_channels == 1 ? v->group : v->channel};
    for (int i = 0; i < FC_AXES; i++) planes.size[i] = outputs ? p->axis[i].out : p->axis[i].in;
    return planes;
}

static inline int64_t fc_planes_positions(const fc_planes *planes) {
    return planes->size[0] * planes->size[1] * planes->size[2];
}

// Of `lanes` interleaved planes, in groups of `channels`.
fc_view fc_interleaved_view(const fc_planes *planes, int64_t lanes, int64_t channels);
// Those of one image, from where the call has them to where they are interleaved, or back.
void fc_interleave(const fc_planes *planes, const fc_kernels *kernels, int64_t lanes, char *at, char *scratch,
                   int to_scratch);

#endif
