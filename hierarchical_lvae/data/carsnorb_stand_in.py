"""A rendered stand-in for CarsNORB: cars and toys of our own, with the factors of Cars3D and SmallNORB.

It contains nothing of the real sets and does not imitate any of their images: only the names of the factors, most of
their sizes, and the share of cars (27 %) are theirs. Both grids are row-major, with the last factor fastest:

- *cars*, RGB on white: elevation (4), azimuth (24) and object (56: 8 bodies in 7 colours; Cars3D has 183);
- *toys*, grey: category (5), instance (3; SmallNORB has 10), elevation (9), azimuth (18) and lighting (6).

As in SmallNORB, the *instance* is observed only: `factors` holds the other four. Unlike there, all toys of a category
show the same side at azimuth 0. The two worlds share the meaning of elevation and azimuth (see `solids`).

An image is a weighted sum of the layers of its geometry (all but colour and lighting), which are rendered once. The
weights are the colours of a car's paints, or the power of the lamps on a toy.
"""

import hashlib
import itertools
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.data import cars3d, smallnorb
from hierarchical_lvae.data.cache import cached
from hierarchical_lvae.data.factor_images import FactorImages, Part, factor_grid
from hierarchical_lvae.data.layered import LayeredImages
from hierarchical_lvae.data.raycast import IMAGE_SIZE
from hierarchical_lvae.data.solids import CARS, CONSTANTS, LAMPS, STRETCHES, TOYS, render_car, render_toy

SOURCE = "stand-in for CarsNORB (rendered, neither Cars3D nor SmallNORB)"
"""The source of the images, in records and titles."""

FULL = 256  # weights are multiples of 1 / FULL, so that their sums are exact in float32 (and TF32) in any order
BODY_COLOURS = (
    (210, 35, 30), (30, 70, 200), (25, 140, 60), (250, 190, 20), (165, 170, 178), (235, 110, 20), (130, 50, 150)
)  # fmt: skip
OTHER_COLOURS = ((45, 52, 62), (256, 256, 256), (150, 0, 20))  # of the paints DARK, WHITE and RED
LIGHTINGS = ((320, 0, 0, 0), (0, 320, 0, 0), (0, 0, 320, 0), (0, 0, 0, 256), (176, 176, 0, 0), (96, 96, 96, 96))

CAR_ELEVATIONS, TOY_ELEVATIONS = range(5, 51, 15), range(10, 75, 8)  # in degrees; SmallNORB: 30, 35, …, 70
CAR_SIZES = (len(CAR_ELEVATIONS), 24, len(CARS), len(BODY_COLOURS))
TOY_SIZES = (len(TOYS), len(STRETCHES), len(TOY_ELEVATIONS), 18, len(LIGHTINGS))
CAR_GEOMETRIES, TOY_GEOMETRIES = prod(CAR_SIZES[:-1]), prod(TOY_SIZES[:-1])
LAYERS_SHAPE = (CAR_GEOMETRIES + TOY_GEOMETRIES, len(LAMPS), IMAGE_SIZE, IMAGE_SIZE)

RENDERER_VERSION = "1-" + hashlib.sha256(repr((CONSTANTS, CAR_ELEVATIONS, TOY_ELEVATIONS)).encode()).hexdigest()[:12]
"""Part of the cache file's name: the number changes with the renderer's code, the digest with its constants."""


class StandInImages(LayeredImages):
    """The images of the stand-in, 5,376 cars and 14,580 toys, from `layers` (`LAYERS_SHAPE`), as by `render_layers`."""

    def __init__(self, layers: Tensor) -> None:
        paints = [list(zip(colour, *OTHER_COLOURS, strict=True)) for colour in BODY_COLOURS]
        lamps = [[lighting] * 3 for lighting in LIGHTINGS]
        cars, toys = torch.arange(prod(CAR_SIZES)), torch.arange(prod(TOY_SIZES))
        geometry = torch.cat([cars // len(paints), toys // len(lamps) + CAR_GEOMETRIES])
        weights = torch.cat([cars % len(paints), toys % len(lamps) + len(paints)])
        super().__init__(layers, torch.tensor(paints + lamps), torch.stack([geometry, weights], 1), FULL)


def render_layers() -> Tensor:
    """The layers of all geometries, `LAYERS_SHAPE` uint8: those of the cars, then those of the toys."""
    cars = itertools.product(CAR_ELEVATIONS, range(0, 360, 15), CARS)
    toys = itertools.product(TOYS, range(len(STRETCHES)), TOY_ELEVATIONS, range(0, 360, 20))
    rendered = itertools.chain(
        (render_car(body, elevation, azimuth) for elevation, azimuth, body in cars),
        itertools.starmap(render_toy, toys),
    )
    layers = torch.empty(LAYERS_SHAPE, dtype=torch.uint8)
    bar = progress.bar(rendered, desc="rendering the stand-in", total=len(layers), leave=False)
    for row, layer in zip(layers, bar, strict=True):
        row.copy_(layer.mul(255).round())
    return layers


def load_stand_in(cache_dir: Path) -> FactorImages:
    """Load the stand-in from layers cached in `cache_dir`, or render them (and then cache them, if possible)."""
    path = cache_dir / f"hlvae-carsnorb-stand-in-{RENDERER_VERSION}.npz"
    layers = cached(path, "layers", LAYERS_SHAPE, np.uint8, lambda: render_layers().numpy(), compress=True)
    images = StandInImages(torch.from_numpy(layers))
    car_sizes = (*CAR_SIZES[:2], prod(CAR_SIZES[2:]))
    toy_sizes = tuple(TOY_SIZES[i] for i in smallnorb.LATENT)
    toy_factors = factor_grid(TOY_SIZES)[:, smallnorb.LATENT]
    start = prod(CAR_SIZES)
    parts = (
        Part("cars3d", 0, start, factor_grid(car_sizes), cars3d.FACTOR_NAMES, car_sizes),
        Part("smallnorb", start, len(images), toy_factors, smallnorb.FACTOR_NAMES, toy_sizes),
    )
    return FactorImages.union(images, SOURCE, parts)
