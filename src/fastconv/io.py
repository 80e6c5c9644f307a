# SPDX-License-Identifier: BSD-3-Clause
"""Reading and writing the arrays of a state dict: `.safetensors` and `.npz`, never pickle."""

from __future__ import annotations

import os
import stat
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

__all__ = ["load", "save"]


def save(state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
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
        Another suffix.
    TypeError
        `state` is not a mapping of str to arrays of numbers.
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
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read what `save` wrote, or any `.safetensors` or `.npz` file of plain arrays.

    Parameters
    ----------
    path : path
        Its suffix decides the format, as for `save`.

    Returns
    -------
    dict of str to numpy.ndarray

    Raises
    ------
    ValueError
        Another suffix, or a file that is damaged or holds anything but plain arrays.
    FileNotFoundError
        There is no such file.
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
        if not isinstance(value, (np.ndarray, np.generic)):
            raise TypeError(
                f"state[{name!r}] is {type(value).__name__}; it needs to be a NumPy array "
                "(numpy.asarray(...) makes one)"
            )
        if value.dtype.kind not in "biufc":
            raise TypeError(f"state[{name!r}] has dtype {value.dtype}; it needs to hold numbers")
        arrays[name] = np.asarray(value, order="C")
    return arrays


# --- .npz -----------------------------------------------------------------------------------------


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
            for name in archive.namelist():
                if not name.endswith(".npy"):
                    raise ValueError(f"it holds {name!r}, which is not an array")
            return dict(arrays)
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is not an .npz file of plain arrays: {error}") from error


def _write_npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    # numpy.savez would do, but takes names as keyword arguments and so cannot write one "file".
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


# --- .safetensors ---------------------------------------------------------------------------------


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(".safetensors files need the package safetensors: pip install safetensors") from error
    return safetensors


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    package = _safetensors()
    try:
        return package.numpy.load_file(path)
    except (package.SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a .safetensors file NumPy can hold: {error}") from error


def _write_safetensors(arrays: dict[str, np.ndarray], path: Path) -> None:
    package = _safetensors()
    try:
        package.numpy.save_file(arrays, path)
    except package.SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error


_FORMATS = {
    ".safetensors": (_read_safetensors, _write_safetensors),
    ".npz": (_read_npz, _write_npz),
}


def _format_of(path: Path):
    if path.suffix not in _FORMATS:
        raise ValueError(f"path is {str(path)!r}; its suffix needs to be {' or '.join(map(repr, _FORMATS))}")
    return _FORMATS[path.suffix]
