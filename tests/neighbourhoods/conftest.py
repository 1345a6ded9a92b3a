"""A small data set, and what neighbourhoods are made from."""

import numpy as np
import pytest
import torch
from pyro.distributions import Bernoulli

from hierarchical_lvae.data import FactorImages
from hierarchical_lvae.neighbourhoods import Surroundings


@pytest.fixture
def data():
    """60 random images of two factors, 3 × 5, four of each cell."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (60, 3, 8, 8), generator=generator, dtype=torch.uint8)
    grid = np.indices((3, 5, 4), np.int16).reshape(3, -1).T[:, :2]
    return FactorImages(images, grid, ("wall_hue", "scale"), (3, 5), "random images")


@pytest.fixture
def surroundings(data, tmp_path):
    """For K neighbours; the code of an image is the mean of each of its rows."""

    def make(num_neighbours=3, **changes):
        given = {
            "data": data,
            "around": Bernoulli,
            "encode": lambda x: x.mean((1, 3)),
            "cache": tmp_path / "cache",
        }
        return Surroundings(num_neighbours, **{**given, **changes})

    return make
