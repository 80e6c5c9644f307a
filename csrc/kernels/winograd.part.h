// SPDX-License-Identifier: BSD-3-Clause
//
// Winograd's transforms of tiles, in float32 alone.
#if FC_BITS == 32
#include "kernels/winograd.tmpl.c"
#include "kernels/winograd_grad.tmpl.c"
#endif
