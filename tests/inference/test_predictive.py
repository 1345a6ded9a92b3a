"""Held-out densities against closed forms."""

import math

import pytest
import torch

from hierarchical_lvae.inference import Dense, Laplace, LocalELBO, MultiStepMAP
from hierarchical_lvae.inference.predictive import draws, log_likelihoods, log_predictive
from hierarchical_lvae.models import FactorAnalysis, LocalLinearRegression, LocalVAE

pytestmark = pytest.mark.usefixtures("double")
B, K, P, TAU, SIGMA = 2, 5, 3, 0.4, 0.9


def test_of_regression_it_is_the_closed_forms():
    program = LocalLinearRegression(torch.randn(P), TAU, SIGMA)
    support = torch.randn(B, K, P), torch.randn(B, K)
    query = torch.randn(B, 4, P), torch.randn(B, 4)
    elbo = LocalELBO(Laplace(MultiStepMAP(500, 0.03), Dense()))
    posterior = elbo.local_posterior(program.model, program.guide, support)
    truth = program.posterior(support)
    mean = torch.einsum("bkp,bp->bk", query[0], truth.mean)
    variance = torch.einsum("bkp,bpq,bkq->bk", query[0], truth.covariance_matrix, query[0]) + SIGMA**2
    expected = torch.distributions.Normal(mean, variance.sqrt()).log_prob(query[1])
    S = 4000
    log_p = log_likelihoods(program.model, program.guide, query, draws(posterior, S), 1)
    assert log_p.shape == (S, B, 4)
    error = (log_p - expected).exp().std(0) / math.sqrt(S)  # of the mean ratio, which is 1
    found = log_predictive(program.model, program.guide, query, draws(posterior, S), 1)
    assert ((found - expected).exp() - 1).abs().lt(5 * error).all()


def test_of_factor_analysis_it_is_the_log_evidence():
    program = FactorAnalysis(torch.randn(4, 2), 0.7)
    x = torch.randn(B, K, 4)
    for codes in (1, 20):  # the guide is the true posterior: the weights are constant
        found = log_predictive(program.model, program.guide, x, [{}], codes)
        torch.testing.assert_close(found, program.log_evidence(x).detach(), rtol=1e-10, atol=1e-10)


def test_more_codes_are_a_tighter_bound_and_codes_are_shared_between_values():
    vae = LocalVAE(1.0, 2, (1, 8, 8), 2)
    x = torch.rand(B, 3, 1, 8, 8)
    few = torch.stack([log_predictive(vae.model, vae.guide, x, [{}], 1) for _ in range(30)])
    many = log_predictive(vae.model, vae.guide, x, [{}], 200)
    assert (many > few.mean(0) - 3 * few.std(0) / 30**0.5).all()
    twice = log_likelihoods(vae.model, vae.guide, x, [{}, {}], 2, common=True)
    assert torch.equal(twice[0], twice[1])
    fresh = log_likelihoods(vae.model, vae.guide, x, [{}, {}], 2)
    assert not torch.equal(fresh[0], fresh[1])
    assert twice.shape == (2, B, 3)
    assert not twice.requires_grad
