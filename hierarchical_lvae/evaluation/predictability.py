"""SAP, the separated attribute predictability (Kumar, Sattigeri, Balakrishnan, 2018)."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierarchical_lvae.evaluation.arrays import check_codes, check_factors


class Sap(NamedTuple):
    """How much better the best code predicts a factor than the second best."""

    sap: float
    """Mean over the factors."""
    accuracy: NDArray[np.float64]
    """Test accuracy of a linear classifier on code i for factor k: (D, F)."""


def sap(
    codes_train: ArrayLike,
    factors_train: ArrayLike,
    codes_test: ArrayLike,
    factors_test: ArrayLike,
    seed: int = 0,
    n_jobs: int = -1,
) -> Sap:
    """SAP with discrete factors: a linear support vector machine (C = 0.01, balanced classes) on each code.

    Args:
        codes_train, codes_test: (n, D); 10,000 and 5,000 points in Locatello et al. (2019).
        factors_train, factors_test: (n, F), whole numbers.
        seed: random seed of the classifiers.
        n_jobs: number of processes; -1 is one per core.

    Raises:
        ValueError: the shapes do not match, a number is not finite, or a factor is constant.
    """
    from joblib import Parallel, delayed

    codes_train, codes_test = check_codes(codes_train), check_codes(codes_test)
    factors_train = check_factors(factors_train, len(codes_train))
    factors_test = check_factors(factors_test, len(codes_test), constant=True)
    shape = codes_train.shape[1], factors_train.shape[1]
    if shape != (codes_test.shape[1], factors_test.shape[1]):
        raise ValueError("train and test have different numbers of codes or factors")
    accuracies = Parallel(n_jobs=n_jobs)(
        delayed(_accuracy)(codes_train[:, [i]], factors_train[:, k], codes_test[:, [i]], factors_test[:, k], seed)
        for i in range(shape[0])
        for k in range(shape[1])
    )
    accuracy = np.array(accuracies).reshape(shape)
    ordered = np.sort(np.vstack([np.zeros_like(accuracy[:1]), accuracy]), axis=0)
    return Sap(float((ordered[-1] - ordered[-2]).mean()), accuracy)


def _accuracy(code: NDArray, factor: NDArray, code_test: NDArray, factor_test: NDArray, seed: int) -> float:
    from sklearn.svm import LinearSVC

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the default number of iterations is part of the protocol
        machine = LinearSVC(C=0.01, class_weight="balanced", random_state=seed).fit(code, factor)
    return float(machine.score(code_test, factor_test))
