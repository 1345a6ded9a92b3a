"""Disentanglement, completeness and informativeness, from the importances of boosted trees.

Eastwood and Williams (2018), as Locatello et al. (2019) compute it: for each factor k a classifier is fitted that reads
it off the codes, and R[i, k] is how much it makes of code i. With the entropy H over normalised rows and columns,

    disentanglement   Σ_i w_i (1 − H(R[i, ·] / Σ_k R[i, k]) / log F)      w_i = Σ_k R[i, k] / Σ R
    completeness      Σ_k w_k (1 − H(R[·, k] / Σ_i R[i, k]) / log D)      w_k = Σ_i R[i, k] / Σ R
    informativeness   the mean accuracy of the classifiers

Two things to know. A column of importances sums to 1 whether or not the factor can be read: noise counts as much as
signal, so that a perfect encoder of three factors of six scores about 0.5. And the logarithm's base is the number of
factors, or of codes: scores of sub-sets of factors have another base.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierarchical_lvae.evaluation.arrays import check_codes, check_factors

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

SMALL = 1e-11


class Dci(NamedTuple):
    """Scores in [0, 1], and what they are made of."""

    disentanglement: float
    completeness: float
    informativeness_train: float
    """Mean accuracy over the factors, on the points fitted on."""
    informativeness_test: float
    """On others."""
    importance: NDArray[np.float64]
    """R: (D, F); a column sums to 1, or is 0 if no code is of use."""
    accuracy_train: NDArray[np.float64]
    """Of each factor: (F,)."""
    accuracy_test: NDArray[np.float64]

    def of_factors(self, factors: Sequence[int]) -> "Dci":
        """The scores of some of the factors, by their numbers, from the same classifiers: "without colour"."""
        return _scores(
            self.importance[:, factors], self.accuracy_train[list(factors)], self.accuracy_test[list(factors)]
        )


def dci(
    codes_train: ArrayLike,
    factors_train: ArrayLike,
    codes_test: ArrayLike,
    factors_test: ArrayLike,
    seed: int = 0,
    n_jobs: int = -1,
) -> Dci:
    """DCI by scikit-learn's GradientBoostingClassifier with its defaults, one a factor, fitted in parallel.

    Args:
        codes_train, codes_test: (n, D); 10,000 and 5,000 in the field's protocol.
        factors_train, factors_test: (n, F), whole numbers.
        seed: `random_state` of each classifier: without one, trees break ties at random.
        n_jobs: processes; -1 is one a core. The scores do not depend on it.

    Raises:
        ValueError: shapes that do not match, a number that is not finite, or a constant factor.
    """
    codes_train, codes_test = check_codes(codes_train), check_codes(codes_test)
    factors_train = check_factors(factors_train, len(codes_train))
    factors_test = check_factors(factors_test, len(codes_test), constant=True)
    if factors_train.shape[1] != factors_test.shape[1] or codes_train.shape[1] != codes_test.shape[1]:
        raise ValueError("train and test have other numbers of codes or factors")
    fitted = _parallel(codes_train, factors_train, seed, n_jobs)
    importance = np.stack([np.abs(classifier.feature_importances_) for classifier in fitted], axis=1)
    accuracies = (
        np.array([c.score(codes, factors[:, k]) for k, c in enumerate(fitted)])
        for codes, factors in ((codes_train, factors_train), (codes_test, factors_test))
    )
    return _scores(importance, *accuracies)


def dci_from_importance(importance: ArrayLike) -> tuple[float, float]:
    """Disentanglement and completeness of an importance matrix R: (D, F), not negative.

    >>> [round(score, 6) for score in dci_from_importance(np.eye(4))]
    [1.0, 1.0]
    >>> disentanglement, completeness = dci_from_importance(np.ones((10, 6)) / 10)
    >>> round(disentanglement, 6), round(completeness, 6)
    (0.0, 0.0)

    Raises:
        ValueError: R is no such matrix.
    """
    R = np.asarray(importance, float)
    if R.ndim != 2 or 0 in R.shape or not (np.isfinite(R).all() and (R >= 0).all()):
        raise ValueError(f"importances are {R.shape}: a matrix of finite numbers that are not negative is needed")
    return _concentration(R), _concentration(R.T)


def _concentration(R: NDArray[np.float64]) -> float:
    """One minus the entropy of each row, in units of its largest, averaged by the rows' weights."""
    if R.shape[1] == 1:
        return 1.0 if R.any() else 0.0  # a single column leaves nothing to be spread over
    padded = R + SMALL
    p = padded / padded.sum(1, keepdims=True)
    each = 1 + (p * np.log(p)).sum(1) / np.log(R.shape[1])
    weights = R.sum(1) / R.sum() if R.any() else np.full(len(R), 1 / len(R))
    return float(max(0.0, (weights * each).sum()))


def _scores(importance: NDArray, train: NDArray, test: NDArray) -> Dci:
    return Dci(*dci_from_importance(importance), float(train.mean()), float(test.mean()), importance, train, test)


def _parallel(codes: NDArray, factors: NDArray, seed: int, n_jobs: int) -> "list[ClassifierMixin]":
    """Fit the classifiers; those with the most classes, which take longest, first."""
    from joblib import Parallel, delayed

    from hierarchical_lvae import progress

    order = np.argsort([-len(np.unique(column)) for column in factors.T], kind="stable")
    jobs = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(_fit)(codes, factors[:, k], seed) for k in order)
    bar = progress.bar(jobs, desc="DCI", total=len(order), unit="factor")
    fitted = dict(zip(order.tolist(), bar, strict=True))
    return [fitted[k] for k in range(len(order))]


def _fit(codes: NDArray, factor: NDArray, seed: int) -> "ClassifierMixin":
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(random_state=seed).fit(codes, factor)
