// SPDX-License-Identifier: BSD-3-Clause
//
// What puts the operands of products, or their results, into their order, and the products that read them where they lie.
#include "kernels/dot.tmpl.c"
#include "kernels/pack.tmpl.c"
#include "kernels/weave.tmpl.c"
#if FC_BITS == 32
#include "kernels/winograd_weights.tmpl.c"
#endif
