"""The swap score: is a factor carried by the code of an image, or by its local weights?

Decode the code of image j under the local weights of image i, and let a classifier say which value v of a factor the
picture shows. Of the pairs whose values differ, v_i ≠ v_j, let p be the share of pictures with v = v_j, the code's, and
w that with v = v_i, the weights'. If a share ρ of the pictures shows a value at random, uniform over all V, and of the
others a share a follows the code and 1 − a the weights, then

    p = (1 − ρ) a + ρ / V        w = (1 − ρ) (1 − a) + ρ / V

and the other V − 2 values have q = ρ / V each. So a, the score, is

    a = (p − q) / (p + w − 2 q)        q = (1 − p − w) / (V − 2), or 0 if V = 2

1 if the factor is in the code, 0 if it is in the weights. The denominator is 1 − ρ, the share that follows either:
where it is within two standard errors of 0, the score is not defined. Standard errors are those of independent pairs
(multinomial counts), to first order.

Figure 3 of the paper shows this as a picture: columns share codes, rows share weights. DCI, MIG and the like cannot see
it: they measure what can be predicted from a code, not what the decoder makes of it. A point estimate of the weights
pays no KL, so the local step can carry a factor that the code holds as well; the picture then follows the weights,
whatever the code says.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Swap(NamedTuple):
    """Each field is an array (F,), an entry a factor."""

    in_code: NDArray[np.float64]
    """a: 1 if the pictures follow the code, 0 if they follow the weights; NaN where they follow neither."""
    error: NDArray[np.float64]
    """Its standard error."""
    code: NDArray[np.float64]
    """p: of the pairs whose values differ, the share that shows the value of the code's image."""
    weights: NDArray[np.float64]
    """w: the share that shows the value of the weights' image."""
    pairs: NDArray[np.int64]
    """How many pairs differ."""


def swap_score(shown: ArrayLike, of_code: ArrayLike, of_weights: ArrayLike, sizes: ArrayLike) -> Swap:
    """Whether each factor follows the code or the weights, from what a classifier sees in swapped images.

    Args:
        shown: what it sees, (n, F) whole numbers.
        of_code: the factors of the images whose codes were decoded, (n, F).
        of_weights: the factors of the images whose local weights decoded them, (n, F).
        sizes: V, how many values each factor has: (F,).

    Raises:
        ValueError: shapes that do not match, or a factor in which no pair differs.

    >>> swap_score(shown=[[0], [1], [2], [0]], of_code=[[0], [1], [2], [1]], of_weights=[[1], [2], [0], [0]], sizes=[3])
    Swap(in_code=array([0.75]), error=array([0.21650635]), code=array([0.75]), weights=array([0.25]), pairs=array([4]))
    """
    shown, of_code, of_weights = (np.asarray(values) for values in (shown, of_code, of_weights))
    sizes = np.asarray(sizes)
    if not (shown.ndim == 2 and shown.shape == of_code.shape == of_weights.shape and sizes.shape == shown.shape[1:]):
        raise ValueError("shown, of_code and of_weights are to be (n, F) each, and sizes (F,)")
    differ = of_code != of_weights
    pairs = differ.sum(0)
    if not pairs.all():
        raise ValueError(f"no pair differs in factor {int(np.argmin(pairs))}: give more pairs, or leave it out")
    p = (differ & (shown == of_code)).sum(0) / pairs
    w = (differ & (shown == of_weights)).sum(0) / pairs
    share = np.where(sizes > 2, 1 / np.maximum(sizes - 2, 1), 0)  # of each other value in 1 − p − w
    slope = 1 + 2 * share
    follows = slope * (p + w) - 2 * share
    clear = follows > 2 * slope * _error(p, w, 1, 1, pairs)
    follows[~clear] = np.nan
    a = ((1 + share) * p + share * (w - 1)) / follows
    error = _error(p, w, (1 + share - a * slope) / follows, (share - a * slope) / follows, pairs)
    return Swap(a.clip(0, 1), error, p, w, pairs)


def _error(p: NDArray, w: NDArray, by_p: ArrayLike, by_w: ArrayLike, pairs: NDArray) -> NDArray:
    """The standard error of a function of two shares of multinomial counts, from its derivatives by them."""
    by_p, by_w = np.asarray(by_p), np.asarray(by_w)
    variance = by_p**2 * p + by_w**2 * w - (by_p * p + by_w * w) ** 2
    return np.sqrt(np.maximum(variance, 0) / pairs)
