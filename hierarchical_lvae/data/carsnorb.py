"""CarsNORB, from the paper: Cars3D followed by SmallNORB, 66,168 images, 64 × 64 RGB.

Grey images are repeated to RGB. The two data sets share no factors: each is a part of the union, with its own factors.
If both are missing, a rendered stand-in is used instead (see `carsnorb_stand_in`).
"""

import logging
from pathlib import Path

import torch

from hierarchical_lvae.data import cars3d, smallnorb
from hierarchical_lvae.data.carsnorb_stand_in import load_stand_in
from hierarchical_lvae.data.factor_images import FactorImages, Part

NEIGHBOURHOOD = "latent-knn"

log = logging.getLogger(__name__)


def load(data_dir: Path) -> FactorImages:
    """Load Cars3D and SmallNORB from `data_dir` as one data set; without both, log a warning and load the stand-in.

    Raises:
        FileNotFoundError: files of only one of them are missing from `data_dir`.
        ValueError: a file does not have the published format.
    """
    if not real_images(data_dir):
        log.warning(
            "Cars3D and SmallNORB are not in %s: using a rendered stand-in for CarsNORB, not the real images", data_dir
        )
        return load_stand_in(data_dir)
    cars, norb = cars3d.load(data_dir), smallnorb.load(data_dir)
    n = len(cars) + len(norb)
    images = torch.empty(n, 3, *cars.images.shape[2:], dtype=torch.uint8)
    parts = []
    for name, part, stop in (("cars3d", cars, len(cars)), ("smallnorb", norb, n)):
        images[stop - len(part) : stop] = part.images[torch.arange(len(part))]
        parts.append(Part(name, stop - len(part), stop, part.factors, part.factor_names, part.factor_sizes))
    return FactorImages.union(images, f"CarsNORB ({cars.source} and {norb.source})", tuple(parts))


def real_images(data_dir: Path) -> bool:
    """Whether Cars3D and SmallNORB are in `data_dir`, both or neither; nothing is decoded.

    Raises:
        FileNotFoundError: files of only one of them are missing.
    """
    lacking = []
    for find in (cars3d.find, smallnorb.find):
        try:
            find(data_dir)
        except FileNotFoundError as error:
            lacking.append(error)
    if len(lacking) == 1:
        raise lacking[0]
    return not lacking
