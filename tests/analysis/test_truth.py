"""Pareto k̂ where the truth is known: local linear regression."""

import pyro.distributions as dist
import pytest
import torch

from hierarchical_lvae.evaluation import pareto_k
from hierarchical_lvae.inference import Dense, Laplace, LocalELBO, MultiStepMAP, OneStepMAP
from hierarchical_lvae.inference.predictive import log_likelihoods
from hierarchical_lvae.models import LocalLinearRegression

K, P, TAU, SIGMA = 6, 3, 0.4, 0.9


def k_hat(program, data, q, draws=1000):
    """Of q (1, 1, P) against p(θ_N | N)."""
    theta_N = q.sample((draws,))
    log_p = log_likelihoods(program.model, program.guide, data, [{"theta_N": value} for value in theta_N], 1)
    prior = dist.Normal(program.theta, TAU).to_event(1)
    ratios = log_p.sum((1, 2)) + (prior.log_prob(theta_N) - q.log_prob(theta_N)).flatten()
    return pareto_k(ratios.detach())


def test_it_is_small_for_laplace_and_large_for_a_posterior_that_is_wrong(double):
    program = LocalLinearRegression(torch.randn(P), TAU, SIGMA)
    data = torch.randn(1, K, P), torch.randn(1, K)
    mode = MultiStepMAP(num_steps=800, step_size=0.03)
    q = LocalELBO(Laplace(mode, Dense())).local_posterior(program.model, program.guide, data)["theta_N"]
    q = dist.MultivariateNormal(q.mean.detach(), q.covariance_matrix.detach())
    assert k_hat(program, data, q) < 0.5
    assert k_hat(program, data, dist.MultivariateNormal(q.mean, 1.3 * q.covariance_matrix)) < 0.5
    assert k_hat(program, data, dist.MultivariateNormal(q.mean, 0.1 * q.covariance_matrix)) > 0.7
    aside = q.mean + 4 * q.variance.sqrt()
    assert k_hat(program, data, dist.MultivariateNormal(aside, q.covariance_matrix)) > 0.7


def test_a_centre_that_is_no_mode_shows(double):
    """One step overshoots where τ²λ is large: the Gaussian around it has the right width, in the wrong place."""
    program = LocalLinearRegression(torch.randn(P), TAU, SIGMA)
    data = 2.5 * torch.randn(1, K, P), 5 * torch.randn(1, K)
    sharpness = TAU**2 * torch.linalg.eigvalsh(program.curvature(data)).max()
    assert sharpness > 2
    q = LocalELBO(Laplace(OneStepMAP(), Dense())).local_posterior(program.model, program.guide, data)["theta_N"]
    q = dist.MultivariateNormal(q.mean.detach(), q.covariance_matrix.detach())
    assert k_hat(program, data, q) > 0.7
    assert pytest.approx(program.posterior(data).variance.detach()) == q.variance.squeeze(1)
