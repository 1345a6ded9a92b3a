"""Arrays kept in a file between sessions: written whole or not at all, and made again when damaged or out of date.

A cache is an `.npz` of one array and, where the file's name does not identify it, the `key` of what it was made from.
Its name begins with `hlvae-`: a file of the user's own is never taken for a cache and overwritten.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from hierarchical_lvae.files import atomic

log = logging.getLogger(__name__)

VERSION = 1  # of what `cached` keeps: count on when a decoder changes


def cached(path: Path, files: Sequence[Path], shape: tuple[int, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
    """The uint8 array of `shape` that `make` decodes from `files`, kept in `path` for the next time.

    The key is a hash of the names, sizes and modification times of the files: if one changes, the array is made again.
    """
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((VERSION, state)).encode()).hexdigest()
    pixels = read(path, "images", shape, np.uint8, key)
    if pixels is None:
        pixels = make()
        write(path, key=np.array(key), images=pixels)
    return pixels


def read(path: Path, name: str, shape: tuple[int, ...], dtype: DTypeLike, key: str = "") -> np.ndarray | None:
    """The array `name` of a cache, of `shape`; None, with a line in the log, if it has no such array."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if key and str(arrays["key"]) != key:
                log.info("the files behind the cache %s have changed: making it again", path)
                return None
            array = arrays[name]
            if array.shape != shape or array.dtype != dtype:
                log.warning("ignoring the cache %s: it holds %s of shape %s", path, array.dtype, array.shape)
                return None
            return array
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with the file, its content can be made again
        log.warning("ignoring the unreadable cache %s: %s", path, error)
        return None


def write(path: Path, compress: bool = False, **arrays: np.ndarray) -> None:
    """Write a cache; where that is not possible, log a warning instead."""
    save: Callable[..., None] = np.savez_compressed if compress else np.savez
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            save(file, **arrays)
    except OSError as error:
        log.warning("nothing is cached: %s", error)
