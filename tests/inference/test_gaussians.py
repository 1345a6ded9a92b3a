"""Every Gaussian structure against the dense one: inverse, root, determinant, KL."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from hierarchical_lvae.inference.gaussians import (
    BlockDiagonalNormal,
    Embedded,
    LowRankPrecisionNormal,
    covariance_times,
    log_det_precision,
)

pytestmark = pytest.mark.usefixtures("double")
B, P, R = 3, 6, 2
GROUPS = torch.tensor([[4, 0, 2], [1, 5, 3]])


def structures():
    mean = torch.randn(B, 1, P)
    precision = torch.rand(B, 1, P) + 0.5
    factor = torch.randn(B, 1, P, R) * 2
    matrix = torch.diag_embed(precision) + factor @ factor.mT
    return {
        "diagonal": (dist.Normal(mean, precision.rsqrt()).to_event(1), torch.diag_embed(precision)),
        "low-rank": (LowRankPrecisionNormal(mean, precision, factor), matrix),
        "dense": (dist.MultivariateNormal(mean, precision_matrix=matrix), matrix),
        "blocks": blocks(mean, matrix),
    }


def blocks(mean, matrix):
    """The dense one without what lies between the groups."""
    within = torch.zeros(P, P)
    for group in GROUPS:
        within[group.unsqueeze(1), group] = 1
    inside = matrix[:, :, GROUPS.unsqueeze(2), GROUPS.unsqueeze(1)]
    groups = dist.MultivariateNormal(mean[..., GROUPS], precision_matrix=inside)
    return BlockDiagonalNormal(groups, GROUPS), matrix * within


NAMES = ["diagonal", "low-rank", "dense", "blocks"]
each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def prior():
    return dist.Normal(torch.randn(P), torch.rand(P) + 0.5).expand([B, 1, P]).to_event(1)


def dense(q, matrix):
    return torch.distributions.MultivariateNormal(q.mean, precision_matrix=matrix)


def dense_prior(prior):
    return torch.distributions.MultivariateNormal(prior.mean, torch.diag_embed(prior.variance))


@each
def test_inverse_determinant_and_density_are_the_dense_ones(name):
    q, matrix = structures()[name]
    truth, v, x = dense(q, matrix), torch.randn(B, 1, P), torch.randn(7, B, 1, P)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(q.variance, truth.variance, **close)
    torch.testing.assert_close(q.log_prob(x), truth.log_prob(x), **close)
    torch.testing.assert_close(covariance_times(q, v), torch.linalg.solve(matrix, v.unsqueeze(-1)).squeeze(-1), **close)
    scale = torch.rand(P) + 0.5
    torch.testing.assert_close(log_det_precision(q, scale), torch.logdet(scale.diag() @ matrix), **close)
    assert q.batch_shape == (B, 1)
    assert q.event_shape == (P,)


def test_the_low_rank_one_has_gradients_where_its_factor_is_of_lower_rank():
    W = torch.zeros(4, 3)
    W[:2, 0] = torch.tensor([1.0, 2.0])
    d = torch.ones(4, requires_grad=True)
    q = LowRankPrecisionNormal(torch.zeros(4), d, W)
    truth = torch.linalg.inv(torch.diag(d) + W @ W.T)
    (expected,) = torch.autograd.grad(truth.diagonal().sum(), d)
    (found,) = torch.autograd.grad(q.variance.sum(), d, retain_graph=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.grad(q.rsample().sum(), d)[0].isfinite().all()


@each
def test_draws_have_the_mean_and_the_covariance(name):
    q, matrix = structures()[name]
    n = 40_000
    x = q.rsample((n,)) - q.mean
    covariance = torch.linalg.inv(matrix)
    assert x.shape == (n, B, 1, P)
    spread = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((x.mean(0) / spread).abs() < 5 / math.sqrt(n)).all()
    found = torch.einsum("nbkp,nbkq->bkpq", x, x) / n
    # Wick: the variance of x_p x_q is Σ_pp Σ_qq + Σ_pq²
    error = (spread.unsqueeze(-1) * spread.unsqueeze(-2)).square() + covariance.square()
    assert ((found - covariance).abs() < 5 * (error / n).sqrt()).all()


@each
def test_kl_is_the_dense_one_and_that_of_brute_force(name, prior):
    q, matrix = structures()[name]
    kl = kl_divergence(q, prior)
    assert kl.shape == (B, 1)
    torch.testing.assert_close(kl, kl_divergence(dense(q, matrix), dense_prior(prior)), rtol=1e-10, atol=1e-10)
    x = q.rsample((40_000,))
    terms = q.log_prob(x) - prior.log_prob(x)
    assert ((terms.mean(0) - kl).abs() < 5 * terms.std(0) / math.sqrt(len(x))).all()


@each
def test_kl_to_itself_is_zero(name, prior):
    same = {
        "diagonal": prior,
        "low-rank": LowRankPrecisionNormal(prior.mean, prior.variance.reciprocal(), torch.zeros(B, 1, P, R)),
        "dense": dist.MultivariateNormal(prior.mean, torch.diag_embed(prior.variance)),
        "blocks": blocks(prior.mean, torch.diag_embed(1 / prior.variance))[0],
    }[name]
    torch.testing.assert_close(kl_divergence(same, prior), torch.zeros(B, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "p", [dist.Laplace(torch.zeros(P), 1.0).to_event(1), dist.Normal(torch.zeros(2, P), 1.0).to_event(2)]
)
def test_there_is_no_kl_to_what_is_not_normal_or_has_another_event(p):
    """Registering the KL to a Normal must not give other priors one, such as those of a user's codes."""
    for q in (dist.MultivariateNormal(torch.zeros(P), torch.eye(P)), structures()["low-rank"][0]):
        with pytest.raises(NotImplementedError, match="no KL"):
            kl_divergence(q, p)


