"""What the metrics demand of codes and factors."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def check_codes(codes: ArrayLike) -> NDArray[np.float64]:
    """Codes (n, D) as float64.

    Raises:
        ValueError: another shape, no points, or a number that is not finite.
    """
    array = np.asarray(codes, np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"codes are {array.shape}: (n, D) is needed, n points of D numbers")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).any(1).sum())
        raise ValueError(f"the codes of {bad:,} of {len(array):,} points are not finite: has the fit diverged?")
    return array


def check_factors(factors: ArrayLike, points: int, constant: bool = False) -> NDArray[np.int64]:
    """Factors (n, F) as whole numbers, for n points.

    Args:
        factors: their values.
        points: n.
        constant: whether a factor may have one value only.

    Raises:
        ValueError: another shape, values that are no whole numbers, or a constant factor.
    """
    array = np.asarray(factors)
    if array.ndim != 2 or len(array) != points or array.shape[1] == 0:
        raise ValueError(f"factors are {array.shape} and there are {points} points: ({points}, F) is needed")
    whole = array.astype(np.int64)
    if not np.array_equal(whole, array):
        raise ValueError("factors are not whole numbers: give their indices, not their values")
    if not constant:
        for k, column in enumerate(whole.T):
            if (column == column[0]).all():
                raise ValueError(
                    f"factor {k} has the same value at all {points} points: leave it out, or draw more points"
                )
    return whole
