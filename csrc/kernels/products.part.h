// SPDX-License-Identifier: BSD-3-Clause
//
// The matrix product, and the table of all kernels.
#include "kernels/burn.tmpl.c"
#include "kernels/convert.tmpl.c"
#include "kernels/gemm.tmpl.c"
#include "kernels/gemm_along.tmpl.c"
#include "kernels/gemm_few.tmpl.c"
#include "kernels/table.tmpl.c"
