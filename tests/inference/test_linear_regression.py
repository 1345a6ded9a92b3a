"""The derivation against its truth: local linear regression, where posterior, mode and evidence are known."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from hierarchical_lvae.inference import LocalELBO, MultiStepMAP, OneStepMAP, Shared
from hierarchical_lvae.models import LocalLinearRegression

pytestmark = pytest.mark.usefixtures("double")
B, K, P, TAU, SIGMA = 4, 6, 3, 0.2, 0.9


@pytest.fixture
def program():
    return LocalLinearRegression(torch.randn(P), TAU, SIGMA)


@pytest.fixture
def data():
    return torch.randn(B, K, P), torch.randn(B, K)


def one_step(program, data):
    return LocalELBO(OneStepMAP()).local_posterior(program.model, program.guide, data)["theta_N"].mean.squeeze(1)


def mode(linear, quadratic, prior_mean, prior_covariance):
    """The mode of exp(−linear·t − ½ tᵀ quadratic t) Normal(t; prior_mean, prior_covariance), t from the prior mean."""
    precision = torch.linalg.inv(prior_covariance) + quadratic
    return prior_mean - torch.linalg.solve(precision, linear)


def slope_at_meta(program, data):
    inputs, outputs = data
    return -torch.einsum("bkp,bk->bp", inputs, outputs - inputs @ program.theta) / SIGMA**2


def test_one_step_is_the_mode_of_the_linearised_loss_under_the_isotropic_prior(program, data):
    none = torch.zeros(B, P, P)
    expected = mode(slope_at_meta(program, data), none, program.theta, TAU**2 * torch.eye(P))
    torch.testing.assert_close(one_step(program, data), expected, rtol=0, atol=1e-10)


def test_one_step_is_the_exact_mode_under_the_implied_prior(program, data):
    H, eye = program.curvature(data), torch.eye(P)
    assert (TAU**2 * torch.linalg.eigvalsh(H)).max() < 1
    implied = TAU**2 * torch.linalg.inv(eye - TAU**2 * H)
    expected = mode(slope_at_meta(program, data), H, program.theta, implied)
    torch.testing.assert_close(one_step(program, data), expected, rtol=0, atol=1e-10)
    posterior_covariance = torch.linalg.inv(torch.linalg.inv(implied) + H)
    torch.testing.assert_close(posterior_covariance, (TAU**2 * eye).expand(B, P, P), rtol=0, atol=1e-10)


def test_one_step_misses_the_isotropic_mode_by_tau2_H_g_to_first_order(program, data):
    misses = []
    for tau in (1e-2, 1e-3):
        program.tau = tau
        # the mode is θ − τ² g + τ⁴ H g − …, so the step misses it by −τ² H (τ² g)
        miss = one_step(program, data) - program.posterior(data).mean
        first_order = -(tau**4) * torch.einsum("bpq,bq->bp", program.curvature(data), slope_at_meta(program, data))
        misses.append(((miss - first_order).norm() / first_order.norm()).item())
    assert misses[1] < misses[0] / 50 < 1e-2


@pytest.mark.parametrize("step_size", [None, 0.02])
def test_many_steps_reach_the_mode(program, data, step_size):
    local = MultiStepMAP(num_steps=400, step_size=step_size)
    posterior = LocalELBO(local).local_posterior(program.model, program.guide, data)
    expected = program.posterior(data).mean
    torch.testing.assert_close(posterior["theta_N"].mean.squeeze(1), expected, rtol=0, atol=1e-10)


def test_steps_diverge_beyond_the_stated_bound(program, data):
    largest = torch.linalg.eigvalsh(program.curvature(data)).max().item()
    limit = 2 / (largest + TAU**-2)
    expected = program.posterior(data).mean

    def error(factor):
        local = MultiStepMAP(num_steps=200, step_size=factor * limit)
        posterior = LocalELBO(local).local_posterior(program.model, program.guide, data)
        return (posterior["theta_N"].mean.squeeze(1) - expected).abs().max()

    start = (program.theta - expected).abs().max()
    assert error(0.9) < 1e-6 * start
    assert error(1.1) > 1e6 * start


def test_first_multi_step_is_the_papers(program, data):
    posterior = LocalELBO(MultiStepMAP(1, TAU**2)).local_posterior(program.model, program.guide, data)
    torch.testing.assert_close(posterior["theta_N"].mean.squeeze(1), one_step(program, data), rtol=0, atol=1e-12)


def test_shared_loss_is_minus_log_likelihood_at_the_meta_parameters(program, data):
    inputs, outputs = data
    expected = -torch.distributions.Normal(inputs @ program.theta, SIGMA).log_prob(outputs).sum()
    loss = LocalELBO(Shared()).differentiable_loss(program.model, program.guide, data, data)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_meta_gradient_through_the_step_is_the_analytic_one(program, data):
    """θ_N = (I − τ²H)θ + …, so ∇_θ of a query loss is Σ (I − τ²H)ᵀ ∇_{θ_N}."""
    query = (torch.randn(B, 1, P), torch.randn(B, 1))
    loss = LocalELBO(OneStepMAP()).differentiable_loss(program.model, program.guide, query, data)
    (gradient,) = torch.autograd.grad(loss, program.theta)
    theta_N = one_step(program, data)
    residual = query[1] - (query[0] * theta_N.unsqueeze(1)).sum(-1)
    slope = -(query[0] * residual.unsqueeze(-1)).sum(1) / SIGMA**2
    jacobian = torch.eye(P) - TAU**2 * program.curvature(data)
    torch.testing.assert_close(gradient, torch.einsum("bqp,bq->p", jacobian, slope), rtol=1e-12, atol=1e-12)

    for local in (OneStepMAP(first_order=True), MultiStepMAP(1, first_order=True)):
        loss = LocalELBO(local).differentiable_loss(program.model, program.guide, query, data)
        (gradient,) = torch.autograd.grad(loss, program.theta)
        torch.testing.assert_close(gradient, slope.sum(0), rtol=1e-12, atol=1e-12)


def test_closed_forms_agree_with_each_other(program, data):
    """Bayes' rule at any θ_N: log p(y) = log p(y | θ_N) + log p(θ_N) − log p(θ_N | y)."""
    inputs, outputs = data
    theta_N = torch.randn(B, P)
    likelihood = torch.distributions.Normal((inputs * theta_N.unsqueeze(1)).sum(-1), SIGMA).log_prob(outputs).sum(1)
    prior = MultivariateNormal(program.theta, TAU**2 * torch.eye(P)).log_prob(theta_N)
    expected = likelihood + prior - program.posterior(data).log_prob(theta_N)
    torch.testing.assert_close(program.log_evidence(data), expected, rtol=1e-10, atol=1e-10)
