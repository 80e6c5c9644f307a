# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions forward, weights packed once, beside NumPy's best form of them."""

import pytest

from fastconv.bench.cases import ConvCase
from fastconv.bench.contenders import FastConv, NumpyIm2col

CONTENDERS = {"fastconv NCHW": FastConv("NCHW"), "fastconv NHWC": FastConv("NHWC"), "NumPy im2col": NumpyIm2col()}


@pytest.mark.parametrize("name", CONTENDERS)
def test_convolution(against_peak, benchmark, conv_layer, batch, dtype, name):
    case, contender = ConvCase(conv_layer, batch, dtype), CONTENDERS[name]
    ready = contender.prepare(case)
    group = f"{conv_layer.network} {conv_layer.name}: {conv_layer.label}"
    result = against_peak(group, ready.run, conv_layer.flops(batch))
    benchmark.extra_info |= {"algorithm": ready.algorithm, "workspace_bytes": ready.workspace_bytes}
    assert case.error(result, contender.layout) < 5e-6
