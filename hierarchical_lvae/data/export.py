"""Export the replica in the layout of the official `3dshapes.h5`, for other programs."""

from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.data.factor_images import FactorImages
from hierarchical_lvae.files import atomic

LABEL_STARTS = (0.0, 0.0, 0.0, 0.75, 0.0, -30.0)
LABEL_STOPS = (0.9, 0.9, 0.9, 1.25, 3.0, 30.0)


def write_h5(dataset: FactorImages, path: Path, rows: int = 4800) -> None:
    """Write images, (n, 64, 64, 3) uint8, gzipped, and labels, (n, 6) float64, atomically.

    An attribute `source` marks the file as a replica.

    Raises:
        FileExistsError: `path` already exists.
        OSError: the file cannot be written.
    """
    import h5py

    if path.exists():
        raise FileExistsError(f"{path} already exists: choose another file")
    n = len(dataset)
    sizes = np.array(dataset.factor_sizes)
    steps = (np.array(LABEL_STOPS) - LABEL_STARTS) / np.maximum(sizes - 1, 1)
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["source"] = dataset.source
        file["labels"] = dataset.factors * steps + LABEL_STARTS
        images = file.create_dataset(
            "images", (n, 64, 64, 3), np.uint8, chunks=(min(n, 64), 64, 64, 3), compression="gzip"
        )
        for start in progress.bar(range(0, n, rows), f"writing {path.name}"):
            batch = dataset.images[torch.arange(start, min(start + rows, n))]
            images[start : start + len(batch)] = batch.permute(0, 2, 3, 1).cpu().numpy()
