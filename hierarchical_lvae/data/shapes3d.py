"""3D Shapes (Burgess and Kim, 2018): a grid of 480,000 images, from the official `3dshapes.h5` or as a replica.

The grid is row-major: floor hue (10), wall hue (10), object hue (10), scale (8), shape (4), orientation (15), with
orientation fastest. Factors are indices into their values; the labels in the file are used only to check its order.
"""

import logging
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.data.factor_images import FactorImages, factor_grid, ranks
from hierarchical_lvae.data.hdf5 import whole_chunks
from hierarchical_lvae.data.hdf5_storage import check_storage, find_dataset
from hierarchical_lvae.data.paths import printable
from hierarchical_lvae.data.replica import FACTOR_SIZES, load_replica

FILE = "3dshapes.h5"
REPLICA = "replica of 3D Shapes (rendered, not the real images)"
"""The source of the replica's images, in records and titles."""
FACTOR_NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")

log = logging.getLogger(__name__)


def load(data_dir: Path) -> FactorImages:
    """Load `3dshapes.h5` from `data_dir`; without the file, log a warning and load the replica of the same grid."""
    if (data_dir / FILE).exists():
        return load_h5(data_dir / FILE)
    log.warning("%s is not in %s: using the rendered replica of 3D Shapes, not the real images", FILE, data_dir)
    return replica(data_dir)


def replica(cache_dir: Path) -> FactorImages:
    """The replica, with its 480 rendered geometries cached in `cache_dir`."""
    return FactorImages(
        images=load_replica(cache_dir),
        factors=factor_grid(FACTOR_SIZES),
        factor_names=FACTOR_NAMES,
        factor_sizes=FACTOR_SIZES,
        source=REPLICA,
    )


def load_h5(path: Path, factor_sizes: tuple[int, ...] = FACTOR_SIZES) -> FactorImages:
    """Read the official file (or one in the same layout with another grid) into memory as uint8: 5.9 GB.

    Raises:
        ValueError: keys, shapes, dtypes or the order of the images differ from the official ones.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            images, labels = _checked(file, path, prod(factor_sizes), len(factor_sizes))
            factors = factor_grid(factor_sizes)
            if not np.array_equal(ranks(labels[:]), factors):
                raise ValueError(f"the labels in {path} are not in the official order of the grid {factor_sizes}")
            source = printable(file.attrs.get("source", f"3D Shapes ({path.name})"))  # set in an exported replica
            pixels = np.empty(images.shape, np.uint8)
            rows = whole_chunks(images, 2**26 // prod(images.shape[1:]))
            for start in progress.bar(range(0, len(pixels), rows), f"reading {path.name}", leave=False, delay=2):
                images.read_direct(pixels, np.s_[start : start + rows], np.s_[start : start + rows])
    except (OSError, RuntimeError, KeyError) as error:  # h5py has no error type of its own
        raise ValueError(f"{path} cannot be read ({error}): is the download complete?") from error
    return FactorImages(
        images=torch.from_numpy(pixels).permute(0, 3, 1, 2),
        factors=factors,
        factor_names=FACTOR_NAMES,
        factor_sizes=factor_sizes,
        source=source,
    )


def _checked(file: Mapping[str, Any], path: Path, num_images: int, num_factors: int) -> tuple[Any, Any]:
    found = []
    for key, shape, kind in (
        ("images", (num_images, 64, 64, 3), "uint8"),
        ("labels", (num_images, num_factors), "float64"),
    ):
        dataset = find_dataset(file, key, path)
        if dataset is None:
            raise ValueError(f"{path} has no {key!r}: the official file has 'images' and 'labels'")
        if dataset.shape != shape or dataset.dtype != kind:
            raise ValueError(f"{key!r} in {path} is {dataset.dtype} {dataset.shape}, not {kind} {shape}")
        check_storage(dataset, f"{key!r} in {path}")
        found.append(dataset)
    return found[0], found[1]
