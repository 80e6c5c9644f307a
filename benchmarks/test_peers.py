# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions forward beside other libraries: those that are not installed are skipped by name."""

import pytest

import fastconv as fc
from fastconv.bench.cases import ConvCase
from fastconv.bench.contenders import PEERS, FastConv, FastConvCall, find_peers
from fastconv.bench.layers import WRONG
from fastconv.bench.versus import name_of

#: What each library has to show; a name that find_peers cannot serve is a test that is skipped.
NAMES = {
    "torch": ["torch NCHW", "torch channels_last"],
    "onnxruntime": ["ONNX Runtime"],
    "openvino": ["OpenVINO"],
    "ncnn": ["ncnn"],
    "numpy": ["NumPy im2col"],
}
OURS = {name_of(contender): contender for contender in (*map(FastConv, ("NCHW", "NHWC")), FastConvCall("NHWC"))}


@pytest.fixture(params=[*OURS, *(name for peer in PEERS for name in NAMES[peer])])
def contender(request):
    if request.param in OURS:
        return OURS[request.param]
    peer = next(peer for peer, names in NAMES.items() if request.param in names)
    found, missing = find_peers([peer])
    if missing:
        pytest.skip(f"{peer} is not installed: {missing[peer]}")
    return next(contender for contender in found if name_of(contender) == request.param)


def test_convolution(against_peak, benchmark, conv_layer, batch, dtype, contender):
    case = ConvCase(conv_layer, batch, dtype)
    try:
        ready = contender.prepare(case)
    except NotImplementedError as reason:
        pytest.skip(str(reason))
    group = f"{conv_layer.network} {conv_layer.name}: {conv_layer.label}"
    result = against_peak(group, ready.run, conv_layer.flops(batch))
    threads = ready.threads() if ready.threads else None
    benchmark.extra_info |= {"contender": name_of(contender), "threads": threads}
    error = case.error(contender.array(result), contender.layout)
    assert error < WRONG
    assert threads in (None, fc.get_num_threads())
