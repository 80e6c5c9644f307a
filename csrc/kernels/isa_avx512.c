// SPDX-License-Identifier: BSD-3-Clause
//
// 14 x 32 floats: 28 accumulators, 2 of B and a broadcast in 32 registers.
#include "simd/avx512.h"

#define FC_ISA avx512
#define FC_ISA_ID FC_AVX512
#define FC_MR 14
#define FC_NV 2
#define FC_HALVES (FC_BITS == 32) // there are v_half_op
#include "kernels/templates.h"
