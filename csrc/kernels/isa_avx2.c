// SPDX-License-Identifier: BSD-3-Clause
//
// 6 x 16 floats: 12 accumulators, 2 of B and a broadcast in 16 registers.
#include "simd/avx2.h"

#define FC_ISA avx2
#define FC_ISA_ID FC_AVX2
#define FC_MR 6
#define FC_NV 2
#include "kernels/templates.h"
