# SPDX-License-Identifier: BSD-3-Clause
"""docs/training.md runs from its first line to its last as it stands: commands use what its Python leaves."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "training.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="runs from the source tree only")


def blocks():
    return re.findall(r"^```(python|sh)\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_it_has_both_kinds():
    assert {kind for kind, _ in blocks()} == {"python", "sh"}


@pytest.mark.slow
def test_the_whole_page(tmp_path):
    for package in ("PIL", "sklearn", "matplotlib", "safetensors"):
        pytest.importorskip(package)
    have_torch = find_spec("torch") is not None
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["OMP_NUM_THREADS"] = "1"
    # The command of the environment that this runs in, installed or not.
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "fastconv"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fastconv "$@"\n')
    command.chmod(0o755)
    environment["PATH"] = f"{command.parent}{os.pathsep}{environment['PATH']}"
    told = ""
    for i, (kind, text) in enumerate(blocks()):
        if "torch" in text and not have_torch:
            continue
        if kind == "python":
            name = "ddp.py" if "torch.distributed" in text else f"block{i}.py"
            (tmp_path / name).write_text(text)
            ran = [sys.executable, name]
        else:
            ran = ["sh", "-e", "-c", text]
        result = subprocess.run(ran, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, f"{text}\n{result.stderr}"
        told += result.stdout
    assert re.search(r"china\.jpg +china +0 ", told), told
    assert re.search(r"flower\.jpg +flower +1 ", told), told
    assert re.search(r"digit\.png +8 +8 ", told), told
