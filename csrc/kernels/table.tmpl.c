// SPDX-License-Identifier: BSD-3-Clause
//
// table.tmpl.c - the table that hands out the kernels of one ISA and dtype, from whichever part they come.

_Static_assert(FC_MR <= FC_MAX_MR && FC_NR <= FC_MAX_NR, "the tile exceeds what the algorithms set aside for it");

const fc_kernels FC_NAME(kernels) = {
    .isa = FC_ISA_ID,
    .dtype = FC_DTYPE,
    .element = sizeof(T),
    .vl = FC_VL,
#define FC_KERNEL(type, name) .name = FC_NAME(name),
#define FC_GEMM_KERNEL(name, mr, nr)                                                                                   \
    .name = {{FC_DTYPE, FC_DTYPE, FC_DTYPE, FC_DTYPE}, mr, nr, 1, FC_NAME(name), FC_NAME(pack_weights)},
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
