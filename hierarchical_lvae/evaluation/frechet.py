"""Compare generated images with real ones, using torch-fidelity: a Fréchet distance, KID, precision and recall.

With Normals fitted to the features of the two sets, and the kernel k(a, b) = (aᵀb / d + 1)³ on d features,

    Fréchet distance²   ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)      FID with the features of Heusel et al. (2017)
    KID                 MMD² of k, unbiased, on subsets               Bińkowski et al. (2018)
    precision, recall   the share of generated (real) images within the 3-nearest-neighbour balls of the real
                        (generated) ones                              Kynkäänniemi et al. (2019)

All of them depend on the *features*. The distance is called FID only with the reference weights of Inception; with any
other features, it has another name.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hierarchical_lvae.types import single_precision

REFERENCE_SHA256 = "6726825d"
"""First digits of the hash of torch-fidelity's `weights-inception-2015-12-05`, also found in the file's name."""
INCEPTION = "inception-v3-compat"
BATCH = 50
KID_SUBSET = 1_000
FEWEST = 5
"""Minimum number of images of each kind: precision and recall use three neighbours."""

Draw = Callable[[int], Tensor]
"""Returns n new images at each call: (n, C, H, W), with C of 1 or 3 and pixels in [0, 1]."""


class Features(NamedTuple):
    """The features that represent an image."""

    name: str
    """Name of the Fréchet distance in these features: "FID", or "FD-…"."""
    extractor: str
    """Name of the extractor in torch-fidelity's registry."""
    weights: Path
    layer: str

    @property
    def digest(self) -> str:
        """First digits of the hash of the weights."""
        return _sha256(self.weights)[:8]


class Fidelity(NamedTuple):
    """Scores of two sets of images; what they mean depends on the features."""

    name: str
    distance: float
    """The Fréchet distance, squared as is usual; 0 is best."""
    kid: float
    """0 is best; the estimate is unbiased, so it can be negative."""
    kid_std: float
    """Standard deviation over subsets."""
    precision: float
    recall: float
    generated: int
    """Number of generated images."""
    real: int
    """Number of real images."""


@single_precision()
def fidelity(
    generated: Draw,
    real: Draw,
    num_generated: int,
    num_real: int,
    features: Features,
    seed: int = 0,
    cuda: bool = False,
) -> Fidelity:
    """Compare generated images with real ones; both are drawn in batches, and only their features are kept.

    Args:
        generated, real: the images, grey or RGB, which are rounded to 256 levels.
        num_generated, num_real: number of images of each kind; usually 50,000.
        features: from `inception` or `factor_features`.
        seed: random seed of KID's subsets.
        cuda: compute features on the GPU.

    Raises:
        ValueError: there are fewer than 5 images, a pixel is not finite, or the weights do not fit the extractor.
    """
    if min(num_generated, num_real) < FEWEST:
        raise ValueError(f"{num_generated} generated and {num_real} real images: at least {FEWEST} of each are needed")
    from torch_fidelity import calculate_metrics

    inputs: dict[str, Any] = {}
    for i, (draw, number) in enumerate(((generated, num_generated), (real, num_real)), start=1):
        inputs |= {f"input{i}": _stream()(draw), f"input{i}_model_num_samples": number}
    try:
        found = calculate_metrics(
            **inputs,
            fid=True,
            kid=True,
            prc=True,
            feature_extractor=features.extractor,
            feature_extractor_weights_path=str(features.weights),
            **{f"feature_layer_{metric}": features.layer for metric in ("fid", "kid", "prc")},
            # at most half of the images: subsets of all of them would be identical, with no spread
            kid_subset_size=min(KID_SUBSET, max(2, min(num_generated, num_real) // 2)),
            batch_size=BATCH,
            rng_seed=seed,
            cuda=cuda,
            cache=False,
            save_cpu_ram=True,
            verbose=False,
        )
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise ValueError(f"{features.weights} does not contain the weights of {features.extractor}") from error
    return Fidelity(
        features.name,
        max(0.0, found["frechet_inception_distance"]),
        found["kernel_inception_distance_mean"],
        found["kernel_inception_distance_std"],
        found["precision"],
        found["recall"],
        num_generated,
        num_real,
    )


def inception_file() -> Path:
    """Where torch hub keeps the weights of Inception, whether or not the file exists."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return Path(torch.hub.get_dir(), "checkpoints", URL_INCEPTION_V3.rpartition("/")[2])


def inception(weights: str | Path | None = None, layer: str = "2048") -> Features:
    """The features of FID: Inception-v3 as implemented in torch-fidelity.

    Args:
        weights: the file of the weights; if None, the file in torch hub's cache, downloaded if necessary.
        layer: "64", "192", "768" or "2048"; FID uses "2048".

    Raises:
        ValueError: the file is not a table of tensors (nothing else in it is loaded).
        OSError: the file does not exist, or cannot be downloaded.
    """
    if weights is None:
        from torch_fidelity.utils import create_feature_extractor

        weights = inception_file()
        if not weights.is_file():
            try:
                create_feature_extractor(INCEPTION, [layer], cuda=False, verbose=False)
            except OSError as error:
                raise OSError(
                    f"Inception's weights are not at {weights} and cannot be downloaded ({error}): "
                    "give their file with `inception_weights`"
                ) from error
    weights = Path(weights)
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} is not a file: give a file of Inception's weights")
    try:
        torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity itself would unpickle everything
    except Exception as error:  # an untrusted file can raise anything
        raise ValueError(f"{weights} is not a table of weights ({type(error).__name__}): download it again") from error
    sha256 = _sha256(weights)
    reference = sha256.startswith(REFERENCE_SHA256) and layer == "2048"
    return Features("FID" if reference else f"FD-inception-{layer}-{sha256[:8]}", INCEPTION, weights, layer)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _stream() -> Any:
    """Pass images to torch-fidelity as a generative model whose noise is ignored."""
    from torch_fidelity import GenerativeModelBase

    class Stream(GenerativeModelBase):
        z_size, z_type, num_classes = 1, "normal", 0

        def __init__(self, draw: Draw) -> None:
            super().__init__()
            self.draw = draw

        def forward(self, noise: Tensor) -> Tensor:
            images = self.draw(len(noise))
            if not images.isfinite().all():
                raise ValueError("images have pixels that are not finite: has the fit diverged?")
            return images.mul(255).round().clamp(0, 255).byte().expand(-1, 3, -1, -1).contiguous()

    return Stream
