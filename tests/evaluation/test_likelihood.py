"""IWAE against what theory says of it, and against factor analysis."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from hierarchical_lvae.evaluation import active_units, bits_per_dimension, iwae
from hierarchical_lvae.inference.bound import log_weights
from hierarchical_lvae.models import FactorAnalysis


class Looser(FactorAnalysis):
    """Factor analysis with a guide that is too wide."""

    def posterior(self, x):
        q = super().posterior(x)
        return torch.distributions.MultivariateNormal(q.mean, 2 * q.covariance_matrix)

    def guide(self, x):
        import pyro
        import pyro.distributions as dist

        with pyro.plate("neighbourhood", x.shape[0], dim=-2), pyro.plate("point", x.shape[1], dim=-1):
            q = self.posterior(x)
            return pyro.sample("z", dist.MultivariateNormal(q.mean, q.covariance_matrix))


def test_it_rises_with_k_and_reaches_the_log_evidence_of_factor_analysis(double):
    program = Looser(torch.randn(4, 2), 0.7)
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        weights = np.stack([log_weights(program.model, program.guide, x, ("theta_N",)).numpy() for _ in range(2000)])
    truth = program.log_evidence(x).detach().numpy()
    bounds = [iwae(weights, k) for k in (1, 10, 100, 2000)]
    spread = weights.std(0) / math.sqrt(2000)
    for lower, higher in pairwise(bounds):
        assert (higher > lower - 3 * spread).all()
    assert (bounds[0] < truth).all()
    error = np.exp(weights - truth).std(0) / math.sqrt(2000)
    assert (np.abs(np.exp(bounds[-1] - truth) - 1) < 5 * error).all()


def test_groups_are_averaged_and_huge_weights_do_not_overflow():
    weights = np.array([[1000.0], [1001.0], [-2000.0], [-2000.0], [7.0]])
    expected = ((1000 + math.log((1 + math.e) / 2)) + -2000) / 2
    assert iwae(weights, 2) == pytest.approx([expected])  # the fifth is left over
    assert iwae(weights[:4], 1) == pytest.approx([weights[:4].mean()])
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"k is {k} and there are 5 draws"):
            iwae(weights, k)


def test_units():
    assert bits_per_dimension(-100 * math.log(2), 50) == pytest.approx(2)
    means = np.random.default_rng(0).normal(size=(500, 3)) * [1, 0.5, 0.05]
    assert active_units(means) == 2
    means[0, 0] = np.nan
    with pytest.raises(ValueError, match="the codes of 1 of 500 points are not finite"):
        active_units(means)
