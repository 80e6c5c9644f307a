// SPDX-License-Identifier: BSD-3-Clause
//
// One lane: what every machine can run, and the yardstick of the others.
#include "simd/scalar.h"

#define FC_ISA scalar
#define FC_ISA_ID FC_SCALAR
#define FC_MR 4
#define FC_NV 4
#include "kernels/templates.h"
