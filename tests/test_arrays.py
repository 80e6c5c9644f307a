# SPDX-License-Identifier: BSD-3-Clause
"""Arrays of other libraries, files and views: taken where they lie, or refused by name."""

import importlib.util
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastconv as fc
from fastconv import _args

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 10, 8)).astype(np.float32)
W = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
B = RNG.standard_normal(4).astype(np.float32)
PLAN = fc.ConvPlan(X.shape, W, B)
CALLS = {
    "conv2d": lambda x: fc.conv2d(x, W, B, padding=1),
    "plan": PLAN,
    "conv_transpose2d": lambda x: fc.conv_transpose2d(x, np.swapaxes(W, 0, 1), stride=2),
    "max_pool2d": lambda x: fc.max_pool2d(x, 2),
    "avg_pool2d": lambda x: fc.avg_pool2d(x, 3, 1, 1),
    "linear": lambda x: fc.linear(x, np.ones((5, 8), np.float32)),
    "batch_norm": lambda x: fc.batch_norm(x, np.zeros(3, np.float32), np.ones(3, np.float32)),
    "relu": fc.relu,
    "softmax": lambda x: fc.softmax(x, 1),
    "pad": lambda x: fc.pad(x, (1, 2)),
}

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def on_disk(folder):
    path = folder / "images.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


VIEWS = {
    "read-only": lambda folder: _locked(X.copy()),
    "mapped file": on_disk,
    "rows from behind": lambda folder: np.ascontiguousarray(X[:, :, ::-1])[:, :, ::-1],
    "all from behind": lambda folder: np.ascontiguousarray(X[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1],
    "every other": lambda folder: np.repeat(X, 2, axis=3)[..., ::2],
    "part of a larger one": lambda folder: np.pad(X, ((0, 0), (1, 1), (2, 0), (0, 3)))[:, 1:-1, 2:, :-3],
    "channels last": lambda folder: np.ascontiguousarray(X.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "between elements": lambda folder: (
        np.frombuffer(b"-" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(X.shape)
    ),
}


def _locked(array):
    array.flags.writeable = False
    return array


@each_call
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views(call, view, tmp_path):
    expected, array = call(X), view(tmp_path)
    before = array.copy()
    result = call(array)
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "between elements"])
def test_views_are_not_copied(name, tmp_path):
    array = VIEWS[name](tmp_path)
    assert _args.stored(_args.as_operand(array, "input")) is array


def agrees_in_place(call, array, address):
    np.testing.assert_array_equal(call(array), call(X))
    assert _args.as_operand(array, "input").ctypes.data == address


@each_call
def test_tensors_of_torch(call):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(X.copy())
    agrees_in_place(call, tensor, tensor.data_ptr())


def test_arrays_of_jax():
    """In a process of its own: jax keeps threads, and warns whoever forks after it was imported."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    code = """
        import jax
        from test_arrays import CALLS, X, agrees_in_place
        array = jax.numpy.asarray(X)
        for call in CALLS.values():
            agrees_in_place(call, array, array.unsafe_buffer_pointer())
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment)


@each_call
def test_tensors_that_have_no_memory_here(call):
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match=r"(input|x) is a torch\.Tensor without memory on the CPU .*; move it to the CPU first"
    ):
        call(torch.empty(X.shape, device="meta"))


def test_what_numpy_cannot_read_in_place():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X.copy())
    for tensor, words in ((x.bfloat16(), "of dtype torch.bfloat16"), (x.to_sparse(), "needs to be a dense array")):
        with pytest.raises(TypeError, match=re.escape(words)):
            fc.conv2d(tensor, W)
    with pytest.raises(TypeError, match=r"input requires grad; pass input\.detach\(\)"):
        fc.conv2d(x.requires_grad_(), W)


@each_call
def test_masked_arrays_are_filled_first(call):
    call(X)  # a call that may be repeated without a look
    with pytest.raises(TypeError, match=r"(input|x) is a masked array; .*\.filled\(0\)"):
        call(np.ma.masked_array(X, X > 0))
