"""LocalELBO against Pyro's own bounds, finite differences, and closed forms."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import LowerCholeskyAffine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

from hierarchical_lvae.inference import LocalELBO, MultiStepMAP, OneStepMAP, Shared, diagnose
from hierarchical_lvae.inference.bound import analytic_kl
from hierarchical_lvae.inference.elbo import SupportLoss
from hierarchical_lvae.models import FactorAnalysis, LocalLinearRegression, LocalVAE
from hierarchical_lvae.models.log_scale import LogScaleNormal

pytestmark = pytest.mark.usefixtures("double")
B, K, SHAPE = 3, 2, (1, 8, 8)


def local_vae(alpha=1.0, **options):
    return LocalVAE(alpha, K, SHAPE, latent_dim=3, **options)


def images(*batch):
    return torch.rand(*batch, *SHAPE)


def seeded_loss(elbo, vae, query, support):
    torch.manual_seed(7)
    return elbo.differentiable_loss(vae.model, vae.guide, query, support)


def test_alpha_zero_is_pyros_bound_on_the_plain_vae():
    vae, query, support = local_vae(alpha=0.0), images(B), images(B, K)
    losses, gradients = [], []
    for run in (
        lambda: LocalELBO(Shared()).loss_and_grads(vae.model, vae.guide, query, support),
        lambda: TraceMeanField_ELBO().loss_and_grads(vae.model, vae.guide, query),
    ):
        vae.zero_grad()
        torch.manual_seed(7)
        losses.append(run())
        gradients.append(torch.cat([vae.theta.grad, vae.phi.grad]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-10)
    assert gradients[0].norm() > 1


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian-learned", "continuous-bernoulli"])
@pytest.mark.parametrize("local", [OneStepMAP(), MultiStepMAP(num_steps=2)], ids=["one-step", "multi-step"])
def test_meta_gradient_is_the_central_difference(local, likelihood):
    vae = local_vae(1e-4 if likelihood.startswith("gaussian") else 0.01, activation="softplus", likelihood=likelihood)
    elbo, query, support = LocalELBO(local, beta=1.5), images(B), images(B, K)
    seeded_loss(elbo, vae, query, support).backward()
    for parameter in vae.parameters():
        for _ in range(2):
            direction = torch.randn_like(parameter)
            slope = (parameter.grad * direction).sum()
            start, h = parameter.detach().clone(), 1e-5
            losses = []
            with torch.no_grad():
                for sign in (1, -1):
                    parameter.copy_(start + sign * h * direction)
                    losses.append(seeded_loss(elbo, vae, query, support))
                parameter.copy_(start)
            difference = (losses[0] - losses[1]) / (2 * h)
            torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-6)


def test_first_order_gradient_is_another():
    vae, query, support = local_vae(0.01, activation="softplus"), images(B), images(B, K)
    gradients = []
    for local in (OneStepMAP(), OneStepMAP(first_order=True)):
        loss = seeded_loss(LocalELBO(local), vae, query, support)
        gradients.append(torch.autograd.grad(loss, vae.theta)[0])
    assert (gradients[0] - gradients[1]).norm() > 0.01 * gradients[0].norm()


@pytest.mark.parametrize("local", [OneStepMAP(), MultiStepMAP(3)], ids=["one-step", "multi-step"])
def test_neighbourhoods_do_not_see_each_other(local):
    """The batched bound is the sum of B bounds: an explicit loop over tasks, with ReLU."""
    vae, query, support = local_vae(5.0), images(B), images(B, K)
    vae.phi.data.view(-1)[-3:] = -30.0  # σ of the codes ≈ 1e-13: the noise does not matter
    elbo = LocalELBO(local)
    batched = elbo.differentiable_loss(vae.model, vae.guide, query, support)
    looped = sum(elbo.differentiable_loss(vae.model, vae.guide, query[i : i + 1], support[i : i + 1]) for i in range(B))
    torch.testing.assert_close(batched, looped, rtol=1e-9, atol=0)
    gradients = [torch.cat(torch.autograd.grad(loss, [vae.theta, vae.phi])) for loss in (batched, looped)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def sampled_posterior(program, stretch=1.0):
    """The exact posterior of factor analysis as a guide whose KL has no closed form."""

    def guide(x):
        q = program.posterior(x)
        standard = dist.Normal(torch.zeros_like(q.mean), 1.0).to_event(1)
        affine = LowerCholeskyAffine(q.mean * stretch, q.scale_tril[0, 0])
        with pyro.plate("neighbourhood", x.shape[0], dim=-2), pyro.plate("point", x.shape[1], dim=-1):
            pyro.sample("z", dist.TransformedDistribution(standard, [affine]))

    return guide


def test_bound_at_the_true_posterior_is_the_log_evidence():
    """At each draw, with a sampled KL; on average, with the analytic one."""
    program = FactorAnalysis(torch.randn(5, 2), sigma=0.7)
    x, elbo = torch.randn(B, K, 5), LocalELBO(Shared())
    evidence = program.log_evidence(x).sum().item()
    for _ in range(3):
        assert elbo.loss(program.model, sampled_posterior(program), x, x) == pytest.approx(-evidence, rel=1e-12)
    draws = torch.tensor([elbo.loss(program.model, program.guide, x, x) for _ in range(400)])
    assert abs(draws.mean() + evidence) < 4 * draws.std() / 20


def test_bound_at_another_posterior_is_looser_by_its_kl():
    program = FactorAnalysis(torch.randn(5, 2), sigma=0.7)
    x, elbo = torch.randn(B, K, 5), LocalELBO(Shared())
    q, guide = program.posterior(x), sampled_posterior(program, stretch=1.5)
    wrong = dist.MultivariateNormal(q.mean * 1.5, scale_tril=q.scale_tril)
    gap = torch.distributions.kl_divergence(wrong, q).sum().item()
    draws = torch.tensor([elbo.loss(program.model, guide, x, x) for _ in range(900)])
    error = draws.std() / 30
    assert abs(draws.mean() + program.log_evidence(x).sum() - gap) < 4 * error
    assert gap > 10 * error


def test_a_guide_of_another_order_is_bounded_without_analytic_kl():
    """Where the guide samples b before a, KL(q(a) ‖ p(a)) + KL(q(b) ‖ p(b | a)) would be another number."""

    def model(x):
        with pyro.plate("n", 1, dim=-2):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            with pyro.plate("k", 1, dim=-1):
                a = pyro.sample("a", dist.Normal(0.0, 1.0))
                b = pyro.sample("b", dist.Normal(a, 0.5))
                pyro.sample("x", dist.Normal(b + 0 * w, 1.0), obs=x)

    def guide(x):
        with pyro.plate("n", 1, dim=-2), pyro.plate("k", 1, dim=-1):
            b = pyro.sample("b", dist.Normal(0.3, 0.7))
            pyro.sample("a", dist.Normal(0.8 * b, 0.4))

    x = torch.ones(1, 1)
    ours = torch.tensor([LocalELBO(Shared(), sites=["w"]).loss(model, guide, x, x) for _ in range(1000)])
    theirs = torch.tensor([Trace_ELBO().loss(pyro.poutine.block(model, hide=["w"]), guide, x) for _ in range(1000)])
    error = (ours.var() / 1000 + theirs.var() / 1000).sqrt()
    assert abs(ours.mean() - theirs.mean()) < 4 * error


def test_masked_points_do_not_count_and_scaled_ones_count_more():
    program = FactorAnalysis(torch.randn(5, 2), sigma=0.7)
    x = torch.randn(1, 3, 5)
    elbo = LocalELBO(Shared())

    def loss(handler, points):
        return elbo.loss(handler(program.model), handler(sampled_posterior(program)), points, points)

    keep_two = partial(pyro.poutine.mask, mask=torch.tensor([True, False, True]))
    evidence = program.log_evidence(x)[0]
    assert loss(keep_two, x) == pytest.approx(-(evidence[0] + evidence[2]).item(), rel=1e-12)
    twice = partial(pyro.poutine.scale, scale=2.0)
    assert loss(twice, x) == pytest.approx(-2 * evidence.sum().item(), rel=1e-12)
    losses = []
    for beta in (1.0, 3.0):  # at the same draws the difference is twice the analytic KL
        torch.manual_seed(7)
        losses.append(LocalELBO(Shared(), beta=beta).loss(keep_two(program.model), keep_two(program.guide), x, x))
    prior = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
    kl = torch.distributions.kl_divergence(program.posterior(x), prior)[0]
    assert losses[1] - losses[0] == pytest.approx(2 * (kl[0] + kl[2]).item(), rel=1e-9)


def test_the_kl_of_normals_is_pytorchs():
    for event_dim in (0, 1, 2):
        mean, scale = torch.randn(4, 3, 2), torch.rand(4, 3, 2) + 0.1
        q, p = dist.Normal(mean, scale).to_event(event_dim), dist.Normal(torch.zeros(2), 1.5).expand((4, 3, 2))
        p = p.to_event(event_dim)
        torch.testing.assert_close(analytic_kl(q, p), torch.distributions.kl_divergence(q, p))
    laplace = dist.Laplace(torch.zeros(3), 1.0)
    assert analytic_kl(laplace, laplace).abs().max() == 0
    with pytest.raises(NotImplementedError):
        analytic_kl(dist.Normal(torch.zeros(3), 1.0).to_event(1), dist.Normal(torch.zeros(3), 1.0))


@pytest.mark.parametrize("sigma", [1e-1, 1e-6, 1e-10, 1e-15, 1e-22, 1e-38])
def test_the_kl_can_be_differentiated_twice_where_sigma_is_small(sigma):
    """In single precision: d²KL/d(log σ)² = 2σ², where PyTorch's form is not finite (fits came to 1e-10, and 1e-22)."""
    log_sigma = torch.tensor(sigma, dtype=torch.float32).log().requires_grad_()

    def second(kl):
        q = LogScaleNormal(torch.zeros((), dtype=torch.float32), log_sigma)
        value = kl(q, dist.Normal(torch.zeros((), dtype=torch.float32), 1.0))
        (slope,) = torch.autograd.grad(value, log_sigma, create_graph=True)
        return torch.autograd.grad(slope, log_sigma)[0].item()

    assert second(analytic_kl) == pytest.approx(2 * sigma**2, abs=1e-6)
    if sigma <= 1e-10:
        assert not math.isfinite(second(torch.distributions.kl_divergence))


