"""CarsNORB, from the paper: Cars3D followed by SmallNORB, 66,168 images, 64 × 64 RGB.

Grey images are repeated to RGB. The two data sets share no factors: each is a part of the union, with its own factors.
"""

from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae.data import cars3d, smallnorb
from hierarchical_lvae.data.factor_images import FactorImages, Part

NEIGHBOURHOOD = "latent-knn"


def load(data_dir: Path) -> FactorImages:
    """Load Cars3D and SmallNORB from `data_dir` as one data set.

    Raises:
        FileNotFoundError: files of one or both are not in `data_dir`.
        ValueError: a file does not have the published format.
    """
    _find_both(data_dir)
    cars, norb = cars3d.load(data_dir), smallnorb.load(data_dir)
    n = len(cars) + len(norb)
    images = torch.empty(n, 3, *cars.images.shape[2:], dtype=torch.uint8)
    parts = []
    for name, part, stop in (("cars3d", cars, len(cars)), ("smallnorb", norb, n)):
        images[stop - len(part) : stop] = part.images[...]
        parts.append(Part(name, stop - len(part), stop, part.factors, part.factor_names, part.factor_sizes))
    return FactorImages(
        images=images,
        factors=np.zeros((n, 0), np.int16),
        factor_names=(),
        factor_sizes=(),
        source=f"CarsNORB ({cars.source} and {norb.source})",
        parts=tuple(parts),
    )


def _find_both(data_dir: Path) -> None:
    """Report what is missing from both, before either is decoded."""
    lacking = []
    for find in (cars3d.find, smallnorb.find):
        try:
            find(data_dir)
        except FileNotFoundError as error:
            lacking.append(str(error))
    if lacking:
        raise FileNotFoundError("; ".join(lacking))
