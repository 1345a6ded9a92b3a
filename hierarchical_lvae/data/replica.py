"""A replica of DeepMind's 3D Shapes data set: all 480,000 images, composited on demand from 480 rendered geometries.

Six factors determine an image; its index is row-major in them, with orientation fastest:

    floor hue (10), wall hue (10), object hue (10), scale (8), shape (4), orientation (15).

Hues only affect colours, so `raycast` renders each of the 8 * 4 * 15 geometries once, as one brightness layer for each
paint. An image is the sum of the layers in the colours of its paints, clipped at full brightness.
"""

import colorsys
import hashlib
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.data import raycast
from hierarchical_lvae.data.cache import cached
from hierarchical_lvae.data.factor_images import factor_grid
from hierarchical_lvae.data.layered import LayeredImages

FACTOR_SIZES = (10, 10, 10, raycast.SCALES, len(raycast.SHAPES), raycast.ORIENTATIONS)
HUES = 10
GEOMETRIES = raycast.SCALES * len(raycast.SHAPES) * raycast.ORIENTATIONS
LAYERS_SHAPE = (GEOMETRIES, len(raycast.PAINTS), raycast.IMAGE_SIZE, raycast.IMAGE_SIZE)

HUE_COLOURS = [[round(255 * c) for c in colorsys.hsv_to_rgb(hue / HUES, 1.0, 1.0)] for hue in range(HUES)]
SKY_COLOUR = [153, 226, 249]
LEVELS = 1024  # layers are multiples of 1 / LEVELS, so that their sums are exact in float32 (and TF32) in any order

RENDERER_VERSION = "1-" + hashlib.sha256(repr((raycast.SCENE, raycast.SUPERSAMPLING, LEVELS)).encode()).hexdigest()[:12]
"""Part of the cache file's name: the number changes with the renderer's code, the digest with its constants."""


class ReplicaImages(LayeredImages):
    """The images of the replica, (480000, 3, 64, 64), from `layers` (480, 4, 64, 64) int16, as by `render_layers`.

    Image i has geometry i mod 480; its weights are the colours of floor, wall, object and sky in levels.
    """

    def __init__(self, layers: Tensor) -> None:
        hues = torch.from_numpy(factor_grid(FACTOR_SIZES[:3])).long()
        sky = torch.tensor(SKY_COLOUR).expand(len(hues), 1, 3)
        colours = torch.cat([torch.tensor(HUE_COLOURS)[hues], sky], 1).transpose(1, 2)
        index = torch.arange(int(np.prod(FACTOR_SIZES)))
        super().__init__(layers.float(), colours, torch.stack([index % GEOMETRIES, index // GEOMETRIES], 1), LEVELS)


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
