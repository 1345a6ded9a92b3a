import pyro
import pytest
import torch
from torch.distributions import MultivariateNormal

from hierarchical_lvae.inference import LocalELBO, OneStepMAP, Shared
from hierarchical_lvae.models import FactorAnalysis

pytestmark = pytest.mark.usefixtures("double")
B, K = 3, 2


def test_closed_forms_agree_with_each_other():
    """Bayes' rule at any z: log p(x) = log p(x | z) + log p(z) − log p(z | x)."""
    program = FactorAnalysis(torch.randn(5, 2), sigma=0.7)
    x, z = torch.randn(B, K, 5), torch.randn(B, K, 2)
    loadings = program.theta.unflatten(0, (5, 2))
    likelihood = torch.distributions.Normal(z @ loadings.mT, 0.7).log_prob(x).sum(-1)
    prior = MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(z)
    torch.testing.assert_close(likelihood + prior - program.posterior(x).log_prob(z), program.log_evidence(x))


def test_importance_sampling_finds_the_evidence():
    program = FactorAnalysis(torch.randn(5, 2), sigma=0.7)
    x = torch.randn(1, 1, 5)
    guide = pyro.poutine.trace(program.guide).get_trace(x)
    model = pyro.poutine.trace(pyro.poutine.replay(program.model, guide)).get_trace(x)
    # at the true posterior each importance weight is the evidence itself
    weight = model.log_prob_sum(lambda n, s: n != "theta_N") - guide.log_prob_sum()
    torch.testing.assert_close(weight, program.log_evidence(x).sum())


def test_local_loadings_are_learnt_from_the_neighbourhood():
    program = FactorAnalysis(torch.zeros(5, 2), sigma=1.0, tau=0.1)
    program.theta.data.normal_(std=0.3)
    support = torch.randn(B, 50, 5) * torch.tensor([3.0, 1, 1, 1, 1])
    losses = [LocalELBO(local, num_particles=20).loss(program.model, program.guide, support, support)
              for local in (Shared(), OneStepMAP())]  # fmt: skip
    assert losses[1] < losses[0]


def test_the_bounds_curvature_is_not_the_evidences():
    """As functions of θ_N: −∂²ELBO, at fixed q, is (sum of E[zzᵀ])/σ², and the evidence has another Hessian."""
    program = FactorAnalysis(torch.randn(5, 1), sigma=0.7)
    x = torch.randn(1, 40, 5)
    q = program.posterior(x)
    second_moment = (q.covariance_matrix + q.mean.unsqueeze(-1) * q.mean.unsqueeze(-2)).sum((0, 1)).detach()
    bound_curvature = torch.kron(torch.eye(5), second_moment) / 0.7**2

    def minus_evidence(theta):
        covariance = theta.view(5, 1) @ theta.view(1, 5) + 0.7**2 * torch.eye(5)
        return -MultivariateNormal(torch.zeros(5), covariance).log_prob(x).sum()

    evidence_curvature = torch.autograd.functional.hessian(minus_evidence, program.theta.detach())
    # q is the posterior at θ, so the slopes agree there; the bound lies above, so it curves more
    gap = torch.linalg.eigvalsh(bound_curvature - evidence_curvature)
    assert gap.min() > -1e-8
    assert gap.max() > 1.0
