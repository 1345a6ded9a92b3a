"""A penalty in the bound: on the codes of the queries, and nowhere else."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from hierarchical_lvae.inference import LocalELBO, OneStepMAP, Shared
from hierarchical_lvae.models import FactorAnalysis, LocalLinearRegression, LocalVAE
from hierarchical_lvae.penalties import Annealed, TotalCorrelation, build_penalty, dip_ii
from hierarchical_lvae.types import Codes, Penalty

pytestmark = pytest.mark.usefixtures("double")
B, K, D, SHAPE = 4, 2, 3, (1, 8, 8)
LOCAL = 0.05


class Noted(Penalty):
    """Keeps what it is given."""

    def __init__(self):
        self.seen = []

    def __call__(self, codes):
        self.seen.append(codes)
        return codes.mean.sum() * 0


def vae_and_images(alpha):
    vae = LocalVAE(alpha, K, SHAPE, D, activation="softplus")
    return vae, torch.rand(B, *SHAPE), torch.rand(B, K, *SHAPE)


def loss(vae, query, support, beta=1.0, penalty=None, particles=1):
    torch.manual_seed(7)
    elbo = LocalELBO(OneStepMAP(), beta=beta, penalty=penalty, num_particles=particles)
    return elbo.differentiable_loss(vae.model, vae.guide, query, support)


@pytest.mark.parametrize("alpha", [0.0, LOCAL])
def test_it_sees_the_local_codes_of_the_queries(alpha):
    vae, query, support = vae_and_images(alpha)
    noted = Noted()
    loss(vae, query, support, penalty=noted)
    (codes,) = noted.seen
    torch.manual_seed(7)
    local = LocalELBO(OneStepMAP()).local_posterior(vae.model, vae.guide, support)
    phi_N = local["phi_N"].mean if alpha else vae.phi.expand(B, 1, -1)
    q = vae.encode(query.unsqueeze(1), phi_N)
    torch.testing.assert_close(codes.mean, q.mean.squeeze(1))
    torch.testing.assert_close(codes.scale, q.stddev.squeeze(1))
    torch.testing.assert_close(codes.kl, kl_divergence(q, Normal(0.0, 1.0)).sum((1, 2)))
    assert codes.value.shape == (B, D)
    assert ((codes.value - codes.mean).abs() < 6 * codes.scale).all()
    meta = vae.encode(query.unsqueeze(1), vae.phi.expand(B, 1, -1)).mean.squeeze(1)
    assert torch.allclose(codes.mean, meta) == (alpha == 0)


@pytest.mark.parametrize("alpha", [0.0, LOCAL])
def test_it_counts_once_a_query(alpha):
    vae, query, support = vae_and_images(alpha)
    noted = Noted()
    without = loss(vae, query, support, beta=2.0, penalty=noted)
    codes = noted.seen[0]
    for penalty in (dip_ii(3.0), TotalCorrelation(6.0)):
        added = loss(vae, query, support, beta=2.0, penalty=penalty) - without
        torch.testing.assert_close(added, B * penalty(codes), rtol=1e-9, atol=1e-9)
    annealed = Annealed(25.0)
    annealed.steps += 40_000  # c = 10
    replaced = without - 2.0 * codes.kl.sum() + B * 1000 * (codes.kl.mean() - 10).abs()
    torch.testing.assert_close(loss(vae, query, support, beta=2.0, penalty=annealed), replaced, rtol=1e-9, atol=0)


def test_particles_average_it():
    vae, query, support = vae_and_images(0.0)
    noted = Noted()
    without = loss(vae, query, support, penalty=noted, particles=3)
    assert len(noted.seen) == 3
    tc = TotalCorrelation(4.0)
    mean = torch.stack([tc(codes) for codes in noted.seen]).mean()
    added = loss(vae, query, support, penalty=tc, particles=3) - without
    torch.testing.assert_close(added, B * mean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["annealed", "dip-ii:1000"])
def test_the_local_step_is_the_same_with_and_without(name):
    vae, _, support = vae_and_images(LOCAL)
    posteriors = []
    for penalty in (None, build_penalty(name, D)):
        torch.manual_seed(7)
        elbo = LocalELBO(OneStepMAP(), beta=2.0, penalty=penalty)
        posteriors.append(elbo.local_posterior(vae.model, vae.guide, support))
    for site in ("theta_N", "phi_N"):
        assert torch.equal(posteriors[0][site].mean, posteriors[1][site].mean)


@pytest.mark.parametrize("name", ["annealed:50", "dip-i", "dip-ii", "tc"])
def test_its_gradient_flows_through_the_local_step(name):
    vae, query, support = vae_and_images(LOCAL)
    penalty = build_penalty(name, D)
    loss(vae, query, support, penalty=penalty).backward()
    for parameter in vae.parameters():
        direction = torch.randn_like(parameter)
        start, h, losses = parameter.detach().clone(), 1e-5, []
        with torch.no_grad():
            for sign in (1, -1):
                parameter.copy_(start + sign * h * direction)
                losses.append(loss(vae, query, support, penalty=penalty))
            parameter.copy_(start)
        slope = (parameter.grad * direction).sum()
        torch.testing.assert_close(slope, (losses[0] - losses[1]) / (2 * h), rtol=1e-6, atol=1e-6)


def test_programs_without_such_codes_are_refused():
    regression = LocalLinearRegression(torch.randn(3), tau=0.5, sigma=1.0)
    data = torch.randn(B, K, 3), torch.randn(B, K)
    with pytest.raises(
        ValueError, match="a penalty needs exactly one latent site, the codes, but the program has none"
    ):
        LocalELBO(Shared(), penalty=dip_ii()).loss(regression.model, regression.guide, data, data)

    analysis = FactorAnalysis(torch.randn(5, 2), sigma=0.7)
    x = torch.randn(B, K, 5)
    with pytest.raises(ValueError, match="the codes 'z' are MultivariateNormal in the guide: a penalty needs a Normal"):
        LocalELBO(Shared(), penalty=dip_ii()).loss(analysis.model, analysis.guide, x, x)

    def two(x):
        with pyro.plate("n", B, dim=-2):
            pyro.sample("theta_N", dist.Normal(0.0, 1.0))
            with pyro.plate("k", K, dim=-1):
                for name in ("u", "v"):
                    pyro.sample(name, dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="but the program has u and v: leave the penalty out"):
        LocalELBO(Shared(), penalty=dip_ii()).loss(two, two, x, x)


def test_the_codes_may_have_another_name_and_several_points():
    def program(x):
        with pyro.plate("n", B, dim=-2):
            pyro.sample("w", dist.Normal(0.0, 1.0))
            with pyro.plate("k", K, dim=-1):
                pyro.sample("u", dist.Normal(torch.arange(2.0), 0.5).to_event(1))

    noted = Noted()
    LocalELBO(Shared(), sites=["w"], penalty=noted).loss(program, program, None, None)
    (codes,) = noted.seen
    assert isinstance(codes, Codes)
    assert torch.equal(codes.mean, torch.tensor([0.0, 1.0]).expand(B * K, 2))
    assert torch.equal(codes.kl, torch.zeros(B * K))
