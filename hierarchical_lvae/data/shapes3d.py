"""3D Shapes (Burgess and Kim, 2018): a grid of 480,000 images, from the official `3dshapes.h5` or as a replica.

The grid is row-major: floor hue (10), wall hue (10), object hue (10), scale (8), shape (4), orientation (15), with
orientation fastest. Factors are indices into their values; the labels in the file are used only to check its order.
"""

import logging
from math import prod
from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.data.factor_images import FactorImages, factor_grid, ranks
from hierarchical_lvae.data.hdf5 import open_hdf5
from hierarchical_lvae.data.paths import check_published, printable
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
    factors = factor_grid(factor_sizes)
    with open_hdf5(path, ("images", "labels")) as arrays:
        published = {"images": ((len(factors), 64, 64, 3), "uint8"), "labels": (factors.shape, "float64")}
        check_published(arrays, path, published)
        images = arrays["images"]
        if not np.array_equal(ranks(arrays["labels"].whole()), factors):
            raise ValueError(f"the labels in {path} are not in the official order of the grid {factor_sizes}")
        source = printable(images.attributes.get("source", f"3D Shapes ({path.name})"))  # set in an exported replica
        pixels, start = np.empty(images.shape, np.uint8), 0
        with progress.bar(total=len(pixels), desc=f"reading {path.name}", leave=False, delay=2) as bar:
            for block in images.blocks(2**26 // prod(images.shape[1:])):
                pixels[start : start + len(block)] = block
                start += len(block)
                bar.update(len(block))
    return FactorImages(
        images=torch.from_numpy(pixels).permute(0, 3, 1, 2),
        factors=factors,
        factor_names=FACTOR_NAMES,
        factor_sizes=factor_sizes,
        source=source,
    )
