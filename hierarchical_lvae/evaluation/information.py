"""Metrics based on the mutual information between binned codes and factors: MIG, and modularity with explicitness."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierarchical_lvae.evaluation.arrays import check_codes, check_factors, compares_factors

BINS = 20


class Mig(NamedTuple):
    """The mutual information gap."""

    mig: float
    """Mean over the factors, in [0, 1]."""
    gaps: NDArray[np.float64]
    """Gap of each factor: (F,)."""
    information: NDArray[np.float64]
    """I(code; factor) in nats: (D, F)."""


class Modularity(NamedTuple):
    """Modularity and explicitness."""

    modularity: float
    """1 if each code has information about exactly one factor; codes without any information count as 0."""
    explicitness_train: float
    """Mean one-vs-rest ROC AUC of logistic regressions, on the training points."""
    explicitness_test: float
    """Mean one-vs-rest ROC AUC of logistic regressions, on the test points."""


def mutual_information(codes: ArrayLike, factors: ArrayLike, bins: int = BINS) -> NDArray[np.float64]:
    """I(code; factor) in nats, (D, F), with codes in bins of equal width between their minimum and maximum.

    Args:
        codes: (n, D).
        factors: (n, F), whole numbers.
        bins: number of bins per code.
    """
    from sklearn.metrics import mutual_info_score

    codes = check_codes(codes)
    factors = check_factors(factors, len(codes), constant=True)
    binned = [np.digitize(code, np.linspace(code.min(), code.max(), bins + 1)[:-1]) for code in codes.T]
    return np.array([[max(0.0, mutual_info_score(code, factor)) for factor in factors.T] for code in binned])


def mig(codes: ArrayLike, factors: ArrayLike, bins: int = BINS) -> Mig:
    """The mutual information gap (Chen, Li, Grosse, Duvenaud, 2018), averaged over the factors.

    For each factor, it is the mutual information with the best code minus that with the second best, divided by the
    factor's entropy. With a single code, the second term is 0.

    Args:
        codes: (n, D); 10,000 points in Locatello et al. (2019).
        factors: (n, F), whole numbers.
        bins: number of bins per code.

    >>> factors = np.stack(np.meshgrid(range(4), range(3)), -1).reshape(-1, 2)
    >>> mig(factors, factors).mig
    1.0

    Raises:
        ValueError: the shapes do not match, a number is not finite, or a factor is constant.
    """
    codes = check_codes(codes)
    factors = check_factors(factors, len(codes))
    information = mutual_information(codes, factors, bins)
    ordered = np.sort(np.vstack([np.zeros_like(information[:1]), information]), axis=0)
    entropies = np.array([_entropy(factor) for factor in factors.T])
    gaps = (ordered[-1] - ordered[-2]) / entropies
    return Mig(float(gaps.mean()), gaps, information)


@compares_factors
def modularity(
    codes_train: ArrayLike,
    factors_train: ArrayLike,
    codes_test: ArrayLike,
    factors_test: ArrayLike,
    seed: int = 0,
    bins: int = BINS,
) -> Modularity:
    """Modularity of the training codes, and explicitness of training and test codes (Ridgeway and Mozer, 2018).

    Args:
        codes_train, codes_test: (n, D); 10,000 and 5,000 points in Locatello et al. (2019).
        factors_train, factors_test: (n, F), whole numbers.
        seed: random seed of the logistic regressions.
        bins: number of bins per code, for the mutual information.

    Raises:
        ValueError: the shapes do not match, a number is not finite, a factor is constant, or it has no value in common
            between the two sets.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    codes_train, codes_test = check_codes(codes_train), check_codes(codes_test)
    factors_train = check_factors(factors_train, len(codes_train))
    factors_test = check_factors(factors_test, len(codes_test))
    for k, (train, test) in enumerate(zip(factors_train.T, factors_test.T, strict=True)):
        if not np.isin(test, train).any():
            raise ValueError(
                f"no value of factor {k} in the test set occurs in the training set: leave that factor out"
            )
    squared = mutual_information(codes_train, factors_train, bins) ** 2
    largest, others = squared.max(1), max(1, squared.shape[1] - 1)
    tells = largest > 1e-20
    spread = (squared.sum(1) - largest) / np.where(tells, largest, 1) / others
    modular = np.where(tells, 1 - spread, 0).mean()

    scaler = StandardScaler().fit(codes_train)
    areas: tuple[list[float], list[float]] = ([], [])
    for train, test in zip(factors_train.T, factors_test.T, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the default number of iterations is part of the protocol
            classifier = LogisticRegression(random_state=seed).fit(scaler.transform(codes_train), train)
        for found, codes, factor in ((areas[0], codes_train, train), (areas[1], codes_test, test)):
            probabilities = classifier.predict_proba(scaler.transform(codes))
            seen = [(c, p) for c, p in zip(classifier.classes_, probabilities.T, strict=True) if c in factor]
            found.append(float(np.mean([roc_auc_score(factor == c, p) for c, p in seen])))
    return Modularity(float(modular), float(np.mean(areas[0])), float(np.mean(areas[1])))


def _entropy(factor: NDArray[np.int64]) -> float:
    p = np.unique(factor, return_counts=True)[1] / len(factor)
    return float(-(p * np.log(p)).sum())