def test_the_low_rank_one_expands_and_differentiates():
    q, _ = structures()["low-rank"]
    wide = q.expand(torch.Size([4, B, 1]))
    assert wide.rsample((2,)).shape == (2, 4, B, 1, P)
    torch.testing.assert_close(wide.log_prob(q.mean), q.log_prob(q.mean).expand(4, B, 1))
    loc = torch.zeros(P, requires_grad=True)
    LowRankPrecisionNormal(loc, torch.ones(P), torch.ones(P, 1)).rsample().sum().backward()
    torch.testing.assert_close(loc.grad, torch.ones(P))


def test_large_single_precision_vectors_keep_their_digits():
    """Of 400,000 weights with τ = 0.003, the KL of a posterior equal to the prior is 0 to 0.01 nats in float32."""
    tau2, size = torch.tensor(8e-6, dtype=torch.float32), 400_000
    mean = torch.randn(1, 1, size, dtype=torch.float32)
    prior = dist.Normal(mean, tau2.sqrt()).to_event(1)
    factor = torch.zeros(1, 1, size, 3, dtype=torch.float32)
    q = LowRankPrecisionNormal(mean, tau2.reciprocal(), factor)
    assert kl_divergence(q, prior).abs().item() < 0.05


def test_an_embedded_block_is_random_there_and_a_point_elsewhere(prior):
    positions = torch.tensor([1, 3])
    block = dist.MultivariateNormal(torch.randn(B, 1, 2), torch.eye(2) * 0.3)
    point = torch.randn(B, 1, P)
    q = Embedded(block, point, positions)
    x = q.rsample((6,))
    assert x.shape == (6, B, 1, P)
    rest = torch.tensor([0, 2, 4, 5])
    torch.testing.assert_close(x[..., rest], point[..., rest].expand(6, B, 1, 4))
    assert (x[..., positions].std(0) > 0).all()
    torch.testing.assert_close(q.mean[..., positions], block.mean)
    torch.testing.assert_close(q.variance, torch.tensor([0.0, 0.3, 0.0, 0.3, 0.0, 0.0]).expand(B, 1, P))
    torch.testing.assert_close(q.log_prob(x), block.log_prob(x[..., positions]))
    part = dist.Normal(prior.mean[..., positions], prior.variance[..., positions].sqrt()).to_event(1)
    torch.testing.assert_close(kl_divergence(q, prior), kl_divergence(block, part))
