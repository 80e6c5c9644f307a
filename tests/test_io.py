# SPDX-License-Identifier: BSD-3-Clause
"""Saving and loading: round trips, files from elsewhere, and what happens when it goes wrong."""

import io
import json
import os
import stat
import struct
import sys
import zipfile
import zlib
from contextlib import contextmanager

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


def damaged(data, rng):
    """The bytes with one to five things done to them."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        place, other, length = rng.integers(0, len(data) + 1, 3)
        stretch = slice(place, place + length % 40 + 1)
        match rng.integers(0, 7):
            case 0:
                data[place : place + 1] = bytes([rng.integers(0, 256)])
            case 1:
                data[place : place + 1] = bytes(b ^ 1 << int(rng.integers(0, 8)) for b in data[place : place + 1])
            case 2:
                data[place : place + 8] = b"\xff" * len(data[place : place + 8])
            case 3:
                del data[stretch]
            case 4:
                data[place:place] = data[other : other + 60]
            case 5:
                data[place : place + 4] = struct.pack("<I", rng.choice([0, 1 << 30, 1 << 31, (1 << 32) - 1]))
            case 6:
                data[place : place + 1] = rng.choice([b"9", b"-", b"(", b"[", b"'", b"\0"])
    return bytes(data)


def seeds(folder):
    """A file of each kind, with what it holds."""
    state = {key: everything()[key] for key in ("of.float32", "of.bool", "scalar", "empty", "fortran", "file")}
    np.savez_compressed(folder / "theirs.npz", **{k: v for k, v in state.items() if k != "file"})
    fc.save(state, folder / "ours.npz")
    paths = [folder / "theirs.npz", folder / "ours.npz"]
    try:
        fc.save(state, folder / "ours.safetensors")
        (folder / "brief.safetensors").write_bytes(safetensors(w=("BF16", [2, 3], bytes(12)), v=("F32", [1], bytes(4))))
        paths += [folder / "ours.safetensors", folder / "brief.safetensors"]
    except ImportError:
        pass
    return {path: fc.load(path) for path in paths}


def test_four_thousand_damaged_files(tmp_path):
    """Each is a ValueError, or as good as new, and takes no more memory than a file of its size may."""
    rng, refused = np.random.default_rng(16), 0
    whole = seeds(tmp_path)
    paths = [(path, path.read_bytes(), path.with_stem("damaged")) for path in whole]
    for _, _, place in paths:
        place.touch()
    with room(1 << 30):
        for i in range(4000):
            path, data, place = paths[i % len(paths)]
            with open(place, "r+b") as file:  # much faster than a new file
                file.write(damaged(data, rng))
                file.truncate()
            try:
                loaded = fc.load(place)
            except ValueError as error:
                assert str(place) in str(error)  # noqa: PT017
                refused += 1
            else:
                assert all(type(value) is np.ndarray for value in loaded.values())
                if path.suffix == ".npz":  # there are checksums
                    known = {name: value.tobytes() for name, value in whole[path].items()}
                    assert {v.tobytes() for v in loaded.values()} <= set(known.values())
    assert refused > 3500


@contextmanager
def room(nbytes):
    """So much address space more, and no more, where the system can say so."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text):
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def archive(*entries, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as z:
        for name, data in entries:
            z.writestr(name, data)
    return bytearray(file.getvalue())


def patched(data, **fields):
    """An archive of one entry with other fields in both of its heads."""
    central = data.index(b"PK\1\2")
    for name, value in fields.items():
        at, central_at, code = {"flags": (6, 8, "<H"), "method": (8, 10, "<H"), "size": (22, 24, "<I")}[name]
        for place in (at, central + central_at):
            struct.pack_into(code, data, place, value)
    return data


ONE = ("a.npy", npy(np.ones(3000)))
CLAIMS = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (patched(archive(ONE), flags=1), "'a.npy' is encrypted"),
        (patched(archive(ONE), method=99), "'a.npy' is neither stored nor deflated"),
        (archive(ONE, method=zipfile.ZIP_BZIP2), "'a.npy' is neither stored nor deflated"),
        (patched(archive(ONE, method=zipfile.ZIP_DEFLATED), size=1 << 31), "'a.npy' cannot be as long"),
        (npy(np.ones(3)) + archive(ONE), "does not begin as an archive"),
        (archive(("a.npy", b"hello, not an array")), "magic string"),
        (archive(("a.npy", header(CLAIMS % "(10737418240,)"))), "has 0 bytes; its shape .* needs 42949672960"),
        (archive(("a.npy", header(CLAIMS % "(-1, -5)") + bytes(20))), "negative"),
        (archive(("a.npy", header(CLAIMS % "(0, 1" + 30 * "0" + ")"))), "not an"),
        (archive(("a.npy", header("[" * 3000))), "not an"),
        (archive(("a.npy", npy(np.ones(3)) + b"more")), "has 28 bytes; its shape"),
        (archive(ONE, ("b/", b"")), "holds 'b/', which is not an array"),
        (b"PK\3\4" + zlib.compress(bytes(999)), "not an"),
    ],
)
def test_archives_that_lie(tmp_path, data, reason):
    path = tmp_path / "lies.npz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        fc.load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice(tmp_path):
    path = tmp_path / "twice.npz"
    path.write_bytes(archive(ONE, ONE))
    with pytest.raises(ValueError, match=r"holds 'a\.npy' twice"):
        fc.load(path)