def test_beta_weighs_the_kl():
    vae, x = local_vae(0.0), images(B)
    one, three = (seeded_loss(LocalELBO(Shared(), beta=beta), vae, x, x) for beta in (1.0, 3.0))
    with torch.no_grad():
        q = vae.encode(x.unsqueeze(1), vae.phi.expand(B, 1, -1))
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(three - one, 2 * kl, rtol=1e-9, atol=1e-9)


def test_beta_and_particles_count_in_the_inner_loss_too():
    vae, support = local_vae(2.0), images(B, K)
    vae.phi.data[-3:] = -30.0  # the codes are their means: nothing is random

    def before(**options):
        return diagnose(LocalELBO(OneStepMAP(), **options), vae.model, vae.guide, support).loss_before

    with torch.no_grad():
        q = vae.encode(support, vae.phi.expand(B, 1, -1))
        kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum((1, 2))
    torch.testing.assert_close(before(beta=3.0) - before(beta=1.0), 2 * kl, rtol=1e-9, atol=1e-9)

    vae.phi.data[-3:] = 0.0
    singles = torch.stack([before() for _ in range(2)])
    assert torch.equal(*singles)  # a diagnosis leaves the random state as it was
    losses = {}
    for particles in (1, 25):
        local_loss = SupportLoss(LocalELBO(OneStepMAP(), num_particles=particles), vae.model, vae.guide, support, False)
        losses[particles] = torch.stack([local_loss().loss.detach() for _ in range(40)]).std(0)
    assert (losses[25] < losses[1] / 2.5).all()


