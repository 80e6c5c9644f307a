# SPDX-License-Identifier: BSD-3-Clause
"""ncnn, in float32 throughout."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ncnn
import numpy as np

import fastconv as fc
from fastconv._names import only
from fastconv.bench.cases import Case, ConvCase, PoolCase
from fastconv.bench.contenders.base import Contender, Prepared

__all__ = ["Ncnn", "contenders"]
__dir__ = only(__all__)

#: Options that would compute with less than float32.
NARROW = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage"),
    *("use_int8_packed", "use_int8_storage", "use_int8_arithmetic", "use_int8_inference"),
)


class Ncnn(Contender):
    """A net of one layer; it takes images one by one."""

    name = "ncnn"
    package = "ncnn"

    def prepare(self, case: Case) -> Prepared:
        if case.dtype != "float32":
            raise NotImplementedError("ncnn has float32 at most")
        net = ncnn.Net()
        net.opt.num_threads = fc.get_num_threads()
        net.opt.use_vulkan_compute = False
        for option in NARROW:
            if hasattr(net.opt, option):
                setattr(net.opt, option, False)
        line, weights = _conv(case) if isinstance(case, ConvCase) else (_pool(case), b"")
        # The parameters' fields are numbered: https://github.com/Tencent/ncnn/wiki/operators
        if net.load_param_mem(f"7767517\n2 2\nInput x 0 1 x\n{line}\n"):
            raise NotImplementedError("ncnn refuses the layer")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.bin"
            path.write_bytes(weights)
            if net.load_model(str(path)):
                raise NotImplementedError("ncnn refuses the weights")
        images = [ncnn.Mat(image) for image in case.input("NCHW")]

        def run() -> list[ncnn.Mat]:
            return [_one(net, image) for image in images]

        return Prepared(run, threads=lambda: net.opt.num_threads)

    def array(self, result: list[ncnn.Mat]) -> np.ndarray:
        return np.stack([np.array(mat) for mat in result])


def contenders() -> list[Contender]:
    """The one there is."""
    return [Ncnn()]


def _one(net: ncnn.Net, image: ncnn.Mat) -> ncnn.Mat:
    extractor = net.create_extractor()
    extractor.input("x", image)
    status, output = extractor.extract("y")
    if status:
        raise RuntimeError(f"ncnn fails with status {status}")
    return output


def _conv(case: ConvCase) -> tuple[str, bytes]:
    layer = case.layer
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel, layer.stride, layer.dilation
    top, bottom, left, right = layer.sides
    fields = {0: layer.out_channels, 1: kw, 11: kh, 2: dw, 12: dh, 3: sw, 13: sh}
    fields |= {4: left, 15: right, 14: top, 16: bottom, 5: 1, 6: case.weight.size}
    kind = "Convolution"
    if layer.groups > 1:
        kind, fields[7] = "ConvolutionDepthWise", layer.groups
    flag = bytes(4)  # the weights are float32
    return _line(kind, fields), flag + case.weight.tobytes() + case.bias.tobytes()


def _pool(case: Case) -> str:
    assert isinstance(case, PoolCase)
    layer = case.layer
    (kh, kw), (sh, sw) = layer.kernel, layer.stride
    top, bottom, left, right = layer.sides
    valid, with_padding = 1, 1
    fields = {0: {"max": 0, "avg": 1}[layer.kind], 1: kw, 11: kh, 2: sw, 12: sh}
    fields |= {3: left, 14: right, 13: top, 15: bottom, 5: valid, 6: with_padding}
    return _line("Pooling", fields)


def _line(kind: str, fields: dict[int, int]) -> str:
    return f"{kind} layer 1 1 x y " + " ".join(f"{number}={value}" for number, value in fields.items())
