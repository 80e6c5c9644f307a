# SPDX-License-Identifier: BSD-3-Clause
"""What a call takes beside its arguments and its result: the multiple that the README states, function by function.

All calls of a kind run in one process, whose peak Linux starts anew for each and whose allocator gives everything back.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import fastconv as fc

SIX, BESIDE = 6, 16  # times arguments and result together, and MiB

SETUP = """
import re
import numpy as np, fastconv as fc
from fastconv import grad as G

def peak_and_now():
    status = open("/proc/self/status").read()
    return [int(re.search(name + r":\\s+(\\d+)", status)[1]) << 10 for name in ("VmHWM", "VmRSS")]

def size(value):
    if isinstance(value, (tuple, list)):
        return sum(map(size, value))
    return getattr(value, "nbytes", 0)

def check(function, *arguments, tile=0, **named):
    # `tile`: what weights of few output channels lack to fill one, in bytes
    open("/proc/self/clear_refs", "w").write("5")
    before = peak_and_now()[1]
    result = function(*arguments, **named)
    peak = peak_and_now()[0]
    arrays = size(arguments) + size(list(named.values())) + size(result)
    extra = peak - before - size(result)
    name = getattr(function, "__name__", function)
    assert extra <= SIX * (arrays + tile) + (BESIDE << 20), (name, named, extra / arrays, extra >> 20)

def some(*shape, dtype="f4"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)

