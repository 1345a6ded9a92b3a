"""A replica of DeepMind's 3D Shapes data set: all 480,000 images, composited on demand from 480 rendered geometries.

Six factors determine an image; its index is row-major in them, with orientation fastest:

    floor hue (10), wall hue (10), object hue (10), scale (8), shape (4), orientation (15).

Hues only affect colours, so `raycast` renders each of the 8 * 4 * 15 geometries once, as one brightness layer for each
paint. An image is the sum of the layers in the colours of its paints, clipped at full brightness.
"""

import colorsys
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.data import raycast
from hierarchical_lvae.data.cache import cached

FACTOR_SIZES = (10, 10, 10, raycast.SCALES, len(raycast.SHAPES), raycast.ORIENTATIONS)
HUES = 10
GEOMETRIES = raycast.SCALES * len(raycast.SHAPES) * raycast.ORIENTATIONS
LAYERS_SHAPE = (GEOMETRIES, len(raycast.PAINTS), raycast.IMAGE_SIZE, raycast.IMAGE_SIZE)

HUE_COLOURS = [[round(255 * c) for c in colorsys.hsv_to_rgb(hue / HUES, 1.0, 1.0)] for hue in range(HUES)]
SKY_COLOUR = [153, 226, 249]
LEVELS = 1024  # layers are multiples of 1 / LEVELS, so that their sums are exact in float32 (and TF32) in any order

CHUNK = 250  # images composited at once

RENDERER_VERSION = "1-" + hashlib.sha256(repr((raycast.SCENE, raycast.SUPERSAMPLING, LEVELS)).encode()).hexdigest()[:12]
"""Part of the cache file's name: the number changes with the renderer's code, the digest with its constants."""

Index: TypeAlias = int | slice | Sequence[int] | np.ndarray | Tensor


class ReplicaImages:
    """The images of the replica, (480000, 3, 64, 64) uint8 in levels of 0 ... 255, composited when indexed.

    Image i has geometry g = i mod 480 and is round(min(255, sum over paints p of layers[g, p] * colours[i, p])), with
    layers (480, 4, 64, 64) in units of full brightness and colours (4, 3) of floor, wall, object and sky in levels.
    """

    shape = (int(np.prod(FACTOR_SIZES)), 3, raycast.IMAGE_SIZE, raycast.IMAGE_SIZE)
    dtype = torch.uint8

    def __init__(self, layers: Tensor) -> None:
        """`layers`: (480, 4, 64, 64) int16 in units of 1 / LEVELS, as `render_layers` returns them."""
        self._layers = layers.float().div(LEVELS).flatten(2)
        self._hues = torch.tensor(HUE_COLOURS, dtype=torch.float32, device=layers.device)
        self._sky = torch.tensor(SKY_COLOUR, dtype=torch.float32, device=layers.device)
        self._strides = torch.tensor([100, 10, 1], device=layers.device) * GEOMETRIES

    @property
    def device(self) -> torch.device:
        """The device of the layers and of the images."""
        return self._layers.device

    def to(self, device: torch.device | str) -> "ReplicaImages":
        """The same images on another device."""
        return ReplicaImages(self._layers.mul(LEVELS).to(device, torch.int16).unflatten(2, LAYERS_SHAPE[2:]))

    def __len__(self) -> int:
        """Number of images, 480,000."""
        return self.shape[0]

    def __getitem__(self, index: Index) -> Tensor:
        """The images at an integer index of any shape: uint8, index.shape + (3, 64, 64), on `device`.

        Negative indices count from the end.

        Raises:
            IndexError: an index is not an integer, or is out of range. (The range of an index on a GPU is not checked,
                because the check would wait for the GPU.)
        """
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        indices = index if isinstance(index, Tensor) else torch.from_numpy(np.array(index, order="C"))
        if indices.numel() and (indices.is_floating_point() or indices.dtype == torch.bool):
            raise IndexError(f"indices must be integers, not {indices.dtype}")
        if indices.device.type == "cpu" and ((indices < -len(self)) | (indices >= len(self))).any():
            raise IndexError(f"index out of range for {len(self)} images")
        flat = indices.to(self.device, torch.long).flatten() % len(self)
        images = torch.empty(len(flat), *self.shape[1:], dtype=self.dtype, device=self.device)
        for chunk, out in zip(flat.split(CHUNK), images.flatten(2).split(CHUNK), strict=True):
            levels = self._colours(chunk) @ self._layers[chunk % GEOMETRIES]
            out.copy_(levels.round_().clamp_(0, 255))
        return images.unflatten(0, indices.shape) if indices.dim() else images[0]

    def _colours(self, index: Tensor) -> Tensor:
        """Colours (n, 3, 4) of the four paints in the images at an index (n,)."""
        hues = index[:, None] // self._strides % HUES
        colours = torch.cat([self._hues[hues], self._sky.expand(len(index), 1, 3)], dim=1)
        return colours.transpose(1, 2)


def render_layers(supersampling: int = raycast.SUPERSAMPLING) -> Tensor:
    """The layers of all geometries, (480, 4, 64, 64) int16 in units of 1 / LEVELS, by scale, shape and orientation."""
    geometries = itertools.product(*map(range, FACTOR_SIZES[3:]))
    bar = progress.bar(geometries, desc="rendering the replica", total=GEOMETRIES, leave=False)
    layers = torch.stack([raycast.render_geometry(s, k, o, supersampling) for s, k, o in bar])
    return layers.mul(LEVELS).round().short()


def load_replica(cache_dir: Path | None) -> ReplicaImages:
    """Load the replica on the CPU, from layers cached in `cache_dir`, or rendered (and then cached, if possible)."""
    if cache_dir is None:
        return ReplicaImages(render_layers())
    path = Path(cache_dir) / f"hlvae-3dshapes-replica-{RENDERER_VERSION}.npz"
    layers = cached(path, "layers", LAYERS_SHAPE, np.int16, lambda: render_layers().numpy(), compress=True)
    return ReplicaImages(torch.from_numpy(layers))
