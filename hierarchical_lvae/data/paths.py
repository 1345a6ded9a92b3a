"""Recognise paths to the user's own data and published files, and format paths and names for messages."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HDF5_SUFFIXES = (".h5", ".hdf5")
ARRAY_SUFFIXES = (".npz", *HDF5_SUFFIXES)
OWN_DATA = "a folder of images, an .npz or an .h5"


def is_path(name: str) -> bool:
    """Whether `name` is meant as a path: it exists, contains a separator, or has the suffix of a file of arrays.

    >>> is_path("digits"), is_path("./digits"), is_path("mine.npz")
    (False, True, True)
    """
    separators = {os.sep, os.altsep or os.sep, "/"}
    return bool(name) and (
        any(separator in name for separator in separators)
        or name.lower().endswith(ARRAY_SUFFIXES)
        or Path(name).exists()
    )


def printable(name: object) -> str:
    r"""A path or name as text that can be encoded as UTF-8, for tables, files and logs; not for opening files.

    >>> printable(os.fsdecode(b"caf\xe9")), printable("café")
    ('caf\\udce9', 'café')
    """
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def some(names: Sequence[object]) -> str:
    """Join the first three of `names`.

    >>> some(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    return ", ".join(map(printable, names[:3])) + (", …" if len(names) > 3 else "")


def missing(file: str, directory: Path, name: str) -> FileNotFoundError:
    """Return the error for a data set `name` whose `file` is not in the data directory."""
    command = f"hlvae data download {name} --data-dir {shlex.quote(printable(directory))}"
    return FileNotFoundError(f"{file} is not in {printable(directory)}: download it with `{command}`")


def check_published(
    arrays: Mapping[str, Any], path: Path, published: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """Check that the arrays in the file `path` have their published shapes and types, given by name.

    Raises:
        ValueError: an array is missing, or has another shape or type.
    """
    for name, (shape, kind) in published.items():
        if name not in arrays:
            raise ValueError(f"{path} has no {name!r}: the official file has {' and '.join(map(repr, published))}")
        if arrays[name].shape != shape or arrays[name].dtype != kind:
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            raise ValueError(f"{name!r} in {path} is {found}, not {kind} {shape}: download it again")
