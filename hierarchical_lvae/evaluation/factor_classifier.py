"""Image features for use without Inception's weights: those of a small classifier of the data set's own factors.

It is trained once on labelled images and recognises what the labels name: colours, shapes, poses. A Fréchet distance in
its features ("FD-factors") is comparable between models of one data set that use the same weights, but not with FID.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarchical_lvae import progress
from hierarchical_lvae.evaluation.frechet import Features
from hierarchical_lvae.types import random_state_kept, single_precision

EXTRACTOR, LAYER, WIDTH = "factor-classifier", "features", 64
STEPS, BATCH, LR = 1_000, 64, 1e-3
ALIKE = 1e-5
"""Spread of the features, relative to the largest one, below which all images count as identical."""

Batches = Callable[[int], tuple[Tensor, Tensor]]
"""Returns n random images (n, C, H, W), pixels in [0, 1], and their factors (n, F), whole numbers."""


class FactorClassifier(nn.Module):
    """Convolutions of stride 2 down to about 4 pixels per side, 64 features, and a linear head for each factor.

    >>> classifier = FactorClassifier((3, 32, 32), [10, 4])
    >>> x = torch.rand(5, 3, 32, 32)
    >>> classifier.features(x).shape, [head.shape for head in classifier(x)]
    (torch.Size([5, 64]), [torch.Size([5, 10]), torch.Size([5, 4])])
    """

    image_shape: Tensor
    scale: Tensor
    accuracy: Tensor

    def __init__(self, image_shape: Sequence[int], factor_sizes: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        outputs = 32
        while min(height, width) >= 8:
            layers += [nn.Conv2d(channels, outputs, 4, 2, 1), nn.ReLU()]
            channels, outputs, height, width = outputs, min(2 * outputs, 128), height // 2, width // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, WIDTH), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(WIDTH, size) for size in factor_sizes])
        self.register_buffer("image_shape", torch.tensor(image_shape))
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("accuracy", torch.tensor(torch.nan))

    def features(self, x: Tensor) -> Tensor:
        """Features (n, 64), scaled by their spread, of images (n, C, H, W) with pixels in [0, 1]."""
        return self.body(x - 0.5) / self.scale

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits of each factor, (n, size), for images (n, C, H, W) with pixels in [0, 1]."""
        features = self.body(x - 0.5)
        return [head(features) for head in self.heads]


@single_precision()
def train_factor_classifier(
    batches: Batches,
    image_shape: Sequence[int],
    factor_sizes: Sequence[int],
    steps: int | None = None,
) -> FactorClassifier:
    """Train the classifier with Adam on random batches of 64 images, with the global random state.

    Then 1,000 further images give its `accuracy`, averaged over the factors, and the `scale` of its features at which
    their variances are 1 on average: a distance can be compared with the number of features, 64. If the features do not
    vary, because all images are identical, they are not scaled.
    """
    x, _ = batches(1)
    classifier = FactorClassifier(image_shape, factor_sizes).to(x.device)
    optimizer = torch.optim.Adam(classifier.parameters(), LR)
    with torch.enable_grad():
        for _ in progress.bar(range(steps or STEPS), "factor classifier", unit="step"):
            x, factors = batches(BATCH)
            loss = torch.stack([F.cross_entropy(f, k) for f, k in zip(classifier(x), factors.T, strict=True)]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        x, factors = batches(1_000)
        right = torch.stack([f.argmax(1) == k for f, k in zip(classifier(x), factors.T, strict=True)])
        classifier.accuracy.fill_(right.float().mean())
        features = classifier.features(x)
        scale = features.var(0).mean().sqrt()
        if scale > ALIKE * features.abs().max():  # otherwise it is rounding error
            classifier.scale.copy_(scale)
    return classifier.requires_grad_(False)


def factor_features(weights: str | Path) -> Features:
    """The features of a classifier whose `state_dict` is saved in a safetensors file."""
    _register()
    return Features("FD-factors", EXTRACTOR, Path(weights), LAYER)


@cache
def _register() -> None:
    """Register the classifier with torch-fidelity."""
    from safetensors.torch import load_file
    from torch_fidelity import FeatureExtractorBase, register_feature_extractor

    class FactorFeatures(FeatureExtractorBase):
        def __init__(self, name: str, features: list[str], feature_extractor_weights_path: str, **_: Any) -> None:
            super().__init__(name, features)
            self.classifier = load_classifier(load_file(feature_extractor_weights_path))

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return (LAYER,)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return LAYER

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> None:
            return None

        def forward(self, images: Tensor) -> tuple[Tensor]:
            channels = int(self.classifier.image_shape[0])  # grey images arrive as three equal channels
            return (self.classifier.features(images[:, :channels].float() / 255),)

    register_feature_extractor(EXTRACTOR, FactorFeatures)


def load_classifier(tensors: dict[str, Tensor]) -> FactorClassifier:
    """Rebuild a classifier from its `state_dict`."""
    # counted, because the order of tensors in a file is not fixed
    number = sum(name.startswith("heads.") and name.endswith(".bias") for name in tensors)
    sizes = [len(tensors[f"heads.{i}.bias"]) for i in range(number)]
    with random_state_kept():  # the initial weights are replaced below
        classifier = FactorClassifier(tensors["image_shape"].tolist(), sizes)
    classifier.load_state_dict(tensors)
    return classifier
