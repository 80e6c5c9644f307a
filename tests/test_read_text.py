# SPDX-License-Identifier: BSD-3-Clause
"""The example that reads text, with the trained models of a public wheel where that is installed."""

import importlib.util
from pathlib import Path

import pytest

for needed in ("onnx", "onnxruntime", "PIL"):
    pytest.importorskip(needed)
EXAMPLE = Path(__file__).parent.parent / "examples" / "read_text.py"
if not EXAMPLE.exists():
    pytest.skip("runs from the source tree only", allow_module_level=True)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("read_text", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if importlib.util.find_spec(module.PACKAGE) is None:
        pytest.skip(f"needs {module.PACKAGE}")
    return module


def test_a_picture_is_read(example, capsys):
    """Every result within 1e-3 of ONNX Runtime's, and the text as it was drawn, the line on its head too."""
    lines = example.main(["--repeats", "1"])
    plain = [line.replace(" ", "") for line in lines]
    assert plain == [line.replace(" ", "") for line in example.LINES]
    out = capsys.readouterr().out
    assert all(name in out for name in example.FILES)


def test_a_picture_of_another_size(example, tmp_path):
    example.picture(("wide", "WIDE")).resize((320, 100)).save(tmp_path / "small.png")
    assert len(example.main([str(tmp_path / "small.png"), "--repeats", "1"])) == 2
