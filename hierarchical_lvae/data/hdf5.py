"""Read arrays of an HDF5 file block by block."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hierarchical_lvae.data.hdf5_storage import check_storage, find_dataset


class Hdf5Array:
    """An array in an HDF5 file: `shape`, `dtype`, its numbers (or strings), and the `attributes` of its file."""

    def __init__(self, dataset: Any) -> None:
        """`dataset`: an `h5py.Dataset`."""
        import h5py

        is_text = h5py.check_string_dtype(dataset.dtype) is not None
        self.shape: tuple[int, ...] = dataset.shape or ()
        self.dtype = np.dtype(str) if is_text else dataset.dtype
        self.attributes: Mapping[str, Any] = dataset.file.attrs
        self._dataset = dataset
        self._values = dataset.asstr(errors="backslashreplace") if is_text else dataset

    def whole(self) -> np.ndarray:
        """Return the whole array."""
        return self._values[()]

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Yield the array in blocks (rows, …) along its first dimension; any may be shorter. Chunks are read whole."""
        chunk = self._dataset.chunks[0] if self._dataset.chunks else 1
        at_once = chunk * max(1, rows // chunk)  # reading any part of a chunk decompresses all of it
        for start in range(0, self.shape[0], at_once):
            block = self._values[start : start + at_once]
            yield from (block[row : row + rows] for row in range(0, len(block), rows))


@contextmanager
def open_hdf5(path: Path, names: Iterable[str]) -> Iterator[dict[str, Hdf5Array]]:
    """Yield those arrays of `names` that the file has.

    Raises:
        ValueError: the file is not HDF5, lacks part of an array, or turns out to be damaged while it is read.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            found = {name: dataset for name in names if (dataset := find_dataset(file, name, path)) is not None}
            for name, dataset in found.items():
                check_storage(dataset, f"{name!r} in {path}")
            yield {name: Hdf5Array(dataset) for name, dataset in found.items()}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} has names that are not UTF-8 ({error}): save it again with UTF-8 names") from error
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as HDF5 ({error}): is the file complete?") from error
