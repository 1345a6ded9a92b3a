"""Metrics that fix one factor and measure which codes stay constant: the FactorVAE score and the BetaVAE score.

Both draw batches of points that share the value of one factor. Here, these are drawn with replacement from points that
are already encoded. With all points of a grid of factors, this is the sampling of Locatello et al. (2019); with 10,000
random points, it approximates it.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierarchical_lvae.evaluation.arrays import check_codes, check_factors, compares_factors

BATCH, VOTES_TRAIN, VOTES_TEST, THRESHOLD = 64, 10_000, 5_000, 0.05


class FactorVaeScore(NamedTuple):
    """Accuracy of a majority vote that predicts the fixed factor from the code that varied least."""

    score: float
    """Accuracy on test votes."""
    score_train: float
    """Accuracy on training votes."""
    active: int
    """Number of codes whose standard deviation is at least the threshold; the others do not vote."""


class BetaVaeScore(NamedTuple):
    """Accuracy of a logistic regression that predicts the fixed factor from mean absolute differences of the codes."""

    score: float
    """Accuracy on test batches."""
    score_train: float
    """Accuracy on training batches."""


@compares_factors
def factor_vae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    seed: int = 0,
    votes_train: int | None = None,
    votes_test: int | None = None,
    batch: int = BATCH,
    threshold: float = THRESHOLD,
) -> FactorVaeScore:
    """The FactorVAE score (Kim and Mnih, 2018): 0 if no code is active; chance is 1/F.

    Args:
        codes: (n, D), the pool from which batches are drawn, and over which the variances of the codes are computed.
        factors: (n, F), whole numbers.
        seed: random seed of the batches.
        votes_train, votes_test: number of batches; 10,000 and 5,000 if None.
        batch: points per batch.
        threshold: standard deviation below which a code is inactive.

    Raises:
        ValueError: the shapes do not match, a number is not finite, or a factor is constant.
    """
    codes = check_codes(codes)
    factors = check_factors(factors, len(codes))
    active = codes.std(0, ddof=1) >= threshold
    if not active.any():
        return FactorVaeScore(0.0, 0.0, 0)
    alive = codes[:, active]
    variances = alive.var(0, ddof=1)
    draw = _Draw(factors, seed)
    votes = []
    for number in (votes_train or VOTES_TRAIN, votes_test or VOTES_TEST):
        table = np.zeros((alive.shape[1], factors.shape[1]), int)
        for _ in range(number):
            k = draw.factor()
            points = draw.agreeing(k, np.full(batch, draw.point()))
            table[np.argmin(alive[points].var(0, ddof=1) / variances), k] += 1
        votes.append(table)
    majority = votes[0].argmax(1)
    train, test = (float(table[np.arange(len(table)), majority].sum() / table.sum()) for table in votes)
    return FactorVaeScore(test, train, int(active.sum()))


@compares_factors
def beta_vae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    seed: int = 0,
    batches_train: int | None = None,
    batches_test: int | None = None,
    batch: int = BATCH,
) -> BetaVaeScore:
    """The BetaVAE score (Higgins et al., 2017): chance is 1/F.

    Args:
        codes: (n, D), the pool from which pairs are drawn.
        factors: (n, F), whole numbers.
        seed: random seed of the pairs and of the logistic regression.
        batches_train, batches_test: number of batches of pairs; 10,000 and 5,000 if None.
        batch: pairs per batch.

    Raises:
        ValueError: the shapes do not match, a number is not finite, or a factor is constant.
    """
    from sklearn.linear_model import LogisticRegression

    codes = check_codes(codes)
    factors = check_factors(factors, len(codes))
    if factors.shape[1] == 1:
        return BetaVaeScore(1.0, 1.0)  # the only factor is always the fixed one
    draw = _Draw(factors, seed)
    sets = []
    for number in (batches_train or VOTES_TRAIN, batches_test or VOTES_TEST):
        held, features = np.empty(number, int), np.empty((number, codes.shape[1]))
        for i in range(number):
            held[i] = draw.factor()
            first = draw.points(batch)
            features[i] = np.abs(codes[first] - codes[draw.agreeing(held[i], first)]).mean(0)
        sets.append((features, held))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the default number of iterations is part of the protocol
        classifier = LogisticRegression(random_state=seed).fit(*sets[0])
    return BetaVaeScore(float(classifier.score(*sets[1])), float(classifier.score(*sets[0])))


class _Draw:
    """Draws random points, and random points that share the value of one factor with given points."""

    def __init__(self, factors: NDArray[np.int64], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.number, self.num_factors = factors.shape
        self.order, self.start, self.size = [], [], []
        for column in factors.T:
            _, group, counts = np.unique(column, return_inverse=True, return_counts=True)
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            self.order.append(np.argsort(group, kind="stable"))
            self.start.append(starts[group])
            self.size.append(counts[group])

    def factor(self) -> int:
        return int(self.rng.integers(self.num_factors))

    def point(self) -> int:
        return int(self.rng.integers(self.number))

    def points(self, count: int) -> NDArray[np.int64]:
        return self.rng.integers(self.number, size=count)

    def agreeing(self, factor: int, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """A random point for each of `points`, with the same value of the factor."""
        within = self.rng.integers(self.size[factor][points])
        return self.order[factor][self.start[factor][points] + within]
