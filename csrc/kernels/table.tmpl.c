// SPDX-License-Identifier: BSD-3-Clause
//
// All kernels of one ISA and dtype, and the table that hands them out.
#include "kernels/burn.tmpl.c"
#include "kernels/gemm.tmpl.c"

#include "kernels/convert.tmpl.c"
#include "kernels/depthwise.tmpl.c"
#include "kernels/depthwise_channels.tmpl.c"
#include "kernels/map_functions.tmpl.c"

#include "kernels/fold.tmpl.c"
#include "kernels/lrn.tmpl.c"
#include "kernels/map.tmpl.c"
#include "kernels/map_rows.tmpl.c"
#include "kernels/pack.tmpl.c"
#include "kernels/pool.tmpl.c"
#include "kernels/pool_bands.tmpl.c"
#include "kernels/pool_grad.tmpl.c"
#include "kernels/rectangle.tmpl.c"
#include "kernels/resize.tmpl.c"
#include "kernels/stencil.tmpl.c"
#if FC_BITS == 32
#include "kernels/winograd.tmpl.c"
#include "kernels/winograd_weights.tmpl.c"
#endif

_Static_assert(FC_MR <= FC_MAX_MR && FC_NR <= FC_MAX_NR, "the tile exceeds what the algorithms set aside for it");

const fc_kernels FC_NAME(kernels) = {
    .isa = FC_ISA_ID,
    .dtype = FC_DTYPE,
    .element = sizeof(T),
    .vl = FC_VL,
#define FC_KERNEL(type, name) .name = FC_NAME(name),
#define FC_GEMM_KERNEL(name)                                                                                           \
    .name = {{FC_DTYPE, FC_DTYPE, FC_DTYPE, FC_DTYPE}, FC_MR, FC_NR, 1, FC_NAME(name), FC_NAME(pack_weights)},
#if FC_BITS == 32
#define FC_SINGLE_KERNEL(type, name) .name = FC_NAME(name),
#else
#define FC_SINGLE_KERNEL(type, name) .name = NULL,
#endif
#include "kernels/kernels.inc"
#undef FC_SINGLE_KERNEL
#undef FC_GEMM_KERNEL
#undef FC_KERNEL
};
