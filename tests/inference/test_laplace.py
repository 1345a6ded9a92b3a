"""Laplace's approximation against its truths: local linear regression, and one local loading by quadrature."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from hierarchical_lvae.inference import (
    Dense,
    Diagonal,
    Laplace,
    LocalELBO,
    LowRank,
    MultiStepMAP,
    OneStepMAP,
    Shared,
    estimate_evidence,
    reestimate,
)
from hierarchical_lvae.inference.curvature import ggn_matrix
from hierarchical_lvae.inference.elbo import SupportLoss
from hierarchical_lvae.inference.gaussians import Embedded
from hierarchical_lvae.models import FactorAnalysis, LocalLinearRegression, LocalVAE

pytestmark = pytest.mark.usefixtures("double")
B, K, P, TAU, SIGMA = 4, 6, 3, 0.4, 0.9
MODE = MultiStepMAP(num_steps=600, step_size=0.03)
CLOSE = {"rtol": 0, "atol": 1e-8}


@pytest.fixture
def program():
    return LocalLinearRegression(torch.randn(P), TAU, SIGMA)


@pytest.fixture
def data():
    return torch.randn(B, K, P), torch.randn(B, K)


def posterior(local, program, data):
    return LocalELBO(local).local_posterior(program.model, program.guide, data)["theta_N"]


@pytest.mark.parametrize("structure", [Dense(), LowRank(P)])
def test_at_the_mode_it_is_the_posterior_and_the_evidence(program, data, structure):
    local, truth = Laplace(MODE, structure), program.posterior(data)
    q = posterior(local, program, data)
    torch.testing.assert_close(q.mean.squeeze(1), truth.mean, **CLOSE)
    torch.testing.assert_close(q.variance.squeeze(1), truth.variance, **CLOSE)
    x = torch.randn(B, 1, P)
    torch.testing.assert_close(q.log_prob(x).squeeze(1), truth.log_prob(x.squeeze(1)), **CLOSE)
    found = estimate_evidence(LocalELBO(local), program.model, program.guide, data)
    torch.testing.assert_close(found.log_evidence, program.log_evidence(data), **CLOSE)


@pytest.mark.parametrize("centre", [OneStepMAP(), Shared(), MultiStepMAP(3)])
@pytest.mark.parametrize("structure", [Dense(), LowRank(P)])
def test_the_evidence_is_exact_at_any_centre(program, data, centre, structure):
    with torch.no_grad():  # evaluation differentiates inside all the same
        found = estimate_evidence(LocalELBO(Laplace(centre, structure)), program.model, program.guide, data)
    torch.testing.assert_close(found.log_evidence, program.log_evidence(data), **CLOSE)
    truth = program.posterior(data)
    effective = (1 - truth.variance / TAU**2).sum(-1)
    torch.testing.assert_close(found.effective_parameters, effective, **CLOSE)
    moved = (truth.mean - program.theta).square().sum(-1) / TAU**2
    torch.testing.assert_close(found.displacement, moved, **CLOSE)


def test_the_covariance_at_the_one_step_centre_is_the_same(program, data):
    q = posterior(Laplace(OneStepMAP(), Dense()), program, data)
    torch.testing.assert_close(q.covariance_matrix.squeeze(1), program.posterior(data).covariance_matrix, **CLOSE)
    one_step = posterior(OneStepMAP(), program, data)
    torch.testing.assert_close(q.mean, one_step.mean)


def test_the_drawn_diagonal_is_the_inverse_of_the_diagonal_precision(program, data):
    q = posterior(Laplace(OneStepMAP(), Diagonal(20_000)), program, data)
    expected = TAU**-2 + program.curvature(data).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(q.variance.squeeze(1).reciprocal(), expected, rtol=0.05, atol=0)


def test_the_bound_at_the_true_posterior_is_the_evidence(program, data):
    """(4') with the support as query: E_q[ℓ_N] + KL(q ‖ p) = −log p(N) for the true q, and more for another."""
    truth = torch.distributions.MultivariateNormal(
        program.posterior(data).mean, program.posterior(data).covariance_matrix
    )
    for centre, more in ((MODE, False), (OneStepMAP(), True)):
        q = posterior(Laplace(centre, Dense()), program, data)
        elbo = LocalELBO(lambda local_loss, q=q: {"theta_N": q}, num_particles=200)
        losses = torch.tensor([elbo.loss(program.model, program.guide, data, data) for _ in range(10)])
        other = torch.distributions.MultivariateNormal(q.mean.squeeze(1), q.covariance_matrix.squeeze(1))
        gap = torch.distributions.kl_divergence(other, truth).sum().item()
        assert (gap > 1) == more
        excess = losses + program.log_evidence(data).sum()
        assert abs(excess.mean() - gap) < 5 * excess.std() / 10**0.5


def test_the_weight_of_the_kl(program, data):
    losses = []
    for weight in (0.0, 1.0, 3.0):
        torch.manual_seed(5)
        elbo = LocalELBO(Laplace(OneStepMAP(), Dense()), kl_weight=weight)
        losses.append(elbo.loss(program.model, program.guide, data, data))
    q = posterior(Laplace(OneStepMAP(), Dense()), program, data)
    prior = dist.Normal(program.theta, TAU).expand([B, 1, P]).to_event(1)
    kl = torch.distributions.kl_divergence(q, prior).sum().item()
    assert losses[1] - losses[0] == pytest.approx(kl, rel=1e-9)
    assert losses[2] - losses[0] == pytest.approx(3 * kl, rel=1e-9)


def test_the_gradient_is_that_of_central_differences(program, data):
    """The curvature of linear regression is constant, so that it is detached changes nothing."""
    query = torch.randn(B, 1, P), torch.randn(B, 1)
    elbo = LocalELBO(Laplace(OneStepMAP(), Dense()))

    def loss():
        torch.manual_seed(3)
        return elbo.differentiable_loss(program.model, program.guide, query, data)

    (gradient,) = torch.autograd.grad(loss(), program.theta)
    for i in range(P):
        ends = []
        for sign in (1, -1):
            program.theta.data[i] += sign * 1e-5
            ends.append(loss().item())
            program.theta.data[i] -= sign * 1e-5
        assert gradient[i].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7)