@pytest.mark.parametrize("names", [["x", "x.npy", "x.npy.npy"], ["a\0b", "a"], ["", "a\\b", "a/b", "../c", "ü" * 9000]])
def test_any_name_comes_back(path, names):
    state = {name: np.full(2, i) for i, name in enumerate(names)}
    fc.save(state, path)
    loaded = fc.load(path)
    assert {name: value[0] for name, value in loaded.items()} == {name: i for i, name in enumerate(names)}


def test_names_that_no_file_can_hold(path):
    with pytest.raises(ValueError, match=r"the key '\\ud800', which UTF-8 cannot hold"):
        fc.save({"\ud800": np.ones(1)}, path)
    name = "__metadata__" if path.suffix == ".safetensors" else "x" * 70_000
    with pytest.raises(ValueError, match="state has the key"):
        fc.save({name: np.ones(1)}, path)
    assert not list(path.parent.iterdir())


def test_folders_are_no_files(path):
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        fc.load(path)


# --- dtypes that NumPy lacks ----------------------------------------------------------------------


def safetensors(**tensors):
    entries, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_bfloat16_is_read_as_float32(tmp_path):
    torch = pytest.importorskip("torch")
    from_torch = pytest.importorskip("safetensors.torch")
    path = tmp_path / "brief.safetensors"
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    state = {
        "every": every.reshape(256, 256),
        "plain": torch.arange(5.0),
        "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3, dtype=torch.bfloat16),
    }
    from_torch.save_file(state, path)
    loaded = fc.load(path)
    assert loaded.keys() == state.keys()
    for name, value in state.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], value.float().numpy())


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_other_dtypes_are_named(tmp_path, dtype):
    pytest.importorskip("safetensors")
    path = tmp_path / "eighth.safetensors"
    path.write_bytes(safetensors(a=("F32", [1], bytes(4)), w=(dtype, [4], bytes(4))))
    with pytest.raises(ValueError, match=f"holds 'w' of dtype {dtype}; convert it"):
        fc.load(path)


@pytest.mark.parametrize("dtype", [np.complex128, np.longdouble])
def test_dtypes_that_safetensors_lacks(tmp_path, dtype):
    pytest.importorskip("safetensors")
    with pytest.raises(TypeError, match=r"state\['a'\] has dtype"):
        fc.save({"a": np.ones(2, dtype)}, tmp_path / "wide.safetensors")
    fc.save({"a": np.ones(2, dtype)}, tmp_path / "wide.npz")
    assert fc.load(tmp_path / "wide.npz")["a"].dtype == dtype


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
