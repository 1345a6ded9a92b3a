"""What the metrics demand of codes and factors."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Metric = TypeVar("Metric", bound=Callable[..., Any])
MOST_VALUES = 500
"""Of a factor: DCI fits 100 trees for each value, and the data sets of the field have 183 at most (Cars3D)."""


def compares_factors(metric: Metric) -> Metric:
    """Mark a metric that compares factors with each other, and has no meaning for a single one."""
    vars(metric)["compares_factors"] = True
    return metric


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
    with np.errstate(invalid="ignore"):  # NaN and infinity are refused below
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


def unsuitable(factors: ArrayLike, test: ArrayLike | None = None) -> dict[int, str]:
    """Say which factors cannot be scored, by their numbers, and why.

    A factor needs two values or more, at most `MOST_VALUES`, and at least two points a value on average: an identifier
    with a value of its own for each point is not a factor. Test points must meet the same conditions, except the
    limit on values, and share a value with the points fitted on.

    Args:
        factors: of the points that classifiers are fitted on, (n, F).
        test: of those that they are tested on, (m, F); none if None.

    >>> unsuitable([[0, 7, 0], [1, 7, 1], [0, 7, 2], [1, 7, 3]])
    {1: 'constant at the 4 points fitted on', 2: '4 values at 4 points'}
    """
    whole = np.asarray(factors)
    tested = whole if test is None else np.asarray(test)
    reasons = {}
    for k, (column, other) in enumerate(zip(whole.T, tested.T, strict=True)):
        values, others = np.unique(column), np.unique(other)
        if len(values) < 2:
            reasons[k] = f"constant at the {len(column):,} points fitted on"
        elif len(values) > min(MOST_VALUES, len(column) / 2):
            reasons[k] = f"{len(values):,} values at {len(column):,} points"
        elif len(others) < 2:
            reasons[k] = f"constant at the {len(other):,} points tested on"
        elif not np.isin(others, values).any():
            reasons[k] = "none of its values at the points tested on occurs at the points fitted on"
    return reasons
