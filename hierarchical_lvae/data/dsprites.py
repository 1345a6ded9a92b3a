"""dSprites (Matthey et al., 2017): white shapes on black, 737,280 images of 64 × 64, from its `.npz`.

The grid is row-major: shape (3), scale (6), orientation (40), x (32), y (32), with y fastest (bases 245760, 40960,
1024, 32, 1). The colour, which is always white, is omitted. The file has `imgs`, (737280, 64, 64) uint8, whose values
0 and 1 become 0 and 255 (3 GB in memory), and `latents_classes`, (737280, 6) int64, the factors with the colour first,
used to check the order. Its `metadata` is a pickle and is not read.
"""

from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.data.factor_images import FactorImages, factor_grid
from hierarchical_lvae.data.npz import open_npz
from hierarchical_lvae.data.paths import check_published, missing

FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
FACTOR_NAMES = ("shape", "scale", "orientation", "x", "y")
FACTOR_SIZES = (3, 6, 40, 32, 32)
BLOCK = 1024  # images read at once: 4 MB


def load(data_dir: Path, factor_sizes: tuple[int, ...] = FACTOR_SIZES) -> FactorImages:
    """Load dSprites, or a file in the same layout with another grid, from `data_dir`.

    Raises:
        FileNotFoundError: the file is not in `data_dir`.
        ValueError: the file does not have the published format.
    """
    path = data_dir / FILE
    if not path.exists():
        raise missing(FILE, data_dir, "dsprites")
    factors = factor_grid(factor_sizes)
    with open_npz(path, ("imgs", "latents_classes")) as arrays:
        n = len(factors)
        check_published(arrays, path, {"imgs": ((n, 64, 64), "uint8"), "latents_classes": ((n, 6), "int64")})
        (classes,) = arrays["latents_classes"].blocks(n)
        if classes[:, 0].any() or not np.array_equal(classes[:, 1:], factors):
            raise ValueError(f"'latents_classes' in {path} is not in the order of the grid {factor_sizes}")
        pixels = np.empty((n, 1, 64, 64), np.uint8)
        starts = progress.bar(range(0, n, BLOCK), "reading dSprites", leave=False, delay=2)
        for start, block in zip(starts, arrays["imgs"].blocks(BLOCK), strict=True):
            if block.max() > 1:
                raise ValueError(f"'imgs' in {path} has the value {block.max()}, not only 0 and 1")
            np.multiply(block, 255, out=pixels[start : start + BLOCK, 0])
    return FactorImages(
        images=torch.from_numpy(pixels),
        factors=factors,
        factor_names=FACTOR_NAMES,
        factor_sizes=factor_sizes,
        source="dSprites",
    )
