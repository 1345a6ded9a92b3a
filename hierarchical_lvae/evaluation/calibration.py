"""Calibration of predicted pixel means and of their uncertainty."""

import numpy as np
from numpy.typing import ArrayLike


def calibration_error(predicted: ArrayLike, observed: ArrayLike, bins: int = 20) -> float:
    """The expected calibration error: mean |average observed − average predicted| over bins of equal counts.

    0 is perfect; the unit is that of the pixels, [0, 1]. (Naeini, Cooper, Hauskrecht, 2015, for classifiers.) Equal
    predictions share their mean error, so that their order does not matter where a bin ends between them.

    Args:
        predicted: predicted pixel means, of any shape.
        observed: pixels, of the same shape.
        bins: number of groups of pixels with similar predictions.

    >>> round(calibration_error([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1], bins=2), 6)
    0.1

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    predicted, observed = np.asarray(predicted, float), np.asarray(observed, float)
    if predicted.shape != observed.shape:
        raise ValueError(f"predictions have shape {predicted.shape} and pixels {observed.shape}: these must be equal")
    if not (np.isfinite(predicted).all() and np.isfinite(observed).all()):
        raise ValueError("a prediction or a pixel is not finite")
    level, counts = np.unique(predicted.ravel(), return_inverse=True, return_counts=True)[1:]
    error = np.repeat(np.bincount(level, (observed - predicted).ravel()) / counts, counts)
    groups = np.array_split(error, min(bins, error.size))
    return float(sum(abs(group.sum()) for group in groups) / error.size)


def coverage(draws: ArrayLike, truth: ArrayLike, level: float = 0.9) -> float:
    """The share of true values inside the central credible interval: `level` if the uncertainty is calibrated.

    Args:
        draws: S posterior draws of each number, (S, ...).
        truth: the true numbers, (...).
        level: probability of the interval.

    >>> coverage(np.linspace(0, 1, 101)[:, None] * [1, 1], [0.5, 0.99])
    0.5

    Raises:
        ValueError: a value is not finite.
    """
    draws, truth = np.asarray(draws, float), np.asarray(truth, float)
    if not (np.isfinite(draws).all() and np.isfinite(truth).all()):
        raise ValueError("a draw or a true value is not finite")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return float(((low <= truth) & (truth <= high)).mean())
