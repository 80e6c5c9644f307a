// SPDX-License-Identifier: BSD-3-Clause
//
// What waits for memory, not for its instructions: a few operations on each number of large arrays.
#include "kernels/batch_norm.tmpl.c"
#include "kernels/spread.tmpl.c"