def test_particles_average():
    vae, query, support = local_vae(2.0), images(B), images(B, K)
    many = LocalELBO(OneStepMAP(), num_particles=64)
    losses = [many.loss(vae.model, vae.guide, query, support) for _ in range(4)]
    single = torch.tensor([LocalELBO(OneStepMAP()).loss(vae.model, vae.guide, query, support) for _ in range(64)])
    assert torch.tensor(losses).std() < single.std() / 3
    assert abs(sum(losses) / 4 - single.mean()) < 5 * single.std() / 8


def test_a_gaussian_local_posterior_pays_its_kl():
    """(4'): with q = p the KL is 0, and shifting q by δ costs w ‖δ‖² / (2τ²) a neighbourhood."""
    program = LocalLinearRegression(torch.randn(3), tau=0.5, sigma=1.0)
    data = torch.zeros(B, K, 3), torch.zeros(B, K)  # no inputs: the likelihood ignores θ_N

    class Shifted:
        def __init__(self, shift):
            self.shift = shift

        def __call__(self, local_loss):
            prior = local_loss().prior["theta_N"]
            return {"theta_N": dist.Normal(prior.mean + self.shift, 0.5).to_event(1)}

    def loss(shift, weight):
        elbo = LocalELBO(Shifted(shift), kl_weight=weight)
        return elbo.differentiable_loss(program.model, program.guide, data, data)

    torch.testing.assert_close(loss(0.0, 1.0), loss(0.0, 5.0), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        loss(0.2, 2.0) - loss(0.0, 2.0), torch.tensor(2.0 * B * 3 * 0.04 / 0.5), rtol=1e-9, atol=0
    )


