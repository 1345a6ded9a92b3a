"""Arrays kept in a file between sessions: written whole or not at all, and made anew when damaged or out of date.

A cache is an `.npz` of one array and, where the file's name does not tell it, the `key` of what it was made from.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

log = logging.getLogger(__name__)

VERSION = 1  # of what `cached` keeps: count on when a decoder changes


def cached(path: Path, files: Sequence[Path], shape: tuple[int, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
    """The uint8 array of `shape` that `make` decodes from `files`, kept in `path` for the next time.

    The key is a hash of the names, sizes and modification times of the files: it is made anew when one has changed.
    """
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((VERSION, state)).encode()).hexdigest()
    pixels = read(path, "images", shape, np.uint8, key)
    if pixels is None:
        pixels = make()
        write(path, key=np.array(key), images=pixels)
    return pixels


def read(path: Path, name: str, shape: tuple[int, ...], dtype: DTypeLike, key: str = "") -> np.ndarray | None:
    """The array `name` of a cache, of `shape`; None, and a word in the log, if there is none such in it."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if key and str(arrays["key"]) != key:
                log.info("the files behind the cache %s have changed: making it anew", path)
                return None
            array = arrays[name]
            if array.shape != shape or array.dtype != dtype:
                log.warning("ignoring the cache %s: it holds %s of shape %s", path, array.dtype, array.shape)
                return None
            return array
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with the file, its content can be made anew
        log.warning("ignoring the unreadable cache %s: %s", path, error)
        return None


def write(path: Path, compress: bool = False, **arrays: np.ndarray) -> None:
    """Write a cache; where that is not possible, say so in the log and go on."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            save: Callable[..., None] = np.savez_compressed if compress else np.savez
            save(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        log.warning("cannot cache %s: %s", path, error)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
