"""The nearest neighbours of all points among all points, by Faiss.

Small data sets are searched exactly, by comparing all pairs. Large ones are searched approximately, without holding all
images as floats: pixels are projected onto their first principal components, and an inverted file (IVF) groups the
points into cells, of which a few are searched. `recall` measures the accuracy against the exact neighbours of a sample.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.data.factor_images import FactorImages
from hierarchical_lvae.neighbourhoods.build import without_self
from hierarchical_lvae.types import random_state_kept

EXACT = "Flat"
CHUNK_BYTES = 2**26
TRAIN_BYTES = 2**30
PCA_POINTS = 4_096
FLAT_BYTES = 2**33
PROBES = 8


def choose_index(number: int, dimension: int) -> str:
    """Choose a string for Faiss's `index_factory` by data size: exact if that takes at most a few minutes.

    >>> choose_index(1_797, 64), choose_index(480_000, 12_288)
    ('Flat', 'PCA256,IVF1024,Flat')
    """
    if number**2 * dimension <= 8e12 and number * dimension <= 2**29:
        return EXACT
    cells = 2 ** round(np.log2(1.5 * np.sqrt(number)))
    return f"PCA{min(256, dimension)},IVF{cells},Flat"


def all_neighbours(data: FactorImages, number: int, factory: str) -> np.ndarray:
    """The `number` nearest other points of each point, nearest first: ids (n, number) int32.

    Raises:
        ValueError: the index is unknown to Faiss, does not suit the data or the memory, or finds too few neighbours.
    """
    project, index = _build(data, factory)
    ids = np.empty((len(data), number), np.int32)
    for rows, x in _chunks(data, "nearest images"):
        try:
            found = torch.from_numpy(index.search(project(x), number + 1)[1])
        except RuntimeError as error:
            raise ValueError(
                f"the index {factory} cannot be searched ({_reason(error)}): give another `index`, or leave it out"
            ) from error
        ids[rows] = without_self(found, rows, number)
    if (ids < 0).any():
        raise ValueError(
            f"the index {factory} finds fewer than {number} neighbours of some points: give an `index` with fewer "
            "cells, or leave it out"
        )
    return ids


def recall(data: FactorImages, ids: np.ndarray, sample: int = 200, seed: int = 0) -> float:
    """The share of the exact K nearest neighbours that the table ids (n, K) contains, averaged over sampled points."""
    import faiss

    rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(data))[:sample])
    queries = _pixels(data, rows)
    project = _centred(queries)
    number = ids.shape[1] + 1
    heap = faiss.ResultHeap(len(rows), number)
    for part, x in _chunks(data, "exact neighbours of a sample"):
        distances, found = faiss.knn(project(queries), project(x), min(number, len(x)))
        heap.add_result(distances, found + int(part[0]))
    heap.finalize()
    exact = without_self(torch.from_numpy(heap.I), rows, ids.shape[1])
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(exact, ids[rows], strict=True)]))


def empty_index(data: FactorImages, factory: str) -> tuple[Any, bool]:
    """An index without points, and whether its points are the pixels projected onto their principal components.

    Raises:
        ValueError: the index is unknown to Faiss, has no components, or would not fit into memory.
    """
    import faiss

    dimension = int(np.prod(data.image_shape))
    if factory == EXACT and 4 * len(data) * dimension > FLAT_BYTES:
        raise ValueError(
            f"the index {EXACT} would hold {4e-9 * len(data) * dimension:.0f} GB of floats: leave `index` out"
        )
    components, rest = _parts(factory)
    if components is not None:
        dimension = min(PCA_POINTS, len(data), dimension, components)
        if dimension < 1:
            raise ValueError(f"the index {factory} has no components: give at least 1 after PCA")
    try:
        return faiss.index_factory(dimension, rest), components is not None
    except RuntimeError as error:
        raise ValueError(
            f"Faiss has no index {factory!r} ({_reason(error)}): give another `index`, or leave it out"
        ) from error


def _parts(factory: str) -> tuple[int | None, str]:
    """The number of principal components, if there are any, and the index of the projected points."""
    found = re.fullmatch(r"(?:PCA(\d+),)?(.*)", factory, re.DOTALL)
    assert found is not None
    return None if found[1] is None else int(found[1]), found[2]


def _build(data: FactorImages, factory: str) -> tuple[Callable[[np.ndarray], np.ndarray], Any]:
    """A projection of pixels onto the principal components of a sample (or none), and an index of all projected points.

    Without a projection, the mean of the sample is subtracted. Faiss computes distances as |x|² − 2 x·y + |y|², in
    float32: on images with a bright background, the rounding would exceed the distances.
    """
    import faiss

    index, is_projected = empty_index(data, factory)
    dimension, rest = index.d, _parts(factory)[1]
    rng = np.random.default_rng(0)
    shuffled = torch.from_numpy(rng.permutation(len(data)))
    sample = _pixels(data, shuffled[:PCA_POINTS])
    project = _principal_components(sample, dimension) if is_projected else _centred(sample)
    if not index.is_trained:
        count = TRAIN_BYTES // (4 * dimension)
        if ivf := re.search(r"IVF(\d+)", rest):
            count = min(count, 64 * int(ivf[1]))
        parts = [project(x) for _, x in _chunks(data, "sample for the index", shuffled[:count])]
        try:
            index.train(np.concatenate(parts))
        except RuntimeError as error:
            raise ValueError(
                f"the index {factory} cannot be trained on these data ({_reason(error)}): give an `index` with fewer "
                "cells, or leave it out"
            ) from error
    if (ivf_index := faiss.try_extract_index_ivf(index)) is not None:
        ivf_index.nprobe = PROBES
    for _, x in _chunks(data, "building the index"):
        index.add(project(x))
    return project, index


def _principal_components(sample: np.ndarray, number: int) -> Callable[[np.ndarray], np.ndarray]:
    """The projection of pixels (m, C·H·W) onto the first principal components of a sample: (m, number)."""
    x = torch.from_numpy(sample)
    with random_state_kept():  # torch.pca_lowrank uses random projections
        torch.manual_seed(0)
        mean, axes = x.mean(0), torch.pca_lowrank(x, number)[2]
    return lambda pixels: ((torch.from_numpy(pixels) - mean) @ axes).numpy()


def _centred(sample: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The subtraction of a sample's mean from pixels (m, C·H·W)."""
    mean = sample.mean(0)
    return lambda pixels: pixels - mean


def _chunks(data: FactorImages, label: str, rows: Tensor | None = None) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Rows and their pixels (m, C·H·W), about 64 MB at a time."""
    rows = torch.arange(len(data)) if rows is None else rows
    size = max(1, CHUNK_BYTES // (4 * int(np.prod(data.image_shape))))
    with progress.bar(desc=label, total=len(rows), unit="image", leave=False, delay=2) as bar:
        for part in rows.split(size):
            yield part, _pixels(data, part)
            bar.update(len(part))


def _pixels(data: FactorImages, rows: Tensor) -> np.ndarray:
    return data.batch(rows).flatten(1).cpu().numpy()


def _reason(error: Exception) -> str:
    return str(error).splitlines()[-1].split(" at ")[0].removeprefix("Error: ")
