// SPDX-License-Identifier: BSD-3-Clause
//
// Kernels that go through the taps of one channel at a time.
#include "kernels/depthwise.tmpl.c"
#include "kernels/depthwise_channels.tmpl.c"
#include "kernels/depthwise_grad.tmpl.c"
#include "kernels/depthwise_lines.tmpl.c"
#include "kernels/depthwise_phases.tmpl.c"
#include "kernels/depthwise_steps.tmpl.c"
#include "kernels/stencil.tmpl.c"

// Made of the stencil's tiles.
#include "kernels/depthwise_tall.tmpl.c"
