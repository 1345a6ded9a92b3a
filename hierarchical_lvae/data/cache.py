"""Cache arrays in files. They are written atomically, and rebuilt when damaged or out of date.

A cache is an `.npz` with one array and, if the file's name does not identify the content, a `key` that identifies its
sources. Its name begins with `hlvae-`, so the user's own files are never mistaken for a cache and overwritten.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from hierarchical_lvae.files import atomic

log = logging.getLogger(__name__)

VERSION = 1  # of the arrays decoded from files: increment it when a decoder changes


def cached(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    make: Callable[[], np.ndarray],
    files: Sequence[Path] = (),
    compress: bool = False,
) -> np.ndarray:
    """Return the array `name` of this shape and type from the cache `path`, or else `make` it and cache it.

    If it is decoded from `files`, the key is a hash of their names, sizes and modification times: if any changes, they
    are decoded again.
    """
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((VERSION, state)).encode()).hexdigest() if files else ""
    array = read(path, name, shape, dtype, key)
    if array is None:
        array = make()
        write(path, compress, **({"key": np.array(key)} if key else {}), **{name: array})
    return array


def read(path: Path, name: str, shape: tuple[int, ...], dtype: DTypeLike, key: str = "") -> np.ndarray | None:
    """Read the array `name` of a cache. None if there is no cache or, with a log message, if it is unusable."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if key and str(arrays["key"]) != key:
                log.info("the source files of the cache %s have changed: rebuilding it", path)
                return None
            array = arrays[name]
            if array.shape != shape or array.dtype != dtype:
                log.warning("ignoring the cache %s: it holds %s of shape %s", path, array.dtype, array.shape)
                return None
            return array
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with the file, it can be rebuilt
        log.warning("ignoring the unreadable cache %s: %s", path, error)
        return None


def write(path: Path, compress: bool = False, **arrays: np.ndarray) -> None:
    """Write a cache, or log a warning if that is not possible."""
    save: Callable[..., None] = np.savez_compressed if compress else np.savez
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            save(file, **arrays)
    except OSError as error:
        log.warning("nothing is cached: %s", error)
