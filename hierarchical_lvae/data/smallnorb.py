"""SmallNORB (LeCun et al., 2004): 50 toys of 5 categories, seen by one camera; 48,600 grey images, 64 × 64.

Both the training and the testing half are read, but only the first of the two cameras. The images are sorted in the
row-major grid of category (5), instance (10), elevation (9), azimuth (18) and lighting (6), with lighting fastest
(bases 9720, 972, 108, 6, 1).

The *instance* is observed only: `factors` holds the other four factors, and each combination of them occurs ten times,
once for each toy of the category. At azimuth 0, different toys do not show the same side.

Pixels are unsigned bytes, resized from 96 × 96 in 8 bits and therefore clipped to 0 … 255. The six files are read from
the data directory, as `.gz` or unpacked; the images are decoded once and cached there in `hlvae-smallnorb-64.npz`.
"""

from itertools import chain
from math import prod
from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.data.cache import cached
from hierarchical_lvae.data.factor_images import FactorImages, factor_grid
from hierarchical_lvae.data.framing import framed
from hierarchical_lvae.data.norb_matrix import read_blocks
from hierarchical_lvae.data.paths import missing

HALVES = ("smallnorb-5x46789x9x18x6x2x96x96-training", "smallnorb-5x01235x9x18x6x2x96x96-testing")
MATRICES = ("dat", "cat", "info")
STATES = (5, 10, 9, 18, 6)  # category, instance, elevation, azimuth, lighting
LATENT = [0, 2, 3, 4]  # the columns of `factors`: all but the instance
FACTOR_NAMES = ("category", "elevation", "azimuth", "lighting")
SIZE = 64
BLOCK = 100  # rows read at once: 1.8 MB


def load(data_dir: Path, states: tuple[int, ...] = STATES) -> FactorImages:
    """Load SmallNORB, or files in the same layout with other numbers of states, half of them in each half.

    Raises:
        FileNotFoundError: one of its six files is not in `data_dir`.
        ValueError: a file does not have the published format.
    """
    files = find(data_dir)
    shape = (prod(states), 1, SIZE, SIZE)
    cache = data_dir / "hlvae-smallnorb-64.npz"
    pixels = cached(cache, "images", shape, np.uint8, lambda: _decode(files, states), list(files.values()))
    return FactorImages(
        images=torch.from_numpy(pixels),
        factors=factor_grid(states)[:, LATENT],
        factor_names=FACTOR_NAMES,
        factor_sizes=tuple(states[i] for i in LATENT),
        source="SmallNORB",
    )


def find(data_dir: Path) -> dict[tuple[str, str], Path]:
    """Find the file of each half and matrix.

    Raises:
        FileNotFoundError: one is not in `data_dir`.
    """
    files = {}
    for half in HALVES:
        for matrix in MATRICES:
            plain, packed = data_dir / f"{half}-{matrix}.mat", data_dir / f"{half}-{matrix}.mat.gz"
            files[half, matrix] = plain if plain.exists() else packed
            if not files[half, matrix].exists():
                raise missing(packed.name, data_dir, "smallnorb")
    return files


def _decode(files: dict[tuple[str, str], Path], states: tuple[int, ...]) -> np.ndarray:
    """The images of all states, sorted: (prod(states), 1, 64, 64) uint8."""
    from PIL import Image

    rows = prod(states) // len(HALVES)
    order = np.concatenate([_states(files, half, rows, states) for half in HALVES])
    if (np.bincount(order, minlength=prod(states)) != 1).any():
        raise ValueError(
            f"the {prod(states):,} states of SmallNORB do not occur exactly once each: download its files again"
        )
    pixels = np.empty((prod(states), 1, SIZE, SIZE), np.uint8)
    blocks = [read_blocks(files[half, "dat"], "uint8", (rows, 2, 96, 96), BLOCK) for half in HALVES]
    images = (image for block in chain(*blocks) for image in block[:, 0])
    for state, image in zip(progress.bar(order, "reading SmallNORB", leave=False, delay=2), images, strict=True):
        pixels[state] = framed(Image.fromarray(image), SIZE)
    return pixels


def _states(files: dict[tuple[str, str], Path], half: str, rows: int, states: tuple[int, ...]) -> np.ndarray:
    """The index of each image's state, row-major: (rows,)."""
    (category,) = read_blocks(files[half, "cat"], "int32", (rows,), rows)
    (info,) = read_blocks(files[half, "info"], "int32", (rows, 4), rows)
    columns = np.column_stack([category, info])
    odd = columns[:, 3] % 2 != 0
    columns[:, 3] //= 2  # azimuths are in tens of degrees: 0, 2, …, 34
    if odd.any() or (columns < 0).any() or (columns >= states).any():
        where = f"{files[half, 'cat']} or {files[half, 'info'].name}"
        raise ValueError(f"{where} has a state outside the range {states}: download its files again")
    return np.ravel_multi_index(tuple(columns.T), states)
