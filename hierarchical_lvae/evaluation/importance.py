"""Disentanglement, completeness and informativeness, from the feature importances of boosted trees.

These are the metrics of Eastwood and Williams (2018), as computed by Locatello et al. (2019): for each factor k, a
classifier predicts the factor from the codes, and R[i, k] is the importance of code i. With the entropy H of normalised
rows and columns,

    disentanglement   Σ_i w_i (1 − H(R[i, ·] / Σ_k R[i, k]) / log F)      w_i = Σ_k R[i, k] / Σ R
    completeness      Σ_k w_k (1 − H(R[·, k] / Σ_i R[i, k]) / log D)      w_k = Σ_i R[i, k] / Σ R
    informativeness   the mean accuracy of the classifiers

There are two caveats. Each column of importances sums to 1 whether or not the factor can be predicted: noise counts as
much as signal, so a perfect encoder of three of six factors scores about 0.5. The base of the logarithm is the number
of factors, or of codes, so scores of subsets of the factors have a different base.
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
    """Scores in [0, 1], and the importances and accuracies from which they are computed."""

    disentanglement: float
    completeness: float
    informativeness_train: float
    """Mean accuracy over the factors, on the training points."""
    informativeness_test: float
    """Mean accuracy over the factors, on the test points."""
    importance: NDArray[np.float64]
    """R: (D, F); each column sums to 1, or is 0 if no code is used."""
    accuracy_train: NDArray[np.float64]
    """Accuracy for each factor on the training points: (F,)."""
    accuracy_test: NDArray[np.float64]
    """Accuracy for each factor on the test points: (F,)."""

    def of_factors(self, factors: Sequence[int]) -> "Dci":
        """Return the scores for a subset of the factors, by index, from the same classifiers ("without colour")."""
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
    """DCI with scikit-learn's GradientBoostingClassifier at its defaults, one per factor, fitted in parallel.

    Args:
        codes_train, codes_test: (n, D); 10,000 and 5,000 points in Locatello et al. (2019).
        factors_train, factors_test: (n, F), whole numbers.
        seed: `random_state` of each classifier, which decides ties between splits.
        n_jobs: number of processes; -1 is one per core. The scores do not depend on it.

    Raises:
        ValueError: the shapes do not match, a number is not finite, or a factor is constant.
    """
    codes_train, codes_test = check_codes(codes_train), check_codes(codes_test)
    factors_train = check_factors(factors_train, len(codes_train))
    factors_test = check_factors(factors_test, len(codes_test), constant=True)
    if factors_train.shape[1] != factors_test.shape[1] or codes_train.shape[1] != codes_test.shape[1]:
        raise ValueError("train and test have different numbers of codes or factors")
    fitted = _parallel(codes_train, factors_train, seed, n_jobs)
    importance = np.stack([np.abs(classifier.feature_importances_) for classifier in fitted], axis=1)
    accuracies = (
        np.array([c.score(codes, factors[:, k]) for k, c in enumerate(fitted)])
        for codes, factors in ((codes_train, factors_train), (codes_test, factors_test))
    )
    return _scores(importance, *accuracies)


def dci_from_importance(importance: ArrayLike) -> tuple[float, float]:
    """Disentanglement and completeness of an importance matrix R, (D, F), with entries ≥ 0.

    >>> [round(score, 6) for score in dci_from_importance(np.eye(4))]
    [1.0, 1.0]
    >>> disentanglement, completeness = dci_from_importance(np.ones((10, 6)) / 10)
    >>> round(disentanglement, 6), round(completeness, 6)
    (0.0, 0.0)

    Raises:
        ValueError: R is not such a matrix.
    """
    R = np.asarray(importance, float)
    if R.ndim != 2 or 0 in R.shape or not (np.isfinite(R).all() and (R >= 0).all()):
        raise ValueError(f"importances have shape {R.shape}: a matrix of finite, nonnegative numbers is needed")
    return _concentration(R), _concentration(R.T)


def _concentration(R: NDArray[np.float64]) -> float:
    """One minus the entropy of each row, relative to its maximum, averaged with the rows' weights."""
    if R.shape[1] == 1:
        return 1.0 if R.any() else 0.0  # with a single column, there is nothing to spread over
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
