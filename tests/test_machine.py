# SPDX-License-Identifier: BSD-3-Clause
"""What is read from the CPU, and what is planned for machines with other caches than this one's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastconv import _args, _core

# Bytes and ways of L1, bytes of L2 and of L3.
SCALAR = 0
SMALL = (32 << 10, 8, 256 << 10, 4 << 20)
LARGE = (48 << 10, 12, 1 << 20, 32 << 20)


def plan_for(caches, channels, out_channels, size, kernel, layout="NHWC", groups=1, stride=1):
    """(algorithm and form, bytes of scratch) by the nominal constants of an instruction set that every build has."""
    order = (1, channels, size, size) if layout == "NCHW" else (1, size, size, channels)
    weight = (out_channels, channels // groups, kernel, kernel)
    g = _args.geometry(2, order, weight, stride, kernel // 2, 1, groups, layout)
    strides = (_args.dense_strides(shape, 4) for shape in (g.input_shape, weight, g.output_shape))
    fields = g.fields("forward", np.dtype(np.float32), *strides)
    number, form, scratch = _core.choice(fields, SCALAR, caches, _core.default_costs(SCALAR))
    return f"{_args.ALGORITHMS[number]}, {form}", scratch


#: (channels, output channels, size, kernel, ...), and what machines with small and with large caches take.
CHOICES = [
    ((64, 64, 56, 3), "winograd_f4, fused", "winograd_f4, fused"),
    ((64, 64, 56, 3, "NCHW"), "winograd_f4, fused", "winograd_f4, fused"),
    ((256, 256, 14, 3), "winograd_f4, fused", "winograd_f4, fused"),
    ((512, 512, 7, 3), "winograd_f4, staged", "winograd_f4, fused"),
    ((512, 512, 28, 3), "winograd_f4, staged", "winograd_f4, fused"),
    ((64, 256, 56, 1), "pointwise, over channels", "pointwise, over channels"),
    ((64, 256, 56, 1, "NCHW"), "pointwise, over pixels", "pointwise, over pixels"),
    ((3, 96, 224, 11, "NHWC", 1, 4), "direct, over channels", "direct, over channels"),
    ((128, 128, 56, 3, "NHWC", 1, 2), "winograd_f4, staged", "winograd_f4, fused"),
    ((128, 128, 28, 3, "NHWC", 128), "depthwise, over channels", "depthwise, over channels"),
    ((128, 128, 28, 3, "NCHW", 128), "depthwise, over pixels, in place", "depthwise, over pixels, in place"),
    ((512, 512, 14, 3, "NHWC", 512), "depthwise, over channels, copied", "depthwise, over channels"),
]


@pytest.mark.parametrize(("problem", "small", "large"), CHOICES, ids=lambda value: re.sub(r"\W+", "_", str(value)))
def test_plans_follow_the_caches(problem, small, large):
    for caches, expected in ((SMALL, small), (LARGE, large)):
        chosen, scratch = plan_for(caches, *problem)
        assert chosen == expected
        # What one thread works in stays in its second-level cache; what all share, in the third.
        assert scratch <= (caches[3] if "staged" in chosen else caches[2])


def test_more_room_is_used():
    assert plan_for(SMALL, 64, 64, 112, 3)[1] < plan_for(LARGE, 64, 64, 112, 3)[1]


@pytest.mark.parametrize(
    "caches", [(0, 8, 1 << 20, 1 << 24), (1 << 15, 8, -1, 1 << 24), (1 << 15, 8, 1 << 20, 1 << 60)]
)
def test_impossible_caches_are_refused(caches):
    with pytest.raises(ValueError, match="a cache has no positive size"):
        plan_for(caches, 3, 4, 8, 3)


def test_caches_of_this_machine():
    caches = dict(zip(_core.CACHE_NAMES, _core.caches(), strict=True))
    assert set(caches) == {"l1", "l1_ways", "l2", "l3"}
    assert 8 << 10 <= caches["l1"] <= caches["l2"] <= caches["l3"] <= 4 << 30
    assert 1 <= caches["l1_ways"] <= 64
    told = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (folder / "type").read_text().strip() != "Instruction":
            size = (folder / "size").read_text().strip()
            told[f"l{(folder / 'level').read_text().strip()}"] = int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]
    for name, size in told.items():
        assert caches[name] == size


def test_the_runtime_waits_briefly_unless_told_otherwise():
    """OpenMP's runtime reads how long to spin as it is loaded; nothing of that is left in the environment."""
    program = (
        "import os, fastconv, fastconv._runtime as r; print(r.WAITING, '|', os.environ.get('GOMP_SPINCOUNT'), end='')"
    )

    def said(**environment):
        unset = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env={**unset, **environment}, capture_output=True, text=True, check=True).stdout

    if not _core.openmp():
        assert said() == "no threads | None"
        return
    assert said() == "10000 spins at most | None"
    assert said(GOMP_SPINCOUNT="7") == "GOMP_SPINCOUNT=7 | 7"
    assert said(OMP_WAIT_POLICY="passive") == "OMP_WAIT_POLICY=passive | None"


def test_the_nominal_core_is_as_wide_as_this_one():
    """A Zen 4 computes 512 bits in two passes, an Intel core in one; of a Zen 5 only it says which."""
    names = [name for name, _, _ in _core.isas()]
    about = Path("/proc/cpuinfo")
    if not about.exists() or not _core.isas()[names.index("avx512")][2]:
        pytest.skip("needs Linux, which says what processor this is, and AVX-512")
    said = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", about.read_text(), re.MULTILINE))
    mac = dict(zip(_core.COST_NAMES, _core.default_costs(names.index("avx512")), strict=True))["mac"]
    if said["vendor_id"] == "AuthenticAMD" and said["cpu family"] == "26":
        assert mac in (1 / 50e9, 1 / 110e9)
    else:
        assert mac == (1 / 50e9 if said["vendor_id"] == "AuthenticAMD" else 1 / 110e9)