SIZES = {1: (65536,), 2: (256, 256), 3: (16, 64, 64)}
"""

KINDS = {
    "convolutions": """
        for rank, extent in SIZES.items():
            x, w = some(2, 16, *extent), some(16, 16, *[3] * rank)
            up = some(2, 4, *(n // 2 for n in extent))
            for layout, perm in (("N" + "C" + "DHW"[3 - rank:], None), ("N" + "DHW"[3 - rank:] + "C", True)):
                last = lambda a: np.ascontiguousarray(np.moveaxis(a, 1, -1)) if perm else a
                a = last(x)
                check(getattr(fc, f"conv{rank}d"), a, w, padding=1, layout=layout)
                check(getattr(fc, f"conv_transpose{rank}d"), a, w, padding=1, layout=layout)
                check(getattr(fc, f"conv_transpose{rank}d"), last(up), some(4, 4, *[2] * rank), stride=2, layout=layout)
                check(getattr(G, f"conv{rank}d_input"), a.shape, w, a, padding=1, layout=layout)
                check(getattr(G, f"conv{rank}d_weight"), a, w.shape, a, padding=1, layout=layout)
                check(getattr(G, f"conv{rank}d"), a, w, a, padding=1, layout=layout, mask=a)
                check(getattr(G, f"conv_transpose{rank}d"), a, w, a, padding=1, layout=layout)
                check(getattr(G, f"conv_transpose{rank}d_input"), a.shape, w, a, padding=1, layout=layout)
                check(getattr(G, f"conv_transpose{rank}d_weight"), a, w.shape, a, padding=1, layout=layout)
        for algorithm in fc.algorithms((2, 16, 256, 256), (16, 16, 3, 3), padding=1):
            check(fc.conv2d, some(2, 16, 256, 256), some(16, 16, 3, 3), padding=1, algorithm=algorithm)
        check(fc.conv2d, some(1, 256, 14, 14), some(256, 256, 3, 3), padding=1)
        check(fc.conv2d, some(2, 16, 256, 256, dtype="f2"), some(16, 16, 3, 3, dtype="f2"), padding=1)
        # As many phases as weights, and kernels as large as images.
        check(fc.conv_transpose2d, some(1, 1, 1, 1), some(1, 1, 2048, 2048), stride=2048)
        check(fc.conv_transpose2d, some(1, 4, 4, 4), some(4, 4, 256, 256), stride=256)
        for few in (1, 2, 5):
            up, w = some(12, few, 256, 256), some(few, 40000, 3, 3)
            lack = (32 - few) / few
            check(fc.conv_transpose2d, some(1, 2, 2, 12), up, stride=256, layout="NHWC", tile=lack * up.nbytes)
            check(fc.conv2d, some(1, 40000, 3, 3), w, tile=lack * w.nbytes)
        check(fc.conv1d, some(1, 1, 8), some(1, 1, 2**20), padding=2**20)
        check(G.conv2d_weight, some(1, 1, 1024, 1024), (1, 1, 1000, 1000), some(1, 1, 25, 25))
    """,
    "pooling": """
        for rank, extent in SIZES.items():
            x = some(2, 16, *extent)
            for kind in ("max", "avg"):
                check(getattr(fc, f"{kind}_pool{rank}d"), x, 3, 1, 1)
                check(getattr(fc, f"adaptive_{kind}_pool{rank}d"), x, 7)
            check(getattr(fc, f"lp_pool{rank}d"), x, 3, 2)
            check(getattr(G, f"lp_pool{rank}d"), getattr(fc, f"lp_pool{rank}d")(x, 3, 2), x, 3, 2)
            y, where = getattr(fc, f"max_pool{rank}d")(x, 2, return_indices=True)
            check(getattr(fc, f"max_pool{rank}d"), x, 2, return_indices=True)
            check(getattr(fc, f"max_unpool{rank}d"), y, where, 2)
            check(getattr(G, f"max_unpool{rank}d"), x, where)
            check(getattr(G, f"max_pool{rank}d"), y, where, x.shape)
            check(getattr(G, f"avg_pool{rank}d"), y, x.shape, 2)
            small, where = getattr(fc, f"adaptive_max_pool{rank}d")(x, 7, return_indices=True)
            check(getattr(G, f"adaptive_max_pool{rank}d"), small, where, x.shape)
            check(getattr(G, f"adaptive_avg_pool{rank}d"), small, x.shape)
        x = some(2, 16, 256, 256)
        check(fc.global_avg_pool, x)
        check(G.global_avg_pool, fc.global_avg_pool(x), x.shape)
        check(fc.global_max_pool, x)
        check(G.global_max_pool, *fc.global_max_pool(x, return_indices=True), x.shape)
    """,
    "the rest": """
        x = some(2, 16, 256, 256)
        for name in ("relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "leaky_relu"):
            check(getattr(fc, name), x)
            check(getattr(G, name), x, x)
        for name in ("softmax", "log_softmax"):
            check(getattr(fc, name), x, dim=1)
            check(getattr(G, name), x, x, 1)
        check(fc.dropout, x)
        check(G.dropout, x, x > 0)
        check(fc.batch_norm, x, np.zeros(16, "f4"), np.ones(16, "f4"), training=True)
        check(G.batch_norm, x, x, training=True)
        check(fc.local_response_norm, x, 5)
        check(G.local_response_norm, x, x, 5)
        for mode in ("constant", "reflect", "replicate", "circular"):
            check(fc.pad, x, (3, 3, 3, 3), mode)
            check(G.pad, some(2, 16, 262, 262), x.shape, (3, 3, 3, 3), mode)
        check(fc.linear, some(4096, 512), some(512, 512))
        check(G.linear, some(4096, 512), some(512, 512), some(4096, 512))
        check(fc.mse_loss, x, x)
        check(G.mse_loss, 1.0, x, x)
        check(fc.cross_entropy, some(16384, 256), np.zeros(16384, "i8"))
        check(G.cross_entropy, 1.0, some(16384, 256), np.zeros(16384, "i8"))
    """,
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of a process")
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_takes_a_multiple_of_its_arrays(kind):
    code = f"SIX, BESIDE = {SIX}, {BESIDE}\n" + SETUP + textwrap.dedent(KINDS[kind])
    returned = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    environment = {**os.environ, **returned, "FASTCONV_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]


#: Neither arrays of any size go in nor come out, or files are what they are about.
NO_ARRAYS = {"algorithms", "config", "fma_peak", "get_num_threads", "isa", "load", "save"}
NO_ARRAYS |= {"set_num_threads", "show_config", "threads"}


@pytest.mark.parametrize("module", [fc, fc.grad], ids=["fc", "G"])
def test_every_function_is_measured(module):
    written = " ".join(KINDS.values())
    prefix = "fc" if module is fc else "G"
    for name in module.__all__:
        function = getattr(module, name)
        if not callable(function) or isinstance(function, type) or name in NO_ARRAYS:
            continue
        stem = name.replace("1d", "{rank}d").replace("2d", "{rank}d").replace("3d", "{rank}d")
        stem = stem.replace("max_pool{", "{kind}_pool{").replace("avg_pool{", "{kind}_pool{")
        assert any(form in written for form in (f"{prefix}.{name},", f"({prefix}, name)", f'({prefix}, f"{stem}"')), (
            name
        )
