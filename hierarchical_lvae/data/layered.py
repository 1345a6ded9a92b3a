"""Images that are composited when they are indexed, each from the layers of one of a few rendered geometries."""

from collections.abc import Sequence
from copy import copy
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

CHUNK = 250  # images composited at once

Index: TypeAlias = int | slice | Sequence[int] | np.ndarray | Tensor


class LayeredImages:
    """n images (n, 3, h, w), uint8 in levels of 0 … 255.

    Image i has geometry g and weights w, and is round(min(255, sum over l of layers[g, l] * weights[w, :, l] / full)).

    Args:
        layers: (G, L, h, w) integers, in any dtype.
        weights: (W, 3, L) integers, in units of 1 / `full`, a power of two: sums are exact in float32 (and TF32) in any
            order.
        recipes: g and w of each image, (n, 2).
    """

    dtype = torch.uint8

    def __init__(self, layers: Tensor, weights: Tensor, recipes: Tensor, full: int) -> None:
        self._layers, self._recipes = layers, recipes.to(layers.device)
        self._weights = weights.to(layers.device, torch.float32) / full
        self.shape = (len(recipes), 3, *layers.shape[2:])

    @property
    def device(self) -> torch.device:
        """The device of the layers and of the images."""
        return self._layers.device

    def to(self, device: torch.device | str) -> "LayeredImages":
        """The same images on another device."""
        moved = copy(self)
        for name in ("_layers", "_weights", "_recipes"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def __len__(self) -> int:
        """The number of images."""
        return self.shape[0]

    def __getitem__(self, index: Index) -> Tensor:
        """The images at an integer index of any shape: uint8, index.shape + (3, h, w), on `device`.

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
        recipes = self._recipes[indices.to(self.device, torch.long).flatten() % len(self)]
        images = torch.empty(len(recipes), *self.shape[1:], dtype=self.dtype, device=self.device)
        for chunk, out in zip(recipes.split(CHUNK), images.flatten(2).split(CHUNK), strict=True):
            levels = self._weights[chunk[:, 1]] @ self._layers[chunk[:, 0]].float().flatten(2)
            out.copy_(levels.round_().clamp_(0, 255))
        return images.unflatten(0, indices.shape) if indices.dim() else images[0]
