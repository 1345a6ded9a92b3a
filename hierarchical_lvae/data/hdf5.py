"""Arrays of an HDF5 file, block by block."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from hierarchical_lvae.data.npz import is_bomb

HARMLESS = (2, 3)  # filters that do not pack, as HDF5 numbers them: shuffle and the checksum


class Hdf5Array:
    """An array of an HDF5 file: `shape` and `dtype`, and its numbers (or strings) in blocks of rows."""

    def __init__(self, dataset: Any) -> None:
        """`dataset`: an `h5py.Dataset`."""
        import h5py

        is_text = h5py.check_string_dtype(dataset.dtype) is not None
        self.shape: tuple[int, ...] = dataset.shape or ()
        self.dtype = np.dtype(str) if is_text else dataset.dtype
        self._values = dataset.asstr() if is_text else dataset

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Yield the array in blocks (rows, …) along its first dimension."""
        for start in range(0, self.shape[0], rows):
            yield self._values[start : start + rows]


@contextmanager
def open_hdf5(path: Path, names: Iterable[str]) -> Iterator[dict[str, Hdf5Array]]:
    """Those arrays of `names` that the file has.

    Raises:
        ValueError: the file is no HDF5, or turns out to be broken while it is read.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            found = {name: file[name] for name in names if isinstance(file.get(name), h5py.Dataset)}
            for name, dataset in found.items():
                stored = dataset.id.get_storage_size()
                if is_bomb(max(dataset.nbytes, prod(dataset.chunks or (0,)) * dataset.dtype.itemsize), stored):
                    raise ValueError(
                        f"{name!r} of {path} is to have {dataset.nbytes:,} bytes, and has {stored:,}: save it anew"
                    )
                properties = dataset.id.get_create_plist()
                filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
                if len(set(filters) - set(HARMLESS)) + len(filters) - len(set(filters)) > 1:
                    raise ValueError(f"{name!r} of {path} is packed more than once: save it anew")
            yield {name: Hdf5Array(dataset) for name, dataset in found.items()}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} has strings that are no UTF-8 ({error}): save them anew") from error
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as HDF5 ({error}): is it whole?") from error
