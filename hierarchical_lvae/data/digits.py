"""Real scans of handwritten digits, shipped with scikit-learn: 1,797 grey images of 8 × 8 pixels, with one factor."""

from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae.data.factor_images import FactorImages

NEIGHBOURHOOD = "latent-knn"


def load(data_dir: Path) -> FactorImages:
    """Load the digits, with their 17 grey levels scaled to 0 … 255; `data_dir` is not used."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return FactorImages(
        images=torch.from_numpy(levels).unsqueeze(1),
        factors=digits.target.reshape(-1, 1),
        factor_names=("digit",),
        factor_sizes=(10,),
        source="handwritten digits from scikit-learn (real scans)",
    )
