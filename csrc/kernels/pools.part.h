// SPDX-License-Identifier: BSD-3-Clause
//
// Pooling and its gradients.
#include "kernels/pool.tmpl.c"
#include "kernels/pool_pairs.tmpl.c"

// Those of bands store positions as those of pairs do.
#include "kernels/pool_bands.tmpl.c"
#include "kernels/pool_gather.tmpl.c"
#include "kernels/pool_grad.tmpl.c"
