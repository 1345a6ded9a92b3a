"""The classifier of a data set's factors: trained once on its images, and shared by all runs on them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hierarchical_lvae.data import default_data_dir
from hierarchical_lvae.evaluation import FactorClassifier, train_factor_classifier
from hierarchical_lvae.evaluation.arrays import unsuitable
from hierarchical_lvae.evaluation.factor_classifier import load_classifier
from hierarchical_lvae.files import read_tensors, scratch, write_tensors
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import random_state_kept

_UNCACHED: dict[str, Path] = {}
"""Temporary files of the classifiers that this process could not cache, by file name."""

log = logging.getLogger(__name__)


def classified_factors(run: Run) -> list[int]:
    """The indices of the factors that can be predicted."""
    reasons = unsuitable(run.dataset.factors)
    return [k for k in range(len(run.dataset.factor_names)) if k not in reasons]


def factor_classifier(run: Run) -> FactorClassifier:
    """The classifier of the run's `classified_factors`, on its device.

    Raises:
        ValueError: no factor can be predicted.
    """
    file = classifier_file(run)
    if file is None:
        raise ValueError("the data as a whole have no factors that can be scored")
    return load_classifier(read_tensors(file)).to(run.options.device)


def classifier_file(run: Run) -> Path | None:
    """The file with its weights, which are trained if there is none; None if no factor can be predicted.

    The file is in the data directory or, if that cannot be written, in a temporary directory of this process.
    """
    factors = classified_factors(run)
    if not factors:
        return None
    size = "x".join(map(str, run.dataset.image_shape[1:]))
    name = f"hlvae-factor-features-{run.dataset.fingerprint}-{size}.safetensors"
    path = _UNCACHED.get(name) or Path(run.options.data_dir or default_data_dir()) / name
    if not _holds_a_classifier(path):
        tensors = _train_classifier(run, factors)
        try:
            write_tensors(path, tensors)
        except OSError as error:
            log.warning("cannot cache the classifier of the factors: %s", error)
            path = _UNCACHED[name] = scratch() / name
            write_tensors(path, tensors)
    return path


def _holds_a_classifier(path: Path) -> bool:
    """Whether the cached file can be used; a damaged one is replaced."""
    try:
        return path.is_file() and bool(load_classifier(read_tensors(path)).scale > 0)
    except Exception as error:  # whatever is wrong with the file, the classifier can be trained again
        log.warning("ignoring the unreadable cache %s: %s", path, error)
        return False


def _train_classifier(run: Run, which: Sequence[int]) -> dict[str, Tensor]:
    """Train the classifier of some of the data's factors with a fixed seed: all runs on these data share it."""
    factors = torch.from_numpy(run.dataset.factors).long()[:, which]

    def batches(number: int) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(run.dataset), (number,))
        device = run.options.device
        return run.dataset.batch(index.to(device)), factors[index].to(device)

    shape, sizes = run.dataset.image_shape, [run.dataset.factor_sizes[k] for k in which]
    with random_state_kept():
        torch.manual_seed(0)
        return train_factor_classifier(batches, shape, sizes).state_dict()
