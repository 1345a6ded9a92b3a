"""How far generated images are from real ones, by torch-fidelity: a Fréchet distance, KID, precision and recall.

With Normals fitted to the features of the two sets, and kernel k(a, b) = (aᵀb / d + 1)³ on d features,

    Fréchet distance²   ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)      FID with the features of Heusel et al. (2017)
    KID                 MMD² of k, unbiased, on subsets               Bińkowski et al. (2018)
    precision, recall   the share of generated (real) images within the 3-nearest-neighbour balls of the real
                        (generated) ones                              Kynkäänniemi et al. (2019)

All are statements about *features*. The distance is called FID only with the reference weights of Inception; any other
features give it their own name.
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
"""How the hash of torch-fidelity's `weights-inception-2015-12-05` begins; the file's name says so too."""
INCEPTION = "inception-v3-compat"
BATCH = 50
KID_SUBSET = 1_000
FEWEST = 5
"""Images of each kind: precision and recall look at three neighbours."""

Draw = Callable[[int], Tensor]
"""Gives that many images, other ones at each call: (n, C, H, W), C of 1 or 3, pixels in [0, 1]."""


class Features(NamedTuple):
    """What an image is seen as."""

    name: str
    """Of the Fréchet distance in these features: "FID", or "FD-…"."""
    extractor: str
    """As torch-fidelity's registry has it."""
    weights: Path
    layer: str

    @property
    def digest(self) -> str:
        """How the hash of the weights begins."""
        return _sha256(self.weights)[:8]


class Fidelity(NamedTuple):
    """Of two sets of images; the features say what the numbers mean."""

    name: str
    distance: float
    """The Fréchet distance, squared as is usual; 0 is best."""
    kid: float
    """0 is best; unbiased, so it can be below."""
    kid_std: float
    """Over subsets."""
    precision: float
    recall: float
    generated: int
    """How many images."""
    real: int


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
    """Compare generated images with real ones, both drawn batch by batch, and never held but as features.

    Args:
        generated, real: the images, grey or RGB; in float they are rounded to 256 levels.
        num_generated, num_real: how many of each; 50,000 in the field's protocol.
        features: of `inception`, or of `factor_features`.
        seed: of KID's subsets.
        cuda: compute features on the GPU.

    Raises:
        ValueError: fewer than 5 images, pixels that are not finite, or weights that are not the extractor's.
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
            kid_subset_size=min(KID_SUBSET, max(2, min(num_generated, num_real) // 2)),  # all alike have no spread
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
        raise ValueError(f"{features.weights} does not hold the weights of {features.extractor}") from error
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


def inception(weights: str | Path | None = None, layer: str = "2048") -> Features:
    """The features of the FID: Inception-v3 as torch-fidelity has it.

    Args:
        weights: a file of them; where torch hub keeps or puts them if None: downloaded by torch-fidelity if need be.
        layer: "64", "192", "768" or "2048", the FID's.

    Raises:
        ValueError: the file is no table of tensors (nothing else in it is loaded).
        OSError: there is no such file, or none can be downloaded.
    """
    if weights is None:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
        from torch_fidelity.utils import create_feature_extractor

        weights = Path(torch.hub.get_dir(), "checkpoints", URL_INCEPTION_V3.rpartition("/")[2])
        if not weights.is_file():
            try:
                create_feature_extractor(INCEPTION, [layer], cuda=False, verbose=False)
            except OSError as error:
                raise OSError(
                    f"Inception's weights are not at {weights} and cannot be downloaded ({error}): "
                    "give their file (`inception_weights`)"
                ) from error
    weights = Path(weights)
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} is no file: give one of Inception's weights")
    try:
        torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity itself would unpickle
    except Exception as error:  # whatever a stranger's file raises
        raise ValueError(f"{weights} is no table of weights ({type(error).__name__}): download it anew") from error
    sha256 = _sha256(weights)
    reference = sha256.startswith(REFERENCE_SHA256) and layer == "2048"
    return Features("FID" if reference else f"FD-inception-{layer}-{sha256[:8]}", INCEPTION, weights, layer)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _stream() -> Any:
    """Images as torch-fidelity takes them from a generative model, whose noise is not looked at."""
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
