// SPDX-License-Identifier: BSD-3-Clause
//
// direct.h - the two forms of direct convolution: direct.c has the one over pixels and chooses, direct_channels.c the other.
#ifndef FC_DIRECT_H
#define FC_DIRECT_H

#include "conv/gemm/gemm.h"

// Whether its outputs are so few that they are summed one by one, along the channels.
int fc_direct_channels_along(const fc_request *request);
const char *fc_direct_channels_refuse(const fc_request *request);
double fc_direct_channels_cost(const fc_request *request);
fc_status fc_direct_channels_layout(fc_plan *plan, const fc_request *request);

#endif
