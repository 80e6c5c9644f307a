# SPDX-License-Identifier: BSD-3-Clause
"""The example that reads text, with the trained models of a public wheel where that is installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc

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


ALONE = """
import sys
sys.modules["onnx"] = None
import numpy as np
import fastconv as fc
for name in sys.argv[1:]:
    net = fc.load_net(f"{name}.npz")
    assert net.inputs[0].shape != np.load(f"{name}.x.npy").shape
    np.save(f"{name}.y.npy", net(np.load(f"{name}.x.npy")))
"""


def test_the_models_from_files_without_onnx(example, tmp_path):
    """Saved with all sizes open: the same bits as from the ONNX model."""
    package = importlib.util.find_spec(example.PACKAGE)
    folder = Path(package.submodule_search_locations[0]) / "models"
    sizes = {"detection": (64, 96), "direction": (48, 192), "recognition": (48, 131)}
    rights = {}
    for name, file in example.FILES.items():
        net = fc.compile(folder / file)
        net.save(tmp_path / f"{name}.npz")
        x = np.random.default_rng(0).random((1, 3, *sizes[name]), np.float32)
        np.save(tmp_path / f"{name}.x.npy", x)
        rights[name] = net(x)
    subprocess.run([sys.executable, "-c", ALONE, *sizes], cwd=tmp_path, check=True)
    for name, right in rights.items():
        assert np.array_equal(np.load(tmp_path / f"{name}.y.npy"), right), name
