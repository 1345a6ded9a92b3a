"""Checks of the codes and factors that metrics are given."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Metric = TypeVar("Metric", bound=Callable[..., Any])
MOST_VALUES = 500
"""Limit on the values of a factor: DCI fits 100 trees per value, and the usual data sets have at most 183 (Cars3D)."""


def compares_factors(metric: Metric) -> Metric:
    """Mark a metric that compares factors with each other and has no meaning for a single factor."""
    vars(metric)["compares_factors"] = True
    return metric


def check_codes(codes: ArrayLike) -> NDArray[np.float64]:
    """Return codes (n, D) as float64.

    Raises:
        ValueError: the shape is wrong, there are no points, or a number is not finite.
    """
    array = np.asarray(codes, np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"codes have shape {array.shape}: (n, D) is needed, D codes at each of n points")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).any(1).sum())
        raise ValueError(f"the codes of {bad:,} of {len(array):,} points are not finite: has the fit diverged?")
    return array


def check_factors(factors: ArrayLike, points: int, constant: bool = False) -> NDArray[np.int64]:
    """Return the factors (n, F) of n points as integers.

    Args:
        factors: the index of the value of each factor at each point.
        points: n.
        constant: whether a factor may have only one value.

    Raises:
        ValueError: the shape is wrong, a value is not a whole number, or a factor is constant.
    """
    array = np.asarray(factors)
    if array.ndim != 2 or len(array) != points or array.shape[1] == 0:
        raise ValueError(f"factors have shape {array.shape} for {points} points: ({points}, F) is needed")
    with np.errstate(invalid="ignore"):  # NaN and infinity are rejected below
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
    """Return the indices of the factors that cannot be scored, with the reasons.

    A factor needs at least two values, at most `MOST_VALUES`, and on average at least two training points per value: an
    identifier that differs at every point is not a factor. At the test points, it needs at least two values, one of
    which must occur at the training points.

    Args:
        factors: the factors of the points on which classifiers are trained, (n, F).
        test: the factors of the points on which they are tested, (m, F); the training points if None.

    >>> unsuitable([[0, 7, 0], [1, 7, 1], [0, 7, 2], [1, 7, 3]])
    {1: 'constant at the 4 training points', 2: '4 values at 4 points'}
    """
    whole = np.asarray(factors)
    tested = whole if test is None else np.asarray(test)
    reasons = {}
    for k, (column, other) in enumerate(zip(whole.T, tested.T, strict=True)):
        values, others = np.unique(column), np.unique(other)
        if len(values) < 2:
            reasons[k] = f"constant at the {len(column):,} training points"
        elif len(values) > min(MOST_VALUES, len(column) / 2):
            reasons[k] = f"{len(values):,} values at {len(column):,} points"
        elif len(others) < 2:
            reasons[k] = f"constant at the {len(other):,} test points"
        elif not np.isin(others, values).any():
            reasons[k] = "none of its values at the test points occurs at the training points"
    return reasons
