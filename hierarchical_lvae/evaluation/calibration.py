"""Calibration of predicted pixel means and of their uncertainty."""

import numpy as np
from numpy.typing import ArrayLike


def calibration_error(predicted: ArrayLike, observed: ArrayLike, bins: int = 20) -> float:
    """The expected calibration error: mean |average observed − average predicted| over bins of equal counts.

    0 is perfect; the unit is that of the pixels, [0, 1]. (Naeini, Cooper, Hauskrecht, 2015, for classifiers.)

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
    order = np.argsort(predicted, axis=None, kind="stable")
    error = (observed - predicted).ravel()[order]
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
    """
    low, high = np.quantile(np.asarray(draws, float), [(1 - level) / 2, (1 + level) / 2], axis=0)
    truth = np.asarray(truth, float)
    return float(((low <= truth) & (truth <= high)).mean())
