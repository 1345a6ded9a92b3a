"""Time the work around a step: images, rendering, the search for neighbours, and DCI."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.analysis.measure import timed
from hierarchical_lvae.data import load_dataset
from hierarchical_lvae.data.raycast import render_geometry
from hierarchical_lvae.evaluation import dci
from hierarchical_lvae.neighbourhoods.latent import nearest_codes

POINTS, CODES = 480_000, 10


def bench_parts(
    batch: int, num_neighbours: int, rounds: int, seed: int = 0, data_dir: Path | None = None
) -> dict[str, float]:
    """Time each part on the CPU: median seconds by part.

    Args:
        batch, num_neighbours: B and K.
        rounds: how often to time each part, after a warm-up.
        seed: for the images, codes and factors.
        data_dir: where to look for 3D Shapes, or for the layers of its replica.
    """
    generator = torch.Generator().manual_seed(seed)
    dataset = load_dataset("3dshapes", data_dir)
    index = torch.randint(len(dataset), (batch * num_neighbours,), generator=generator)
    codes = torch.randn(POINTS, CODES, generator=generator)
    rng = np.random.default_rng(seed)
    factors = rng.integers(4, size=(1_000, 2))
    points = factors @ rng.normal(size=(2, CODES)) + rng.normal(size=(1_000, CODES))
    parts: dict[str, Callable[[], object]] = {
        f"{len(index)} images of {dataset.source}": lambda: dataset.batch(index),
        "one of 480 geometries, rendered": lambda: render_geometry(3, 1, 7),
        f"{num_neighbours} nearest of {POINTS:,} codes, {batch} queries": (
            lambda: nearest_codes(codes[:batch], codes, num_neighbours + 1)
        ),
        "DCI of 1,000 points, two factors of 4 values": lambda: dci(points, factors, points, factors, n_jobs=1),
    }
    with progress.hidden():
        for part in parts.values():
            part()
        return {name: timed(part, rounds)[1] for name, part in parts.items()}
