# SPDX-License-Identifier: BSD-3-Clause
"""Calls in which one allocation of Python's fails, each in its turn: MemoryError or the right result, nothing else.

The failures reach everything in a process, and a fault ends it, so that this file is also the program that the tests
start: ``python test_no_memory.py GROUP`` goes through the allocations of a group of calls.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv as fc
from fastconv import _config, _core, _plans
from fastconv.ops import _convolution, _windows
from support import poison

rng = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


X1, X2, X3 = normal(2, 4, 9), normal(2, 4, 6, 7), normal(1, 4, 5, 4, 4)
W1, W2, W3, B = normal(4, 4, 3), normal(4, 4, 3, 3), normal(4, 4, 2, 3, 2), normal(4)
G1, G2, G3, G4, T2 = (
    normal(2, 4, 7),
    normal(2, 4, 4, 5),
    normal(1, 4, 4, 2, 3),
    normal(2, 4, 3, 3),
    normal(2, 4, 13, 15),
)
LAST, HALVES = X2.transpose(0, 2, 3, 1).copy(), (X2.astype(np.float16), W2.astype(np.float16))
MATRIX, G5, LABELS = normal(5, 7), normal(2, 4, 6, 5), np.arange(5)
POOLED, WHERE = fc.max_pool2d(X2, 2, return_indices=True)
PLAN, TRANSPOSED = fc.ConvPlan(X2.shape, W2, B), fc.ConvPlan(X2.shape, W2, stride=2, transposed=True)
OUT = {shape: poison(shape) for shape in (G2.shape, T2.shape, POOLED.shape)}

Calls = dict[str, Callable[[], Any]]


def layer(module: fc.nn.Module) -> Callable[[], Any]:
    def run() -> Any:
        y = module(X2)
        module.zero_grad()
        return y, module.backward(y), *(p.grad.copy() for p in module.parameters())

    return run


def stepped(kind: int) -> list[np.ndarray]:
    """A step by itself: how a parameter lends its values goes through NumPy, which takes a MemoryError for another."""
    rule = (kind, False, 0.1, 0.0, 0.9, 1.0, 1.0, 0.9, 1.0, 1e-8)
    parameters = [W2.copy(), B.copy()]
    arrays: list[Any] = [(0, False, p, np.ones_like(p), (np.zeros_like(p), np.zeros_like(p))) for p in parameters]
    _core.update([rule], arrays, _config.ISA, 1)
    return parameters


def scipy_calls() -> Calls:
    from fastconv.scipy import ndimage, signal

    image, kernel, line = X2[0, 0].copy(), W2[0, 0].copy(), W1[0, 0].copy()
    return {
        "convolve": lambda: ndimage.convolve(image, kernel),
        "correlate": lambda: ndimage.correlate(image, kernel, mode="wrap"),
        "correlate1d": lambda: ndimage.correlate1d(image, line),
        "gaussian_filter": lambda: ndimage.gaussian_filter(image, 1.0),
        "uniform_filter": lambda: ndimage.uniform_filter(image, 3),
        "signal.convolve": lambda: signal.convolve(image, kernel),
        "signal.correlate2d": lambda: signal.correlate2d(image, kernel, boundary="symm"),
        "sepfir2d": lambda: signal.sepfir2d(image, line, line),
    }


CONVOLUTIONS: Calls = {
    "conv1d": lambda: fc.conv1d(X1, W1, B, padding="same"),
    "conv2d": lambda: fc.conv2d(X2, W2, B, activation="relu"),
    "conv2d, residual": lambda: fc.conv2d(X2, W2, residual=G2),
    "conv2d, out": lambda: fc.conv2d(X2, W2, out=OUT[G2.shape]),
    "conv2d, float16": lambda: fc.conv2d(*HALVES),
    "conv2d, channels last": lambda: fc.conv2d(LAST, W2, layout="NHWC"),
    "conv2d, winograd": lambda: fc.conv2d(X2, W2, algorithm="winograd"),
    "conv3d": lambda: fc.conv3d(X3, W3, stride=(1, 2, 1)),
    "conv_transpose1d": lambda: fc.conv_transpose1d(X1, W1, stride=2),
    "conv_transpose2d": lambda: fc.conv_transpose2d(X2, W2, B, stride=2, output_padding=1),
    "conv_transpose2d, out": lambda: fc.conv_transpose2d(X2, W2, stride=2, out=OUT[T2.shape]),
    "conv_transpose3d": lambda: fc.conv_transpose3d(X3, W3),
    "linear": lambda: fc.linear(X2, MATRIX),
}
PLANS: Calls = {
    "ConvPlan": lambda: fc.ConvPlan(X2.shape, W2, B)(X2),
    "ConvPlan, float16": lambda: fc.ConvPlan(X2.shape, HALVES[1])(HALVES[0]),
    "a call": lambda: PLAN(X2),
    "a call, residual": lambda: PLAN(X2, residual=G2),
    "a call, out": lambda: PLAN(X2, out=OUT[G2.shape]),
    "a call, strides": lambda: PLAN(X2[:, ::-1]),
    "a call, transposed": lambda: TRANSPOSED(X2),
    "explain": lambda: PLAN.explain(measure=False),
    "algorithms": lambda: fc.algorithms(X2.shape, W2.shape),
}
# Neither unpooling nor the gradient of interpolation: NumPy's indexing by arrays ends the process where it cannot have
# an iterator.
POOLING: Calls = {
    "max_pool1d": lambda: fc.max_pool1d(X1, 2),
    "max_pool2d": lambda: fc.max_pool2d(X2, 2),
    "max_pool2d, indices": lambda: fc.max_pool2d(X2, 2, return_indices=True),
    "max_pool2d, out": lambda: fc.max_pool2d(X2, 2, out=OUT[POOLED.shape]),
    "max_pool2d, float16": lambda: fc.max_pool2d(HALVES[0], 2),
    "max_pool3d": lambda: fc.max_pool3d(X3, 2, return_indices=True),
    "avg_pool2d": lambda: fc.avg_pool2d(X2, 3, padding=1, ceil_mode=True),
    "avg_pool3d": lambda: fc.avg_pool3d(X3, 2),
    "adaptive_max_pool2d": lambda: fc.adaptive_max_pool2d(X2, 3, return_indices=True),
    "adaptive_avg_pool2d": lambda: fc.adaptive_avg_pool2d(LAST, (3, 2), layout="NHWC"),
    "global_max_pool": lambda: fc.global_max_pool(X2),
    "global_avg_pool": lambda: fc.global_avg_pool(X2),
    "lp_pool2d": lambda: fc.lp_pool2d(X2, 2, 2),
}
OTHERS: Calls = {
    "batch_norm": lambda: fc.batch_norm(X2, B, abs(B)),
    "local_response_norm": lambda: fc.local_response_norm(X2, 3),
    "softmax": lambda: fc.softmax(X2, 1),
    "layer_norm": lambda: fc.layer_norm(X2, X2.shape[1:]),
    "group_norm": lambda: fc.group_norm(X2, 2),
    "instance_norm": lambda: fc.instance_norm(X2, B.copy(), abs(B)),
    "interpolate": lambda: fc.interpolate(X2, 9, mode="bilinear"),
    "silu": lambda: fc.silu(X2),
    "cross_entropy": lambda: fc.cross_entropy(MATRIX, LABELS, label_smoothing=0.1),
    "mse_loss": lambda: fc.mse_loss(X2, X2),
    "pad": lambda: fc.pad(X2, (1, 2), "reflect"),
    "nn.Conv2d": layer(fc.nn.Conv2d(4, 4, 3, padding=1)),
    "nn.ConvTranspose2d": layer(fc.nn.ConvTranspose2d(4, 4, 3, stride=2)),
    "nn.MaxPool2d": layer(fc.nn.MaxPool2d(2)),
    "nn.BatchNorm2d": layer(fc.nn.BatchNorm2d(4)),
    "a step of SGD": lambda: stepped(0),
    "a step of Adam": lambda: stepped(1),
}
GRADIENTS: Calls = {
    "conv1d_input": lambda: fc.grad.conv1d_input(X1.shape, W1, G1),
    "conv2d_input": lambda: fc.grad.conv2d_input(X2.shape, W2, G2),
    "conv2d_weight": lambda: fc.grad.conv2d_weight(X2, W2.shape, G2),
    "conv3d_weight": lambda: fc.grad.conv3d_weight(X3, W3.shape, G3),
    "conv2d_all": lambda: fc.grad.conv2d(X2, W2, G2, mask=G2),
    "conv_transpose2d_input": lambda: fc.grad.conv_transpose2d_input(X2.shape, W2, T2, stride=2),
    "conv_transpose2d_weight": lambda: fc.grad.conv_transpose2d_weight(X2, W2.shape, T2, stride=2),
    "max_pool2d": lambda: fc.grad.max_pool2d(POOLED, WHERE, X2.shape),
    "avg_pool2d": lambda: fc.grad.avg_pool2d(G4, X2.shape, 2),
    "adaptive_avg_pool2d": lambda: fc.grad.adaptive_avg_pool2d(G4, X2.shape),
    "lp_pool2d": lambda: fc.grad.lp_pool2d(G4, X2, 2, 2),
    "linear": lambda: fc.grad.linear(X2, MATRIX, G5),
    "batch_norm": lambda: fc.grad.batch_norm(X2, X2, training=True),
    "cross_entropy": lambda: fc.grad.cross_entropy(1.0, MATRIX, LABELS),
    "group_norm": lambda: fc.grad.group_norm(X2, X2, 2),
}
GROUPS: dict[str, Callable[[], Calls]] = {
    "convolutions": lambda: CONVOLUTIONS,
    "plans": lambda: PLANS,
    "pooling": lambda: POOLING,
    "others": lambda: OTHERS,
    "gradients": lambda: GRADIENTS,
    "scipy": scipy_calls,
}


def forget() -> None:
    """As before the first call: nothing is planned or remembered."""
    _plans.kept_plan.cache_clear()
    _convolution._CALLS, _windows._CALLS = _core.Calls(128), _core.Calls(128)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if not isinstance(a, np.ndarray):
        return a == b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    # A MemoryError that NumPy takes for a wrong argument leaves the call to SciPy, whose sums may round otherwise.
    eps = np.finfo(a.dtype).eps if a.dtype.kind == "f" else 0
    return np.allclose(a, b, rtol=4 * eps, atol=4 * eps * np.abs(b).max(initial=0), equal_nan=True)


def ours(error: BaseException) -> bool:
    """Whether another error than MemoryError is a fault of ours.

    NumPy's functions fail without saying why, which is a SystemError, but not under a frame of the binding; and they
    take a MemoryError for what is wrong with an argument.
    """
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SystemError):
        return any(file.endswith((".pyx", ".pxi")) for file in files)
    return not (isinstance(error.__cause__, MemoryError) and f"{os.sep}numpy{os.sep}" in files[-1])


def try_all(call: Callable[[], Any], before: Callable[[], None]) -> None:
    """Fail the first allocation, then the second, until thirty positions in a row lie behind the last one."""
    from _testcapi import remove_mem_hooks, set_nomemory

    call()
    expected, position, passed = call(), 0, 0
    expected = expected.copy() if isinstance(expected, np.ndarray) else expected
    while passed < 30:
        before()
        for out in OUT.values():
            out[...] = np.nan
        position, passed, found = position + 1, passed + 1, None
        print(position, end=" ", flush=True)
        try:
            set_nomemory(position, position + 1)
            try:
                found = call()
            finally:
                remove_mem_hooks()
        except BaseException as error:
            if not isinstance(error, MemoryError) and ours(error):
                raise
            passed = 0
            assert all(np.isnan(out).all() for out in OUT.values()), "out was written, but the call failed"
        else:
            assert same(found, expected), "a wrong result"
        assert same(call(), expected), "a wrong result in the call after the failure"


def main(group: str) -> None:
    for name, call in GROUPS[group]().items():
        for state, before in (("again", lambda: None), ("first", forget)):
            print(f"\n{name}, {state}:", end=" ", flush=True)
            try_all(call, before)


@pytest.mark.parametrize("group", GROUPS)
def test_each_allocation_may_fail(group):
    pytest.importorskip("_testcapi", reason="this Python comes without what makes its allocator fail")
    if group == "scipy":
        pytest.importorskip("scipy")
    environment = {**os.environ, "FASTCONV_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ran = subprocess.run([sys.executable, __file__, group], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{ran.stdout[-200:]}\n{ran.stderr[-3000:]}"


if __name__ == "__main__":
    main(sys.argv[1])