def test_mackays_rule_finds_the_alpha_of_most_evidence(program):
    """Its fixed point is where the exact evidence of 200 neighbourhoods, drawn with τ = 0.4, is stationary in τ."""
    inputs = torch.randn(200, K, P)
    theta_N = program.theta + TAU * torch.randn(200, 1, P)
    data = inputs, (inputs * theta_N).sum(-1) + SIGMA * torch.randn(200, K)
    elbo = LocalELBO(Laplace(OneStepMAP(), LowRank(P)))
    program.tau = 0.05
    for _ in range(120):
        factor = reestimate(elbo, program.model, program.guide, data)
        assert 0.5 <= factor <= 2
        program.tau *= factor**0.5
    assert factor == pytest.approx(1, abs=1e-9)
    assert program.tau == pytest.approx(TAU, rel=0.2)  # the draws have a τ of their own
    tau = torch.tensor(program.tau, requires_grad=True)
    program.tau = tau
    (slope,) = torch.autograd.grad(program.log_evidence(data).sum(), tau)
    program.tau = tau.detach() * 1.01
    (curvature,) = torch.autograd.functional.hessian(lambda t: _evidence_at(program, data, t), (tau.detach(),))[0]
    assert abs(slope / curvature) < 1e-8 * tau  # one Newton step away from the best τ is no way at all


def _evidence_at(program, data, tau):
    program.tau = tau
    return program.log_evidence(data).sum()


def test_with_codes_the_curvature_is_the_bounds_and_the_evidence_a_bound():
    """One local loading w ~ Normal(0.8, 0.5²), x = w z + noise: log p(N) by quadrature over w, against Laplace."""
    tau, sigma, K = 0.5, 0.5, 40
    program = FactorAnalysis(torch.tensor([[0.8]]), sigma, tau)
    x = torch.randn(1, K, 1) * 1.5
    w = torch.linspace(-6, 8, 20_001)
    log_lik = dist.Normal(0.0, (w**2 + sigma**2).sqrt()).log_prob(x.view(K, 1)).sum(0)
    joint = log_lik + dist.Normal(0.8, tau).log_prob(w)
    truth = joint.logsumexp(0) + (w[1] - w[0]).log()

    elbo = LocalELBO(Laplace(Shared(), Dense()), num_particles=300)  # at w = 0.8 the guide is the true posterior of z
    with torch.no_grad():
        found = estimate_evidence(elbo, program.model, program.guide, x).log_evidence.item()
    at = SupportLoss(elbo, program.model, program.guide, x, False)()
    of_bound = ggn_matrix(at, "theta_N").item()
    meta = torch.tensor(0.8, requires_grad=True)
    value = dist.Normal(0.0, (meta**2 + sigma**2).sqrt()).log_prob(x.view(K)).sum()
    (slope,) = torch.autograd.grad(value, meta, create_graph=True)
    of_evidence = -torch.autograd.grad(slope, meta)[0].item()
    # the codes held still make the loading look better determined than it is
    posterior = program.posterior(x)
    exact = (posterior.mean.square() + posterior.variance).sum().item() / sigma**2
    assert of_bound == pytest.approx(exact, rel=0.05)
    assert of_bound > 1.5 * of_evidence > 0
    assert found < truth - 1


