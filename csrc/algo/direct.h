// SPDX-License-Identifier: BSD-3-Clause
//
// direct.h - the two forms of direct convolution: direct.c has the pixels form and chooses, direct_channels.c the other.
#ifndef FC_DIRECT_H
#define FC_DIRECT_H

#include "algo/plan.h"

const char *fc_direct_channels_refuse(const fc_problem *problem, const fc_kernels *kernels);
double fc_direct_channels_cost(const fc_problem *problem, const fc_kernels *kernels, const fc_costs *costs);
fc_status fc_direct_channels_layout(fc_plan *plan);

#endif
