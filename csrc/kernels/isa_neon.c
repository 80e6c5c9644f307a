// SPDX-License-Identifier: BSD-3-Clause
//
// 8 x 12 floats: 24 accumulators, 3 of B and a broadcast in 32 registers.
#include "simd/neon.h"

#define FC_ISA neon
#define FC_ISA_ID FC_NEON
#define FC_MR 8
#define FC_NV 3
#include "kernels/templates.h"