def test_only_theta_is_random_and_all_meet_the_point_as_alpha_vanishes(double):
    vae = LocalVAE(1e-8, 2, (1, 8, 8), 3)
    support = torch.rand(B, 2, 1, 8, 8)
    for structure in (Diagonal(), LowRank(3)):
        q = LocalELBO(Laplace(structure=structure)).local_posterior(vae.model, vae.guide, support)
        assert isinstance(q["phi_N"], dist.Delta)
        assert q["theta_N"].variance.max() <= vae.tau**2 * (1 + 1e-9)
    wide = LocalVAE(1.0, 2, (1, 8, 8), 3)
    q = LocalELBO(Laplace()).local_posterior(wide.model, wide.guide, support)["theta_N"]
    assert (q.variance <= wide.tau**2).all()
    assert (q.variance < 0.99 * wide.tau**2).any()


def test_a_block_is_random_and_the_rest_a_point():
    vae = LocalVAE(0.1, 2, (1, 8, 8), 3)
    support = torch.rand(B, 2, 1, 8, 8)
    for structure, kind in (
        (Dense(), dist.MultivariateNormal),
        (LowRank(4), None),
        (Diagonal(), None),
    ):
        local = Laplace(OneStepMAP(), structure, block=("5.bias", "2.bias"))
        q = LocalELBO(local).local_posterior(vae.model, vae.guide, support)["theta_N"]
        assert isinstance(q, Embedded)
        assert kind is None or isinstance(q.block, kind)
        assert (q.variance > 0).sum() == B * 1025
    draws = q.rsample()
    assert (draws != q.mean).sum() == B * 1025
    assert LocalELBO(local).differentiable_loss(vae.model, vae.guide, support[:, 0], support).isfinite()
    assert estimate_evidence(LocalELBO(local), vae.model, vae.guide, support).log_evidence.shape == (B,)


def test_refusals_name_the_remedy(program, data):
    vae = LocalVAE(0.0, 2, (1, 8, 8), 3)
    support = torch.rand(B, 2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"α = 0 is the plain VAE, whose local inference is Shared\(\)"):
        LocalELBO(Laplace()).local_posterior(vae.model, vae.guide, support)
    vae = LocalVAE(1.0, 2, (1, 8, 8), 3)
    with pytest.raises(ValueError, match=r"a dense matrix of 265,217 local parameters is too large .* Diagonal\(\)"):
        LocalELBO(Laplace(structure=Dense())).local_posterior(vae.model, vae.guide, support)
    with pytest.raises(ValueError, match=r"no parameter matches 9\.bias: choose from 0\.weight, 0\.bias"):
        LocalELBO(Laplace(block="9.bias")).local_posterior(vae.model, vae.guide, support)
    with pytest.raises(ValueError, match="the program states no layout for the local site 'theta_N'"):
        posterior(Laplace(block="last"), program, data)
    with pytest.raises(ValueError, match="num_draws is 0"):
        Diagonal(0)
    with pytest.raises(ValueError, match="rank is 0"):
        LowRank(0)

    def gamma(data):
        with pyro.plate("neighbourhood", B, dim=-2):
            pyro.sample("theta_N", dist.Gamma(torch.ones(P), 1.0).to_event(1))

    with pytest.raises(ValueError, match="the local site 'theta_N' is Gamma: it must be Normal around its meta"):
        LocalELBO(Laplace()).local_posterior(gamma, lambda data: None, data)
