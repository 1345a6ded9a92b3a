"""Importance-weighted bounds on the log likelihood, and the number of active codes.

    IWAE_k = E log (1/k) Σ_j w_j,    w_j = p(x, z_j) / q(z_j | x),    ELBO = IWAE_1 ≤ IWAE_2 ≤ … → log p(x)

(Burda, Grosse, Salakhutdinov, 2016.)
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierarchical_lvae.evaluation.arrays import check_codes

ACTIVE = 0.01


def iwae(log_weights: ArrayLike, k: int) -> NDArray[np.float64]:
    """The bound with k draws, averaged over all complete groups of k draws: (...), in nats.

    Args:
        log_weights: log w of S draws, (S, ...).
        k: draws per group, at most S.

    >>> log_weights = np.log([[1.0], [3.0]])
    >>> iwae(log_weights, 2).round(6), np.log(2).round(6)
    (array([0.693147]), np.float64(0.693147))

    Raises:
        ValueError: there are fewer than k draws.
    """
    weights = np.asarray(log_weights, float)
    if not 1 <= k <= len(weights):
        raise ValueError(f"k is {k} and there are {len(weights)} draws: k must be from 1 to {len(weights)}")
    groups = weights[: len(weights) // k * k].reshape(-1, k, *weights.shape[1:])
    largest = groups.max(1, keepdims=True)
    return (np.log(np.exp(groups - largest).mean(1)) + largest[:, 0]).mean(0)


def bits_per_dimension(nats: float, dimensions: int) -> float:
    """Convert a log likelihood in nats per image to a negative one in bits per pixel and channel.

    >>> round(bits_per_dimension(-np.log(2) * 64, 64), 6)
    1.0
    """
    return float(-nats / (dimensions * np.log(2)))


def active_units(means: ArrayLike, threshold: float = ACTIVE) -> int:
    """Number of codes whose posterior means have a variance over the data above a threshold.

    Args:
        means: posterior means of the codes, (n, D).
        threshold: for the variance; 0.01 in Burda, Grosse, Salakhutdinov (2016).

    Raises:
        ValueError: the shape is wrong, or a number is not finite.
    """
    return int((check_codes(means).var(0) > threshold).sum())
