# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions forward beside other libraries: those that are not installed are skipped by name."""

import pytest

import fastconv as fc
from fastconv.bench.cases import ConvCase
from fastconv.bench.contenders import FastConv, FastConvCall, find_peers
from fastconv.bench.layers import WRONG

#: Contenders, and the package that brings each.
PEERS = {
    "torch NCHW": "torch",
    "torch channels_last": "torch",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "ncnn": "ncnn",
    "NumPy im2col": "numpy",
}
OURS = {f"{c.name} {c.layout}": c for c in (FastConv("NCHW"), FastConv("NHWC"), FastConvCall("NHWC"))}


@pytest.fixture(params=[*OURS, *PEERS])
def contender(request):
    if request.param in OURS:
        return OURS[request.param]
    package = PEERS[request.param]
    found, missing = find_peers([package])
    if missing:
        pytest.skip(f"{package} is not installed: {missing[package]}")
    return next(contender for contender in found if contender.name == request.param)


def test_convolution(against_peak, benchmark, conv_layer, batch, dtype, contender):
    case = ConvCase(conv_layer, batch, dtype)
    try:
        ready = contender.prepare(case)
    except NotImplementedError as reason:
        pytest.skip(str(reason))
    group = f"{conv_layer.network} {conv_layer.name}: {conv_layer.label}"
    result = against_peak(group, ready.run, conv_layer.flops(batch))
    threads = ready.threads() if ready.threads else None
    benchmark.extra_info |= {"contender": contender.name, "threads": threads}
    error = case.error(contender.array(result), contender.layout)
    assert error < WRONG
    assert threads in (None, fc.get_num_threads())
