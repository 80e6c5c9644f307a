# SPDX-License-Identifier: BSD-3-Clause
"""Reading and writing the arrays of a state dict: `.safetensors` and `.npz`, never pickle."""

from __future__ import annotations

import errno
import json
import math
import os
import reprlib
import stat
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np

from fastconv._names import only

__all__ = ["load", "save"]
__dir__ = only(__all__)


def save(state: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write named arrays to a file.

    The file appears complete or not at all: it is written beside its place under another name, and
    an existing file of this name stays as it is until then.

    Parameters
    ----------
    state : mapping of str to numpy.ndarray
        For example ``module.state_dict()``.
    path : path
        Its suffix decides the format: ``.safetensors`` (needs the package safetensors) or ``.npz``.

    Raises
    ------
    ValueError
        Another suffix, or a name that the format cannot hold.
    TypeError
        `state` is not a mapping of str to arrays of numbers, or of a dtype that the format has.
    OSError
        The file cannot be written.
    ImportError
        ``.safetensors`` without the package safetensors.

    Examples
    --------
    >>> import numpy as np, tempfile, fastconv as fc
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fc.save({"weight": np.arange(3.0)}, folder + "/net.npz")
    ...     fc.load(folder + "/net.npz")
    {'weight': array([0., 1., 2.])}
    """
    path = Path(path)
    write = _format_of(path)[1]
    arrays = _checked(state)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with open(temporary, "xb") as file:  # shows a missing folder, and the mode of new files
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    try:
        write(arrays, temporary)
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())  # or a machine that stops could have the new name and not the contents
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read what `save` wrote, or any `.safetensors` or `.npz` file of plain arrays.

    Parameters
    ----------
    path : path
        Its suffix decides the format, as for `save`.

    Returns
    -------
    dict of str to numpy.ndarray
        bfloat16, which NumPy lacks, as float32.

    Raises
    ------
    ValueError
        Another suffix, or a file that is damaged or holds anything but plain arrays.
    OSError
        The file cannot be read; FileNotFoundError if there is none.
    ImportError
        ``.safetensors`` without the package safetensors.
    """
    path = Path(path)
    return _format_of(path)[0](path)


def _checked(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not isinstance(state, Mapping):
        hint = "; pass its state_dict()" if hasattr(state, "state_dict") else ""
        raise TypeError(f"state is {type(state).__name__}; it needs to be a mapping of names to arrays{hint}")
    arrays = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise TypeError(f"state has the key {name!r}; every key must be a str")
        if name != name.encode(errors="replace").decode():
            raise ValueError(f"state has the key {reprlib.repr(name)}, which UTF-8 cannot hold")
        if not isinstance(value, (np.ndarray, np.generic)):
            raise TypeError(
                f"state[{name!r}] is {type(value).__name__}; it needs to be a NumPy array "
                "(numpy.asarray(...) makes one)"
            )
        if value.dtype.kind not in "biufc":
            raise TypeError(f"state[{name!r}] has dtype {value.dtype}; it needs to hold numbers")
        arrays[name] = np.asarray(value, order="C")
    return arrays


@contextmanager
def _named(path: Path, needed: str) -> Iterator[None]:
    """Whatever is wrong with the contents of a file becomes a ValueError that names it."""
    try:
        yield
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # zipfile, zlib, safetensors and NumPy have a dozen ways to say that bytes are not theirs
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that one is a seek to nowhere
            raise
        raise ValueError(f"{path} is not {needed}: {error}") from error


# --- .npz -----------------------------------------------------------------------------------------

_STRETCH = 1 << 20  # bytes that are read at a time
_DEFLATE = 1032  # times as long as what it is made from can the output of inflate be


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with open(path, "rb") as file, _named(path, "an .npz file of plain arrays"):
        return dict(_entries(file))


def _entries(file: BinaryIO) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of an archive by name. Nothing is allocated that the file is too short for."""
    if file.read(4) not in (b"PK\3\4", b"PK\5\6"):
        raise ValueError("it does not begin as an archive")
    with zipfile.ZipFile(file) as archive:
        entries, seen = archive.infolist(), set()
        if sum(entry.compress_size for entry in entries) > file.seek(0, os.SEEK_END):
            raise ValueError("its entries are longer than the file")
        for entry in entries:
            name = entry.orig_filename
            if not name.endswith(".npy"):
                raise ValueError(f"it holds {name!r}, which is not an array")
            if name in seen:
                raise ValueError(f"it holds {name!r} twice")
            seen.add(name)
            if entry.flag_bits & 1:
                raise ValueError(f"{name!r} is encrypted")
            most = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE}.get(entry.compress_type)
            if most is None:
                raise ValueError(f"{name!r} is neither stored nor deflated")
            if entry.file_size > most * entry.compress_size:
                raise ValueError(f"{name!r} cannot be as long as it says")
            with archive.open(entry) as stream:
                assert isinstance(stream, zipfile.ZipExtFile)
                yield name.removesuffix(".npy"), _read_array(stream, name, entry.file_size)


def _read_array(stream: zipfile.ZipExtFile, name: str, length: int) -> np.ndarray:
    """The array of an .npy file, which has `length` bytes."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name!r} has version {version} of the format .npy; (1, 0) and (2, 0) are read")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError(f"{name!r} has dtype {dtype}, which takes a pickle")
    size = math.prod(shape) * dtype.itemsize
    if size != length - stream.tell():
        raise ValueError(f"{name!r} has {length - stream.tell()} bytes; its shape {shape} of {dtype} needs {size}")
    array = np.empty(shape[::-1] if fortran else shape, dtype)
    if size:
        data = array.reshape(-1).view(np.uint8).data
        for start in range(0, size, _STRETCH):
            part = data[start : start + _STRETCH]
            if stream.readinto(part) != len(part):
                raise EOFError(f"{name!r} ends too early")
    stream.read(1)  # the end, where the checksum is looked at
    return array.T if fortran else array


def _write_npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    # numpy.savez would do, but takes names as keyword arguments and so cannot write one "file".
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(_entry(name), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _entry(name: str) -> zipfile.ZipInfo:
    """The head of an array's entry, of exactly this name: ZipInfo itself cuts it at a NUL and turns backslashes."""
    if len(name.encode()) > 65_000:
        raise ValueError(f"state has the key {reprlib.repr(name)} of {len(name)} characters, too many for an .npz file")
    entry = zipfile.ZipInfo()
    entry.filename = f"{name}.npy"
    return entry


# --- .safetensors ---------------------------------------------------------------------------------

_SAFE_DTYPES = ("BOOL", "I8", "U8", "I16", "U16", "F16", "I32", "U32", "F32", "I64", "U64", "F64", "C64")


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            ".safetensors files need the package safetensors: python -m pip install safetensors", name="safetensors"
        ) from error
    return safetensors


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    package = _safetensors()
    needed = "a .safetensors file NumPy can hold"
    # Opening refuses a header that the rest of the file does not bear out.
    with open(path, "rb") as file, _named(path, needed), package.safe_open(path, framework="np") as tensors:
        names = tensors.keys()
        dtypes = {name: tensors.get_slice(name).get_dtype() for name in names}
        for name, dtype in dtypes.items():
            if dtype not in (*_SAFE_DTYPES, "BF16"):
                raise ValueError(f"it holds {name!r} of dtype {dtype}; convert it before it is saved")
        brief = _Bfloat16(file) if "BF16" in dtypes.values() else None
        return {
            name: brief.read(name) if brief is not None and dtype == "BF16" else tensors.get_tensor(name)
            for name, dtype in dtypes.items()
        }


class _Bfloat16:
    """Tensors of a dtype that NumPy lacks: the upper halves of float32."""

    def __init__(self, file: BinaryIO) -> None:
        length = int.from_bytes(file.read(8), "little")
        self._file, self._header, self._data = file, json.loads(file.read(length)), 8 + length

    def read(self, name: str) -> np.ndarray:
        entry = self._header[name]
        begin, end = entry["data_offsets"]
        self._file.seek(self._data + begin)
        bits = np.frombuffer(self._file.read(end - begin), "<u2").astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32).reshape(entry["shape"])


def _write_safetensors(arrays: dict[str, np.ndarray], path: Path) -> None:
    package = _safetensors()
    if "__metadata__" in arrays:
        raise ValueError("state has the key '__metadata__', which means something else in a .safetensors file")
    for name, array in arrays.items():
        if array.dtype.itemsize > 8:
            raise TypeError(f"state[{name!r}] has dtype {array.dtype}; a .safetensors file has none of that size")
    try:
        package.numpy.save_file(arrays, path)
    except package.SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error


_Read = Callable[[Path], dict[str, np.ndarray]]
_Write = Callable[[dict[str, np.ndarray], Path], None]

_FORMATS: dict[str, tuple[_Read, _Write]] = {
    ".safetensors": (_read_safetensors, _write_safetensors),
    ".npz": (_read_npz, _write_npz),
}


def _format_of(path: Path) -> tuple[_Read, _Write]:
    if path.suffix not in _FORMATS:
        raise ValueError(f"path is {str(path)!r}; its suffix needs to be {' or '.join(map(repr, _FORMATS))}")
    return _FORMATS[path.suffix]
