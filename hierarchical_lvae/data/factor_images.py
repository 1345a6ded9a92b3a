"""A data set: images by index, and what is known of the factors that made them."""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from platformdirs import user_cache_path
from torch import Tensor

from hierarchical_lvae.data import DATASETS
from hierarchical_lvae.types import lookup


class Images(Protocol):
    """n images: a uint8 tensor (n, C, H, W), or anything that is indexed like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, C, H, W)."""
        ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """The images at `index` (B,): (B, C, H, W) uint8."""
        ...

    def to(self, device: torch.device | str) -> "Images":
        """The same images, held on (or composited on) another device."""
        ...


@dataclass(frozen=True)
class FactorImages:
    """Images with their factors of variation.

    Args:
        images: n images, uint8.
        factors: the index of each image's value of each factor, (n, F) integers; F is 0 where none are known.
        factor_names: F names.
        factor_sizes: how many values each factor has.
        source: where the images are from, for every table that is made of them.
        image_size: sides of the images that `batch` gives; the images' own if None.

    >>> digits = load_dataset("digits")
    >>> digits.images.shape, digits.factor_names, digits.factor_sizes
    (torch.Size([1797, 1, 8, 8]), ('digit',), (10,))
    >>> x = digits.batch(torch.tensor([0, 5]))
    >>> x.shape, x.min().item(), x.max().item()
    (torch.Size([2, 1, 8, 8]), 0.0, 1.0)
    """

    images: Images
    factors: np.ndarray
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    source: str
    image_size: int | None = None

    def __len__(self) -> int:
        """Count the images."""
        return self.images.shape[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that `batch` gives."""
        _, channels, height, width = self.images.shape
        size = self.image_size
        return (channels, size, size) if size else (channels, height, width)

    def batch(self, index: Tensor) -> Tensor:
        """Images (B, C, H, W) at `index` (B,) as floats, pixels in [0, 1], on the images' device."""
        x = self.images[index].float() / 255
        if x.shape[1:] == self.image_shape:
            return x
        return F.interpolate(x, self.image_shape[1:], mode="bilinear", antialias=True).clamp(0, 1)

    def to(self, device: torch.device | str) -> "FactorImages":
        """Hold the images on another device."""
        return replace(self, images=self.images.to(device))

    def resized(self, image_size: int) -> "FactorImages":
        """Give square images of `image_size` pixels a side (antialiased, at each `batch`)."""
        return replace(self, image_size=image_size)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the shapes, the factors, and 64 images spread over the set: 16 hexadecimal digits."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.factor_names, self.factor_sizes)).encode())
        spread = torch.linspace(0, len(self) - 1, min(64, len(self))).long()
        digest.update(self.images[spread].cpu().contiguous().numpy().tobytes())
        digest.update(np.ascontiguousarray(self.factors[spread.numpy()], dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]


def factor_grid(sizes: tuple[int, ...]) -> np.ndarray:
    """All combinations of factor values, row-major (the last factor fastest): (prod(sizes), F).

    >>> factor_grid((2, 3)).tolist()
    [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    """
    return np.indices(sizes, dtype=np.int16).reshape(len(sizes), -1).T


def default_data_dir() -> Path:
    """Where downloads and caches lie: $HLVAE_DATA, else the user's cache directory."""
    return Path(os.environ["HLVAE_DATA"]) if os.environ.get("HLVAE_DATA") else user_cache_path("hlvae")


def load_dataset(name: str, data_dir: str | Path | None = None) -> FactorImages:
    """Load a data set by its name in `DATASETS`.

    Args:
        name: a key of `DATASETS`.
        data_dir: where its files are looked for; `default_data_dir()` if None.

    Raises:
        ValueError: no data set has that name, or a file is not what it should be.
        FileNotFoundError: a data directory was given, and there is none.
    """
    load = lookup(DATASETS, name, "data set")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise FileNotFoundError(f"the data directory {data_dir} does not exist: create it, or leave --data-dir out")
    directory = default_data_dir() if data_dir is None else Path(data_dir)
    return load(directory)
