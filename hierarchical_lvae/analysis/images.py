"""Scores of the images: how far generated images are from the data, and how close to their references.

A generated image is the mean of p(x | z, θ_N) at z ~ p(z), with the local weights of a random reference: one image per
reference. A model that adapts on (noisy copies of) the reference can easily copy it; `closeness` measures how much it
does.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.analysis.classifier import classifier_file
from hierarchical_lvae.analysis.settings import ScoreSettings
from hierarchical_lvae.evaluation import Features, factor_features, fidelity, inception
from hierarchical_lvae.evaluation.frechet import FEWEST
from hierarchical_lvae.files import read_tensors
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import seeded

SAMPLES = 4
CHUNK = 1_000

log = logging.getLogger(__name__)


def choose_features(run: Run, settings: ScoreSettings) -> Features | None:
    """Choose the features of the distance: Inception's if its weights are available, else those of the data's factors.

    The classifier of the factors is trained if it does not exist yet. Returns None if there are no factors either.

    Raises:
        ValueError: a setting is out of range, or a file does not have the expected content.
        OSError: Inception was requested, but its weights are not available.
    """
    settings.check()
    if settings.features != "factors":
        try:
            return inception(settings.inception_weights)
        except OSError as error:
            if settings.features == "inception" or settings.inception_weights is not None:
                raise
            log.warning(
                "%s; until then, the distance is computed on features of the data's own factors and is not an FID",
                error,
            )
    file = classifier_file(run)
    return None if file is None else factor_features(file)


def distance(run: Run, features: Features | None, seed: int, images: int) -> dict[str, Any]:
    """The Fréchet distance of generated images to the data, with KID, precision and recall, in the given features."""
    if features is None:
        return {"not_available": "no Inception weights, and the data as a whole have no factors that can be scored"}
    number = min(images, len(run.dataset))
    if number < FEWEST:
        return {"not_available": f"there are only {number} images, and at least {FEWEST} are needed"}
    about = {}
    with seeded(seed):
        if features.name == "FD-factors":
            about["accuracy_of_factors"] = read_tensors(features.weights)["accuracy"].item()
        queue = torch.randperm(len(run.dataset))[:number].to(run.options.device)
        real = _Bar(lambda n, start: run.dataset.batch(queue[start : start + n]), "real images", number)
        generated = _Bar(lambda n, _: _samples(run, n, 1)[2].squeeze(1), "generated images", images)
        cuda = run.options.device.startswith("cuda")
        result = fidelity(generated, real, images, number, features, seed, cuda)
    return {**result._asdict(), **about}


def closeness(run: Run, seed: int, neighbourhoods: int) -> dict[str, Any]:
    """Root-mean-square distances per pixel of samples to their reference and to the nearest of *all* training images.

    Also how far references are from the nearest other image, and how often a sample's nearest image is its reference.
    """
    if len(run.dataset) < 2:
        return {"not_available": "there is only one image, so no other can be the nearest"}
    with seeded(seed):
        index, x, samples = _samples(run, neighbourhoods, SAMPLES)
        number = len(x)
        queries = torch.cat([samples.flatten(0, 1), x]).flatten(1)
        mean = x.flatten(1).mean(0)  # subtracted because of the rounding of |x|² − 2 x·y + |y|² on bright images
        best = torch.full((len(queries),), torch.inf, device=queries.device)
        which = torch.zeros_like(best, dtype=torch.long)
        for part in progress.bar(torch.arange(len(run.dataset)).split(CHUNK), "nearest images", unit="k"):
            part = part.to(queries.device)
            images = run.dataset.batch(part).flatten(1)
            squares = torch.cdist(queries - mean, images - mean, compute_mode="use_mm_for_euclid_dist")
            squares[-number:][index[:, None] == part] = torch.inf  # for a reference, the nearest *other* image
            found = squares.min(1)
            which = torch.where(found.values < best, part[found.indices], which)
            best = best.minimum(found.values)
        to_nearest = (queries - run.dataset.batch(which).flatten(1)).square().mean(1).sqrt()  # exact, unlike cdist
        to_reference = (samples - x.unsqueeze(1)).flatten(2).square().mean(2).sqrt()
        return {
            "to_reference": to_reference.mean().item(),
            "to_nearest": to_nearest[:-number].mean().item(),
            "nearest_is_reference": (which[:-number].view(number, -1) == index[:, None]).float().mean().item(),
            "reference_to_nearest_other": to_nearest[-number:].mean().item(),
        }


def _samples(run: Run, references: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random references, and samples with the local weights of each: index (R,), (R, C, H, W), (R, S, C, H, W)."""
    index = torch.randint(len(run.dataset), (references,)).to(run.options.device)
    x = run.dataset.batch(index)
    return index, x, run.sample(x, run.neighbourhood(index, x), number)


class _Bar:
    """Draws images, continuing where the last draw ended, and shows the progress."""

    def __init__(self, draw: Callable[[int, int], Tensor], label: str, total: int) -> None:
        self.draw, self.label, self.total = draw, label, total
        self.done = 0

    def __call__(self, number: int) -> Tensor:
        if self.done == 0:
            self.bar = progress.bar(desc=self.label, total=self.total, unit="image")
        images = self.draw(number, self.done)
        self.done += number
        self.bar.update(number)
        if self.done >= self.total:
            self.bar.close()
        return images
