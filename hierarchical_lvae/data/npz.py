"""Read arrays of an `.npz` block by block. Headers are checked before memory is allocated; nothing is unpickled."""

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from hierarchical_lvae.data.packing import check_ratio

REMEDY = "if you trust it, save it uncompressed, with numpy.savez (or scipy's save_npz, compressed=False, if sparse)"


class NpzArray:
    """An array in an `.npz`: `shape` and `dtype` from its header, and its numbers in blocks of rows."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        """Read the header of the array `name`.

        Raises:
            ValueError: it holds Python objects, its size is not that in its header, or it is compressed too much.
        """
        where = f"{name!r} in {archive.filename}"
        info = archive.getinfo(f"{name}.npy")
        self._open = lambda: archive.open(info)
        with self._open() as file:
            try:
                major, _ = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                self.shape, self._by_columns, self.dtype = read(file)
            except Exception as error:  # damaged headers raise many types of errors
                raise ValueError(f"{where} has no readable header: is the file complete?") from error
            self._start = file.tell()
        if self.dtype.hasobject:
            raise ValueError(f"{where} holds Python objects (is it ragged?), which are not unpickled: save numbers")
        size = info.file_size - self._start
        if size != prod(self.shape) * self.dtype.itemsize:
            raise ValueError(f"{where} should be {self.dtype} {self.shape}, but has {size:,} bytes: save it again")
        check_ratio(where, info.file_size, info.compress_size, REMEDY)

    def whole(self) -> np.ndarray:
        """Return the whole array."""
        if not self.shape:
            with self._open() as file:
                file.read(self._start)
                return np.frombuffer(file.read(), self.dtype).reshape(())
        return next(self.blocks(max(1, self.shape[0])), np.empty(self.shape, self.dtype))

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Yield the array in blocks (rows, …) along its first dimension; one in Fortran order is read whole.

        Raises:
            EOFError: the array is truncated; `open_npz` turns this into a ValueError.
        """
        with self._open() as file:
            file.read(self._start)  # seeking would turn off the verification of the checksum (Python 3.12 and later)
            at_once = max(1, self.shape[0] if self._by_columns else rows)
            for start in range(0, self.shape[0], at_once):
                shape = (min(at_once, self.shape[0] - start), *self.shape[1:])
                content = file.read(prod(shape) * self.dtype.itemsize)
                if len(content) < prod(shape) * self.dtype.itemsize:
                    raise EOFError("an array is truncated")
                block = np.frombuffer(content, self.dtype).reshape(shape, order="F" if self._by_columns else "C")
                yield from (block[row : row + rows] for row in range(0, len(block), rows))


@contextmanager
def open_npz(path: Path, names: Iterable[str] | None = None) -> Iterator[dict[str, NpzArray]]:
    """Yield those arrays of `names` that the file has (all, if None); no other member is read.

    Raises:
        ValueError: the file is not an `.npz`, or turns out to be damaged while it is read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            there = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
            yield {name: NpzArray(archive, name) for name in (there if names is None else names) if name in there}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as an .npz ({error}): is the file complete?") from error
