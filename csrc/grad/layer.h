// SPDX-License-Identifier: BSD-3-Clause
//
// layer.h - all gradients of a layer at once, of tensors where they lie.
#ifndef FC_GRAD_LAYER_H
#define FC_GRAD_LAYER_H

#include "core/kind.h"

extern const fc_kind fc_kind_layer_in_place;

// Predicted seconds until all three tensors have gone through memory, if they do not stay in the second level. About half of
// them pass while there is something to compute.
double fc_layer_cost_memory(const fc_request *request);

// Predicted seconds of one gradient after the other.
double fc_layer_cost_apart(const fc_request *request);

#endif
