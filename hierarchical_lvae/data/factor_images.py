"""A data set: images by index, and the known factors of variation that generated them."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hierarchical_lvae.data.layered import LayeredImages


class Part(NamedTuple):
    """A part of a union of data sets that share no factors, with its own factors."""

    name: str
    start: int
    stop: int
    """Its images are rows `start` … `stop` - 1 of the union."""
    factors: np.ndarray
    """(stop - start, F), as in `FactorImages`."""
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]


@dataclass(frozen=True)
class FactorImages:
    """Images with their factors of variation.

    Args:
        images: n images (n, C, H, W), uint8, stored or composited when indexed.
        factors: the index of the value of each factor in each image, (n, F) integers; F is 0 if none are known.
        factor_names: F names.
        factor_sizes: the number of values of each factor.
        source: the origin of the images, which appears in every table made from them.
        image_size: side, in pixels, of the square images that `batch` returns; None keeps the images' own size.
        parts: the parts of a union, in row order; empty otherwise.

    >>> from hierarchical_lvae.data import load_dataset
    >>> digits = load_dataset("digits")
    >>> digits.images.shape, digits.factor_names, digits.factor_sizes
    (torch.Size([1797, 1, 8, 8]), ('digit',), (10,))
    >>> x = digits.batch(torch.tensor([0, 5]))
    >>> x.shape, x.min().item(), x.max().item()
    (torch.Size([2, 1, 8, 8]), 0.0, 1.0)
    """

    images: Tensor | LayeredImages
    factors: np.ndarray
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    source: str
    image_size: int | None = None
    parts: tuple[Part, ...] = ()

    @classmethod
    def union(cls, images: Tensor | LayeredImages, source: str, parts: tuple[Part, ...]) -> "FactorImages":
        """A union of data sets that share no factors: only its parts have factors."""
        return cls(images, np.zeros((images.shape[0], 0), np.int16), (), (), source, parts=parts)

    def __len__(self) -> int:
        """The number of images."""
        return self.images.shape[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that `batch` returns."""
        _, channels, height, width = self.images.shape
        size = self.image_size
        return (channels, size, size) if size else (channels, height, width)

    @property
    def sub_sets(self) -> tuple[Part, ...]:
        """The parts, each with its own factors; without a union, a single unnamed part with all images."""
        return self.parts or (Part("", 0, len(self), self.factors, self.factor_names, self.factor_sizes),)

    def batch(self, index: Tensor) -> Tensor:
        """Return the images at `index` (B,) as floats (B, C, H, W), pixels in [0, 1], on the images' device."""
        x = self.images[index].float() / 255
        if x.shape[1:] == self.image_shape:
            return x
        return F.interpolate(x, self.image_shape[1:], mode="bilinear", antialias=True).clamp(0, 1)

    def to(self, device: torch.device | str) -> "FactorImages":
        """Return the data set with its images on another device."""
        return replace(self, images=self.images.to(device))

    def resized(self, image_size: int | None) -> "FactorImages":
        """Return the data set with each `batch` resized to squares of `image_size` pixels; None keeps their size."""
        return replace(self, image_size=image_size)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the shapes, the images with their factors, and the parts: 16 hexadecimal digits.

        If the images are rendered, or exceed 1 GiB in all, only 64 of them, evenly spaced, are hashed.
        """
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.factor_names, self.factor_sizes)).encode())
        whole = isinstance(self.images, Tensor) and self.images.numel() <= 2**30
        rows = torch.arange(len(self)) if whole else torch.linspace(0, len(self) - 1, min(64, len(self))).long()
        for chunk in rows.split(4096):
            digest.update(self.images[chunk].cpu().contiguous().numpy().tobytes())
        digest.update(np.ascontiguousarray(self.factors[rows.numpy()], dtype=np.int64).tobytes())
        for name, start, stop, factors, *rest in self.parts:
            digest.update(repr((name, start, stop, *rest)).encode())
            digest.update(np.ascontiguousarray(factors, dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]


def shrunk(image_size: int | None, sides: Sequence[int]) -> int | None:
    """The side to which images of these sides are shrunk; None if they are not larger and keep their size.

    >>> shrunk(32, (64, 48)), shrunk(48, (64, 48)), shrunk(None, (64, 48))
    (32, None, None)
    """
    return image_size if image_size and image_size < min(sides) else None


def factor_grid(sizes: tuple[int, ...]) -> np.ndarray:
    """All combinations of factor values, row-major (the last factor fastest): (prod(sizes), F).

    >>> factor_grid((2, 3)).tolist()
    [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    """
    return np.indices(sizes, dtype=np.int16).reshape(len(sizes), -1).T


def ranks(values: np.ndarray) -> np.ndarray:
    """Replace each of the values (n, F) by its rank among the distinct values of its column.

    >>> ranks(np.array([[30, 1], [-5, 1], [30, 1]])).tolist()
    [[1, 0], [0, 0], [1, 0]]
    """
    indices = np.empty(values.shape, np.int64)
    for column, index in zip(values.T, indices.T, strict=True):
        index[:] = np.unique(column, return_inverse=True)[1]
    return indices


def is_colour(factor_name: str) -> bool:
    """Whether a factor is a colour: whether its name contains the word hue, colour or color, or a plural of these.

    Words end at any character that is not a letter, and before a capital that follows a lower-case letter.

    >>> [is_colour(name) for name in ("floor_hue", "Hue", "wall colour", "objectColor", "RGBColours", "hue2")]
    [True, True, True, True, True, True]
    >>> [is_colour(name) for name in ("Thuesday", "colourless", "shape")]
    [False, False, False]
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", factor_name)
    return any(re.fullmatch("hues?|colou?rs?", word.lower()) for word in words)
