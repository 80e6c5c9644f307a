// SPDX-License-Identifier: BSD-3-Clause
//
// Winograd's transforms, in float32 alone.
#if FC_BITS == 32
#include "kernels/winograd.tmpl.c"
#include "kernels/winograd_grad.tmpl.c"
#include "kernels/winograd_weights.tmpl.c"
#endif