def test_evaluation_without_gradients_adapts_too():
    vae, query, support = local_vae(5.0), images(B), images(B, K)
    with_gradients = seeded_loss(LocalELBO(OneStepMAP()), vae, query, support)
    with torch.no_grad():
        without = seeded_loss(LocalELBO(OneStepMAP()), vae, query, support)
        posterior = LocalELBO(OneStepMAP()).local_posterior(vae.model, vae.guide, support)
    assert with_gradients.requires_grad
    assert not without.requires_grad
    assert not posterior["theta_N"].mean.requires_grad
    torch.testing.assert_close(without, with_gradients.detach(), rtol=0, atol=0)


def test_frozen_meta_parameters_still_adapt():
    vae, query, support = local_vae(5.0), images(B), images(B, K)
    expected = seeded_loss(LocalELBO(OneStepMAP()), vae, query, support)
    vae.requires_grad_(False)
    torch.testing.assert_close(seeded_loss(LocalELBO(OneStepMAP()), vae, query, support), expected, rtol=0, atol=0)


def test_it_is_an_ordinary_pyro_elbo():
    vae, query, support = local_vae(5.0), images(B), images(B, K)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), LocalELBO(OneStepMAP()))
    losses = [svi.step(query, support) for _ in range(30)]
    assert losses[-1] < losses[0] - 1
    assert svi.evaluate_loss(query, support) < losses[0]
    elbo = LocalELBO(OneStepMAP())
    model_trace, guide_trace = next(elbo._get_traces(vae.model, vae.guide, (query, support), {}))
    assert model_trace.nodes["x"]["value"].shape == (B, 1, *SHAPE)
    assert (guide_trace.nodes["phi_N"]["value"] - vae.phi).norm() > 0


def test_two_programs_in_one_process_are_both_trained():
    """Pyro's store keeps parameters by name; ours have names of their own."""
    query, support = images(B), images(B, K)
    elbo = LocalELBO(OneStepMAP())
    for _ in range(2):
        vae = local_vae()
        before = vae.theta.clone()
        SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), elbo).step(query, support)
        assert (vae.theta - before).norm() > 0


def test_deterministic_sites_are_not_in_the_way():
    def model(x):
        pyro.deterministic("constant", torch.ones(()))
        with pyro.plate("n", 2, dim=-2):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            with pyro.plate("k", 3, dim=-1):
                pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        pyro.deterministic("other", torch.ones(()))

    x = torch.zeros(2, 3)
    expected = -6 * dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0)).item()
    assert LocalELBO(OneStepMAP(), sites=["w"]).loss(model, guide, x, x) == pytest.approx(expected)
