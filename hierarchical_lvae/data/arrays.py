"""Load the user's own arrays from an `.npz` or HDF5 file: images, and optionally their factors.

| key | content |
|---|---|
| `images` | (n, H, W), (n, H, W, C) or (n, C, H, W), uint8, bool, or floats in [0, 1]; C is 1 or 3, H, W at least 8 |
| `factors` | (n, F) whole numbers; optional |
| `factor_names` | F strings; optional |

No side is shorter than 8, so an axis of length 1 or 3 must be the channel axis. White is 255, 1.0 or True; floats are
rounded to 256 levels. Factor values are replaced by their ranks.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.data.brightness import warn_if_dim
from hierarchical_lvae.data.factor_images import FactorImages, ranks, shrunk
from hierarchical_lvae.data.framing import framed
from hierarchical_lvae.data.hdf5 import Hdf5Array, open_hdf5
from hierarchical_lvae.data.npz import NpzArray, open_npz
from hierarchical_lvae.data.paths import printable

KEYS = ("images", "factors", "factor_names")
BLOCK = 2**22  # bytes read at once
MIN_SIDE = 8
REMEDY = "give floats in [0, 1] (1 is white), uint8 (255 is white), or bool"
Array = NpzArray | Hdf5Array


def load_arrays(path: Path, image_size: int | None, frame: str) -> FactorImages:
    """Read a file of arrays; see `hierarchical_lvae.data.load.load_own` for the arguments.

    Raises:
        ValueError: a key, shape, type or value is not one of those listed above.
    """
    open_file = open_npz if path.suffix.lower() == ".npz" else open_hdf5
    try:
        with open_file(path, KEYS) as arrays:
            images = _images(arrays, path)
            factors = _factors(arrays, path, images.shape[0])
            names = _factor_names(arrays, path, factors.shape[1])
            pixels = _read_pixels(images, path, image_size, frame)
    except MemoryError as error:
        raise ValueError(
            f"the arrays of {path} do not fit into memory ({error}): give fewer or smaller images"
        ) from error
    return FactorImages(
        images=torch.from_numpy(pixels),
        factors=factors,
        factor_names=names,
        factor_sizes=tuple(int(size) for size in factors.max(0) + 1),
        source=f"images of {printable(path.name)} (own data)",
    )


def _images(arrays: Mapping[str, Array], path: Path) -> Array:
    """The array of images, with its shape and type checked."""
    if "images" not in arrays:
        raise ValueError(f"{path} has no array 'images': save (n, H, W), (n, H, W, C) or (n, C, H, W) by that name")
    images = arrays["images"]
    if not images.shape or images.shape[0] < 1 or _channel_axis(images.shape) is None:
        raise ValueError(
            f"'images' in {path} has shape {images.shape}: give (n, H, W), (n, H, W, C) or (n, C, H, W), "
            f"with at least one image, sides of at least {MIN_SIDE}, and 1 or 3 channels"
        )
    if images.dtype.kind not in "biuf":
        raise ValueError(f"'images' in {path} is {images.dtype}: {REMEDY}")
    return images


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """The channel axis, 1 or 3; 0 if there is none; None if this is not a shape of images.

    >>> [_channel_axis(shape) for shape in [(9, 8, 8), (9, 8, 8, 3), (9, 1, 8, 8), (9, 8, 8, 4), (9, 3, 7, 8)]]
    [0, 3, 1, None, None]
    """
    candidates = {3: [(0, shape[1:])], 4: [(3, shape[1:3]), (1, shape[2:])]}
    for axis, sides in candidates.get(len(shape), []):
        if min(sides) >= MIN_SIDE and (axis == 0 or shape[axis] in (1, 3)):
            return axis
    return None


def _factors(arrays: Mapping[str, Array], path: Path, n: int) -> np.ndarray:
    """The index of the value of each factor in each image: (n, F); F is 0 if there are no factors."""
    if "factors" not in arrays:
        if "factor_names" in arrays:
            raise ValueError(f"{path} has 'factor_names' but no 'factors': give both, or neither")
        return np.zeros((n, 0), np.int64)
    shape, dtype = arrays["factors"].shape, arrays["factors"].dtype
    if len(shape) != 2 or shape[0] != n:
        raise ValueError(f"'factors' in {path} has shape {shape}: give ({n}, F), one row per image")
    if dtype.kind not in "biuf":
        raise ValueError(f"'factors' in {path} is {dtype}: give whole numbers")
    values = arrays["factors"].whole()
    if dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise ValueError(f"'factors' in {path} has numbers that are not whole: give whole numbers")
    return ranks(values)


def _factor_names(arrays: Mapping[str, Array], path: Path, num_factors: int) -> tuple[str, ...]:
    if "factor_names" not in arrays:
        return tuple(f"factor_{i}" for i in range(num_factors))
    shape, dtype = arrays["factor_names"].shape, arrays["factor_names"].dtype
    if shape != (num_factors,) or dtype.kind not in "US":
        raise ValueError(f"'factor_names' in {path} is {dtype} {shape}: give {num_factors} strings, one per factor")
    values = arrays["factor_names"].whole()
    names = tuple(printable(v.decode(errors="surrogateescape") if isinstance(v, bytes) else v) for v in values)
    if len(set(names)) < num_factors or "" in names:
        raise ValueError(f"'factor_names' in {path} has an empty or a repeated name: {', '.join(map(repr, names))}")
    return names


def _read_pixels(images: Array, path: Path, image_size: int | None, frame: str) -> np.ndarray:
    """All images, (n, C, H, W) uint8; made square and shrunk if both sides are larger than `image_size`."""
    axis = _channel_axis(images.shape)
    height, width = (side for i, side in enumerate(images.shape) if i not in (0, axis))
    image_size = shrunk(image_size, (height, width))
    shape = (images.shape[0], images.shape[axis] if axis else 1, image_size or height, image_size or width)
    pixels = np.empty(shape, np.uint8)
    rows = max(1, BLOCK // (prod(images.shape[1:]) * images.dtype.itemsize))
    in_levels = images.dtype == np.uint8
    low, high, nans, brightest, start = np.nan, np.nan, 0, 0, 0
    with progress.bar(total=len(pixels), desc=f"reading {printable(path.name)}", leave=False, delay=2) as bar:
        for block in images.blocks(rows):
            if not in_levels:
                low, high = np.fmin(low, np.fmin.reduce(block, None)), np.fmax(high, np.fmax.reduce(block, None))
                nans += int(np.isnan(block).sum())
                block = np.rint(np.nan_to_num(block).clip(0, 1) * 255.0).astype(np.uint8)
            brightest = max(brightest, block.max())
            block = np.moveaxis(block, axis, 1) if axis else block[:, None]
            stop = start + len(block)
            pixels[start:stop] = block if block.shape[1:] == shape[1:] else _framed(block, shape[2], frame)
            bar.update(stop - start)
            start = stop
    if not in_levels and (images.dtype.kind in "iu" or low < 0 or high > 1 or nans):
        least, most = (str(value).removesuffix(".0") for value in (low, high))  # all digits: 1.0000000000000002
        found = f"{images.dtype} values from {least} to {most}" + (f" and {nans:,} NaN" if nans else "")
        raise ValueError(f"'images' in {path} has {found}: {REMEDY}")
    if images.dtype.kind != "b":
        remedy = "scale the values up, or save masks of 0 and 1 as bool"
        warn_if_dim(f"'images' in {printable(path)}", 255 if in_levels else 1, brightest, remedy)
    return pixels


def _framed(images: np.ndarray, size: int, frame: str) -> np.ndarray:
    """Make images (n, C, H, W) square: (n, C, size, size)."""
    from PIL import Image

    channels_last = images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images[:, 0]
    return np.stack([framed(Image.fromarray(image), size, frame) for image in channels_last])
