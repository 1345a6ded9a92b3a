"""Read the binary matrices of NORB, gzipped or not, block by block; all numbers are little-endian.

| bytes | content |
|---|---|
| 4 | magic number of the type: 0x1E3D4C55 for unsigned bytes, 0x1E3D4C54 for int32 |
| 4 | int32, number of dimensions |
| 4 each | int32, the sizes: one per dimension, but at least three |
| rest | the numbers, last dimension fastest |
"""

import gzip
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

MAGIC = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}


def read_blocks(path: Path, dtype: str, shape: tuple[int, ...], rows: int) -> Iterator[np.ndarray]:
    """Yield a matrix of known type and `shape` in blocks (rows, …) along its first dimension; the last may be smaller.

    No memory is allocated from the sizes in the header.

    Raises:
        ValueError: the header has another type or shape, or the file is too short or too long.
    """
    row = np.dtype(dtype).itemsize * prod(shape[1:])
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            _check_header(file, path, dtype, shape)
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                content = file.read(count * row)
                if len(content) < count * row:
                    raise EOFError(f"it ends after {start * row + len(content):,} of {shape[0] * row:,} bytes")
                yield np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(count, *shape[1:])
            if file.read(1):
                raise ValueError(f"{path} continues after its {shape[0] * row:,} bytes of numbers: download it again")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): is the download complete?") from error


def _check_header(file: BinaryIO | gzip.GzipFile, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    magic, dims = _integers(file, 2)
    if magic != MAGIC[dtype]:
        found = f"its magic number is {magic:#x}, not {MAGIC[dtype]:#x}"
        raise ValueError(f"{path} is not a NORB matrix of {dtype}: {found}")
    sizes = _integers(file, max(3, len(shape)))
    if dims != len(shape) or sizes[:dims] != shape:
        raise ValueError(f"{path} has {dims} dimensions and sizes {sizes}, not {shape}: is it SmallNORB?")


def _integers(file: BinaryIO | gzip.GzipFile, count: int) -> tuple[int, ...]:
    content = file.read(4 * count)
    if len(content) < 4 * count:
        raise EOFError("it ends within its header")
    return tuple(np.frombuffer(content, "<i4").tolist())
