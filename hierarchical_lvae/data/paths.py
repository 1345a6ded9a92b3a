"""What counts as a path to the user's own data, and how a missing file of a published data set is told."""

import os
from pathlib import Path

HDF5_SUFFIXES = (".h5", ".hdf5")
ARRAY_SUFFIXES = (".npz", *HDF5_SUFFIXES)
OWN_DATA = "a folder of images, an .npz or an .h5"


def is_path(name: str) -> bool:
    """Tell whether `name` is meant as a path: it exists, has a separator in it, or ends like a file of arrays.

    >>> is_path("digits"), is_path("./digits"), is_path("mine.npz")
    (False, True, True)
    """
    separators = {os.sep, os.altsep or os.sep, "/"}
    return bool(name) and (
        any(separator in name for separator in separators)
        or name.lower().endswith(ARRAY_SUFFIXES)
        or Path(name).exists()
    )


def missing(file: str, directory: Path, name: str) -> FileNotFoundError:
    """The error of a data set `name` whose `file` is not in the data directory."""
    return FileNotFoundError(
        f"{file} is not in {directory}: get it by `hlvae data download {name} --data-dir {directory}`"
    )
