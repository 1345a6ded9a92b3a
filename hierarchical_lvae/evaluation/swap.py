"""The swap score: does the code of an image encode a factor, or do its local weights?

Decode the code of image j with the local weights of image i, and let a classifier predict the value v of a factor from
the decoded image. Among pairs whose values differ, v_i ≠ v_j, let p be the share with v = v_j, the code's value, and w
the share with v = v_i, the weights' value. If a share ρ of the decoded images shows a random value, uniform over all V,
and of the rest a share a follows the code and 1 − a the weights, then

    p = (1 − ρ) a + ρ / V        w = (1 − ρ) (1 − a) + ρ / V

and each of the other V − 2 values has the share q = ρ / V. The score is therefore

    a = (p − q) / (p + w − 2 q)        q = (1 − p − w) / (V − 2), or 0 if V = 2

It is 1 if the code encodes the factor and 0 if the weights do. The denominator is 1 − ρ, the share that follows either;
if it is within two standard errors of 0, the score is undefined. Standard errors assume independent pairs (multinomial
counts) and are correct to first order. If V = 2, no third value shows ρ: the score is then p / (p + w), which is
(1 − ρ) a + ρ / 2, so random values pull it towards ½.

Figure 3 of the paper illustrates this: columns share codes, rows share weights. DCI, MIG and similar metrics do not
measure it: they measure what can be predicted from a code, not how the decoder uses it. A point estimate of the weights
incurs no KL, so the local step can encode a factor that the code encodes as well; the decoded image then follows the
weights, whatever the code.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Swap(NamedTuple):
    """Each field is an array (F,), with one entry per factor."""

    in_code: NDArray[np.float64]
    """a: 1 if the decoded images follow the code, 0 if they follow the weights; NaN if they follow neither."""
    error: NDArray[np.float64]
    """Standard error of `in_code`."""
    code: NDArray[np.float64]
    """p: among pairs whose values differ, the share that shows the value of the code's image."""
    weights: NDArray[np.float64]
    """w: the share that shows the value of the weights' image."""
    pairs: NDArray[np.int64]
    """Number of pairs whose values differ."""


def swap_score(shown: ArrayLike, of_code: ArrayLike, of_weights: ArrayLike, sizes: ArrayLike) -> Swap:
    """Score whether each factor follows the code or the weights, from a classifier's predictions for swapped images.

    Args:
        shown: the predictions, (n, F) whole numbers.
        of_code: the factors of the images whose codes were decoded, (n, F).
        of_weights: the factors of the images whose local weights decoded them, (n, F).
        sizes: V, the number of values of each factor: (F,).

    Raises:
        ValueError: the shapes do not match, or no pair differs in a factor.

    >>> swap_score(shown=[[0], [1], [2], [0]], of_code=[[0], [1], [2], [1]], of_weights=[[1], [2], [0], [0]], sizes=[3])
    Swap(in_code=array([0.75]), error=array([0.21650635]), code=array([0.75]), weights=array([0.25]), pairs=array([4]))
    """
    shown, of_code, of_weights = (np.asarray(values) for values in (shown, of_code, of_weights))
    sizes = np.asarray(sizes)
    if not (shown.ndim == 2 and shown.shape == of_code.shape == of_weights.shape and sizes.shape == shown.shape[1:]):
        raise ValueError("shown, of_code and of_weights must each be (n, F), and sizes (F,)")
    differ = of_code != of_weights
    pairs = differ.sum(0)
    if not pairs.all():
        raise ValueError(f"no pair differs in factor {int(np.argmin(pairs))}: give more pairs, or leave the factor out")
    p = (differ & (shown == of_code)).sum(0) / pairs
    w = (differ & (shown == of_weights)).sum(0) / pairs
    share = np.where(sizes > 2, 1 / np.maximum(sizes - 2, 1), 0)  # share of each other value in 1 − p − w
    slope = 1 + 2 * share
    follows = slope * (p + w) - 2 * share
    clear = follows > 2 * slope * _error(p, w, 1, 1, pairs)
    follows[~clear] = np.nan
    a = ((1 + share) * p + share * (w - 1)) / follows
    error = _error(p, w, (1 + share - a * slope) / follows, (share - a * slope) / follows, pairs)
    return Swap(a.clip(0, 1), error, p, w, pairs)


def _error(p: NDArray, w: NDArray, by_p: ArrayLike, by_w: ArrayLike, pairs: NDArray) -> NDArray:
    """The standard error of a function of two multinomial shares, from its derivatives with respect to them."""
    by_p, by_w = np.asarray(by_p), np.asarray(by_w)
    variance = by_p**2 * p + by_w**2 * w - (by_p * p + by_w * w) ** 2
    return np.sqrt(np.maximum(variance, 0) / pairs)
