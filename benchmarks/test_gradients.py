# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of convolution and pooling; each of the former does as many operations as the forward call."""

import numpy as np
import pytest

import fastconv as fc
from fastconv.bench.cases import ConvCase, PoolCase

LAYOUTS = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])


def gradient(case, layout):
    """A random gradient of the output."""
    shape = case.layer.output_shape(case.batch, layout)
    return np.random.default_rng(1).standard_normal(shape, np.float32).astype(case.dtype)


@LAYOUTS
def test_by_input(against_peak, conv_layer, batch, dtype, layout):
    case = ConvCase(conv_layer, batch, dtype)
    grad, shape = gradient(case, layout), conv_layer.input_shape(batch, layout)

    def run():
        return fc.grad.conv2d_input(shape, case.weight, grad, **conv_layer.arguments, layout=layout)

    against_peak(f"by input, {conv_layer.network} {conv_layer.name}", run, conv_layer.flops(batch))


@LAYOUTS
def test_by_weight(against_peak, conv_layer, batch, dtype, layout):
    case = ConvCase(conv_layer, batch, dtype)
    grad, x = gradient(case, layout), case.input(layout)

    def run():
        return fc.grad.conv2d_weight(x, conv_layer.weight_shape, grad, **conv_layer.arguments, layout=layout)

    against_peak(f"by weight, {conv_layer.network} {conv_layer.name}", run, conv_layer.flops(batch))


@LAYOUTS
def test_of_pooling(against_memory, pool_layer, batch, dtype, layout):
    case = PoolCase(pool_layer, batch, dtype)
    grad, x, arguments = gradient(case, layout), case.input(layout), pool_layer.arguments
    if pool_layer.kind == "max":
        _, indices = fc.max_pool2d(x, **arguments, return_indices=True, layout=layout)

        def run():
            return fc.grad.max_pool2d(grad, indices, x.shape, layout=layout)
    else:

        def run():
            return fc.grad.avg_pool2d(grad, x.shape, **arguments, layout=layout)

    nbytes = pool_layer.traffic(case.dtype.itemsize, batch)
    against_memory(f"of pooling, {pool_layer.network} {pool_layer.name}", run, nbytes)
