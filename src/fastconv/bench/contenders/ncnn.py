# SPDX-License-Identifier: BSD-3-Clause
"""ncnn, in float32 throughout.

Networks come to it by its own translator, pnnx, which folds and fuses as ncnn is meant to be used.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import ncnn
import numpy as np

import fastconv as fc
from fastconv._names import only
from fastconv.bench.cases import Case, ConvCase, NetworkCase, PoolCase
from fastconv.bench.contenders._onnx import model_for
from fastconv.bench.contenders.base import Contender, Prepared

__all__ = ["Ncnn", "contenders"]
__dir__ = only(__all__)

#: Options that would compute with less than float32.
NARROW = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage"),
    *("use_int8_packed", "use_int8_storage", "use_int8_arithmetic", "use_int8_inference"),
)


class Ncnn(Contender):
    """A net of one layer or of many; it takes images one by one."""

    name = "ncnn"
    package = "ncnn"
    networks = True

    def translate(self, case: Case) -> None:
        if isinstance(case, NetworkCase):
            _translated(case)

    def prepare(self, case: Case) -> Prepared:
        if case.dtype != "float32":
            raise NotImplementedError("ncnn has float32 at most")
        net = ncnn.Net()
        net.opt.num_threads = fc.get_num_threads()
        net.opt.use_vulkan_compute = False
        for option in NARROW:
            if hasattr(net.opt, option):
                setattr(net.opt, option, False)
        with _files(case) as files:
            if net.load_param(str(files.parameters)):
                raise NotImplementedError("ncnn refuses the layer")
            if net.load_model(str(files.weights)):
                raise NotImplementedError("ncnn refuses the weights")
        images = [ncnn.Mat(image) for image in case.input("NCHW")]

        def run() -> list[ncnn.Mat]:
            return [_one(net, image, files.input, files.output) for image in images]

        return Prepared(run, threads=lambda: net.opt.num_threads)

    def array(self, result: list[ncnn.Mat]) -> np.ndarray:
        return np.stack([np.array(mat) for mat in result])


def contenders() -> list[Contender]:
    """The one there is."""
    return [Ncnn()]


class _Files(NamedTuple):
    """A net as ncnn reads it, and its names of input and output."""

    parameters: Path
    weights: Path
    input: str = "x"
    output: str = "y"


@contextmanager
def _files(case: Case) -> Iterator[_Files]:
    """The files of a case, which are gone afterwards unless it keeps them."""
    if isinstance(case, NetworkCase):
        yield _translated(case)
        return
    line, weights = _conv(case) if isinstance(case, ConvCase) else (_pool(case), b"")
    with tempfile.TemporaryDirectory() as folder:
        files = _Files(Path(folder) / "layer.param", Path(folder) / "layer.bin")
        # The parameters' fields are numbered: https://github.com/Tencent/ncnn/wiki/operators
        files.parameters.write_text(f"7767517\n2 2\nInput x 0 1 x\n{line}\n")
        files.weights.write_bytes(weights)
        yield files


#: By network and seed, files that are there as long as the process: they serve batches of any size.
_FOLDERS: dict[tuple[str, tuple[int, ...], int], tempfile.TemporaryDirectory[str]] = {}


def _translated(case: NetworkCase) -> _Files:
    """A network for one image."""
    key = case.layer.name, case.layer.image, case.seed
    if key not in _FOLDERS:
        made = tempfile.TemporaryDirectory()
        _translate(case, Path(made.name))
        _FOLDERS[key] = made
    folder = Path(_FOLDERS[key].name)
    return _Files(folder / "net.ncnn.param", folder / "net.ncnn.bin", "in0", "out0")


def _translate(case: NetworkCase, folder: Path) -> None:
    try:
        from pnnx import EXEC_PATH
    except ImportError as error:
        raise NotImplementedError(f"pnnx, which translates networks for ncnn, is not installed ({error})") from None
    (folder / "net.onnx").write_bytes(model_for(case, 1))
    sizes = ",".join(map(str, case.layer.input_shape(1)))
    command = [EXEC_PATH, "net.onnx", f"inputshape=[{sizes}]f32", "fp16=0"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode or not (folder / "net.ncnn.bin").exists():
        raise NotImplementedError(f"pnnx fails: {done.stdout.strip().splitlines()[-1:]}")
    for path in folder.iterdir():  # half a dozen forms of the same weights
        if not path.name.startswith("net.ncnn."):
            path.unlink()


def _one(net: ncnn.Net, image: ncnn.Mat, source: str, target: str) -> ncnn.Mat:
    extractor = net.create_extractor()
    extractor.input(source, image)
    status, output = extractor.extract(target)
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
