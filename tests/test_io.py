# SPDX-License-Identifier: BSD-3-Clause
"""Saving and loading: round trips, files from elsewhere, and what happens when it goes wrong."""

import os
import stat
import sys
import zipfile

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn

SUFFIXES = (".npz", ".safetensors")
DTYPES = (np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_)


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"net{request.param}"


def everything():
    rng = np.random.default_rng(1)
    state = {f"of.{np.dtype(t)}": rng.integers(0, 2, (3, 4)).astype(t) for t in DTYPES}
    state["scalar"] = np.array(7, np.int64)
    state["empty"] = np.zeros((0, 3), np.float32)
    state["strided"] = np.arange(24.0).reshape(4, 6)[::2, ::3]
    state["fortran"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    state["file"] = np.ones(2)
    state["ünï/code name"] = np.float32(3.5)
    return state


def test_round_trip(path):
    state = everything()
    fc.save(state, path)
    loaded = fc.load(str(path))
    assert set(loaded) == set(state)
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        np.testing.assert_array_equal(loaded[name], value)


def test_a_network_there_and_back(path):
    def build(rng):
        return nn.Sequential(nn.Conv2d(1, 2, 3, rng=rng), nn.BatchNorm2d(2))

    net, other = build(1), build(2)
    net(np.random.default_rng(0).random((2, 1, 5, 5), np.float32))
    fc.save(net.state_dict(), path)
    other.load_state_dict(fc.load(path))
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], value)


def test_files_that_others_write(tmp_path):
    state = {"a": np.arange(3.0), "b": np.eye(2, dtype=np.float32)}
    np.savez_compressed(tmp_path / "theirs.npz", **state)
    torch = pytest.importorskip("torch")
    from_torch = pytest.importorskip("safetensors.torch")
    from_torch.save_file(
        {key: torch.from_numpy(value) for key, value in state.items()},
        tmp_path / "theirs.safetensors",
    )
    for suffix in SUFFIXES:
        loaded = fc.load(tmp_path / f"theirs{suffix}")
        assert list(loaded) == ["a", "b"]
        for key, value in state.items():
            np.testing.assert_array_equal(loaded[key], value)


def test_files_that_others_read(tmp_path):
    from_numpy = pytest.importorskip("safetensors.numpy")
    state = {"a": np.arange(3.0)}
    for suffix, read in ((".npz", np.load), (".safetensors", from_numpy.load_file)):
        fc.save(state, tmp_path / f"ours{suffix}")
        np.testing.assert_array_equal(read(tmp_path / f"ours{suffix}")["a"], state["a"])


# --- when it goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net.pt", "net.pkl", "net", "net.NPZ", ".npz"])
def test_other_suffixes(tmp_path, name):
    for action in (lambda p: fc.save({}, p), fc.load):
        with pytest.raises(ValueError, match=r"suffix needs to be '\.safetensors' or '\.npz'"):
            action(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (nn.ReLU(), r"state is ReLU; .* pass its state_dict\(\)"),
        ([np.ones(1)], "state is list"),
        ({1: np.ones(1)}, "state has the key 1"),
        ({"a": [1.0]}, r"state\['a'\] is list; it needs to be a NumPy array"),
        ({"a": 1.0}, r"state\['a'\] is float"),
        ({"a": np.array([None])}, r"state\['a'\] has dtype object"),
        ({"a": np.array(["x"])}, r"state\['a'\] has dtype <U1"),
    ],
)
def test_what_cannot_be_saved(path, state, message):
    with pytest.raises(TypeError, match=message):
        fc.save(state, path)
    assert not list(path.parent.iterdir())


def test_an_interrupted_save_leaves_the_old_file(path, monkeypatch):
    fc.save({"a": np.ones(3)}, path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        fc.save({"a": np.zeros(3)}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_overwriting(path):
    fc.save({"a": np.ones(1000)}, path)
    fc.save({"b": np.zeros(2)}, path)
    assert list(fc.load(path)) == ["b"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_permissions_are_those_of_a_new_file(path):
    fc.save({"a": np.ones(1)}, path)
    plain = path.with_name("plain")
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_missing_folders_and_files(path):
    with pytest.raises(FileNotFoundError):
        fc.load(path)
    with pytest.raises(FileNotFoundError):
        fc.save({"a": np.ones(1)}, path.parent / "nowhere" / path.name)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"x" * 99])
def test_damaged_files(path, damage):
    fc.save({"a": np.arange(100.0)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"net{path.suffix} is not a"):
        fc.load(path)


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, a=np.array([print], object))
    with pytest.raises(ValueError, match=r"not an \.npz file of plain arrays"):
        fc.load(path)
    np.save(tmp_path / "single.npy", np.ones(3))
    os.rename(tmp_path / "single.npy", path)
    with pytest.raises(ValueError, match=r"not an \.npz file"):
        fc.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(ValueError, match=r"holds 'notes\.txt', which is not an array"):
        fc.load(path)


def test_without_the_package_safetensors(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for action in (lambda p: fc.save({"a": np.ones(1)}, p), fc.load):
        with pytest.raises(ImportError, match="pip install safetensors"):
            action(tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())
