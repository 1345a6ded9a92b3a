"""k nearest neighbours of the raw pixels, by Euclidean distance (appendix D).

The neighbours of all points are computed once, before the first step. They are stored in the checkpoint, and cached by
fingerprint in the data directory for other runs on the same data.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae.data.cache import cached
from hierarchical_lvae.neighbourhoods.build import Neighbourhood, Surroundings, gather
from hierarchical_lvae.neighbourhoods.search import EXACT, all_neighbours, choose_index, empty_index, recall

log = logging.getLogger(__name__)


class NearestPixels(Neighbourhood):
    """The K images with the nearest pixels. Duplicates of the query count as neighbours, the query itself does not."""

    kept = ("ids",)
    capturable = True

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        size = len(surroundings.data), int(np.prod(surroundings.data.image_shape))
        self.index = choose_index(*size) if surroundings.index is None else surroundings.index
        self.ids = torch.empty(0)

    def check(self) -> None:
        """Check that Faiss has the index, unless the neighbours are cached.

        Raises:
            ValueError: it has not, or the index would not fit into memory.
        """
        path = self._cache()
        if path is None or not path.exists():
            empty_index(self.surroundings.data, self.index)

    def prepare(self) -> None:
        """Compute all neighbours, or read them from the cache; log the recall of the index and how near they are."""
        if len(self.ids):
            return
        data, number, path = self.surroundings.data, self.surroundings.num_neighbours, self._cache()
        shape = len(data), number
        ids = self._search() if path is None else cached(path, "ids", shape, np.int32, self._search)
        if data.factors.shape[1]:
            log.info("nearest images: %s", describe_steps(data.factors, data.factor_names, ids))
        self.ids = torch.from_numpy(ids)

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Neighbours (B, K, C, H, W), nearest first."""
        self.prepare()
        self.ids = self.ids.to(x.device)
        return gather(self.surroundings.data, self.ids[index].long(), x)

    def _search(self) -> np.ndarray:
        data, number = self.surroundings.data, self.surroundings.num_neighbours
        ids = all_neighbours(data, number, self.index)
        if self.index != EXACT:
            found = recall(data, ids)
            log.info("recall@%d of %s: %.3f against exact search, on 200 images", number, self.index, found)
        return ids

    def _cache(self) -> Path | None:
        data, directory, number = self.surroundings.data, self.surroundings.cache, self.surroundings.num_neighbours
        size, index = "x".join(map(str, data.image_shape)), self.index.replace(",", "_")
        return (
            None if directory is None else directory / f"hlvae-nearest-{data.fingerprint}-{size}-{number}-{index}.npz"
        )


def describe_steps(factors: np.ndarray, names: tuple[str, ...], ids: np.ndarray) -> str:
    """Describe how far points are from their neighbours ids (n, K): the mean difference of each factor's index.

    >>> describe_steps(np.array([[0, 3], [1, 3], [1, 0]]), ("hue", "size"), np.array([[1], [0], [1]]))
    '1.67 factor steps away (hue 0.67, size 1.00)'
    """
    rows = np.random.default_rng(0).permutation(len(ids))[:10_000]
    steps = np.abs(factors[ids[rows]].astype(int) - factors[rows, None]).mean((0, 1))
    each = ", ".join(f"{name} {step:.2f}" for name, step in zip(names, steps, strict=True))
    return f"{steps.sum():.2f} factor steps away ({each})"
