"""The posterior of a local head: Laplace per channel against the dense matrix, importance sampling and NUTS."""

import pyro.distributions as dist
import pytest
import torch
from pyro.poutine import block, condition

from hierarchical_lvae.evaluation import pareto_k
from hierarchical_lvae.inference import (
    ByChannel,
    Dense,
    ExactMAP,
    Laplace,
    LocalELBO,
    OneStepMAP,
    estimate_evidence,
    reestimate,
)
from hierarchical_lvae.inference.laplace import LARGEST_MATRIX
from hierarchical_lvae.inference.nuts import nuts
from hierarchical_lvae.models import LocalVAE

MODE = ExactMAP(1e-9)
pytestmark = pytest.mark.usefixtures("double")


def given_codes(alpha, channels=3):
    """A local head, one image, and its two programs given the code: a logistic regression per channel."""
    torch.manual_seed(1)
    vae = LocalVAE(alpha, 1, (channels, 8, 8), 2, local_layers="head", activation="softplus")
    x, z = torch.rand(1, 1, channels, 8, 8).bernoulli(), torch.randn(1, 1, 2)
    return vae, x, z, condition(vae.model, {"z": z}), block(vae.guide, hide=["z"])


def found(local, model, guide, x):
    return LocalELBO(local).local_posterior(model, guide, x)["theta_N"]


def test_each_channel_is_the_dense_gaussian_of_its_weights():
    vae, x, z, model, guide = given_codes(alpha=20.0)
    assert vae.decoder.layout.size > LARGEST_MATRIX  # the dense matrix of all channels would be too large
    q, draw = found(Laplace(MODE, ByChannel()), model, guide, x), torch.randn(1, 1, vae.decoder.layout.size) * 0.1
    close = {"rtol": 1e-8, "atol": 1e-8}
    log_q, evidence, effective = 0.0, 0.0, 0.0
    whole = estimate_evidence(LocalELBO(Laplace(MODE, ByChannel())), model, guide, x)
    for patterns in vae.decoder.layout.channels():
        local = Laplace(MODE, Dense(), patterns)
        one = found(local, model, guide, x)
        torch.testing.assert_close(q.mean[..., one.positions], one.block.mean, **close)
        torch.testing.assert_close(q.variance[..., one.positions], one.block.variance, **close)
        log_q = log_q + one.log_prob(draw)
        part = estimate_evidence(LocalELBO(local), model, guide, x)
        evidence, effective = evidence + part.log_evidence, effective + part.effective_parameters
    torch.testing.assert_close(q.log_prob(draw), log_q, **close)
    torch.testing.assert_close(whole.effective_parameters, effective, **close)
    # each part counts ℓ_N, which the whole counts once
    log_p = vae.decode(z, q.mean).log_prob(x).sum()
    log_z = dist.Normal(0.0, 1.0).log_prob(z).sum()
    torch.testing.assert_close(whole.log_evidence, evidence - 2 * (log_p + log_z), **close)


def test_reestimation_uses_the_exact_curvature():
    """The factor of MacKay's rule, √(displacement / effective parameters), from the exact Gaussian."""
    _, x, _, model, guide = given_codes(alpha=5.0)
    elbo = LocalELBO(Laplace(MODE, ByChannel()))
    exact = estimate_evidence(elbo, model, guide, x)
    factor = (exact.displacement / exact.effective_parameters).sqrt().item()
    assert 0.5 < factor < 2
    assert reestimate(elbo, model, guide, x) == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize(
    ("layers", "patterns", "why"),
    [
        ("decoder", None, "only if all local weights are those of the last layer: for the Local VAE"),
        ("head", "*.bias", r"takes no `block`: use Dense\(\) for a block"),
        ("decoder.5.bias", None, "the last layer has no weight, only 5.bias"),
        ("decoder.2.*", None, r"these groups of parameters interact: .* use Dense\(\)"),
    ],
)
def test_what_has_no_block_per_channel_is_refused(layers, patterns, why):
    vae = LocalVAE(1.0, 1, (1, 8, 8), 2, local_layers=layers)
    local = Laplace(OneStepMAP(), ByChannel(), patterns)
    with pytest.raises(ValueError, match=why):
        found(local, vae.model, vae.guide, torch.rand(2, 1, 1, 8, 8))


def test_curvature_between_groups_is_not_dropped(monkeypatch):
    vae, x, _, model, guide = given_codes(alpha=1.0)
    name = next(iter(vae.decoder.layout.shapes))
    monkeypatch.setattr(type(vae.decoder.layout), "channels", lambda self: [(f"{name}[{i},:]",) for i in range(2)])
    with pytest.raises(ValueError, match=r"these groups of parameters interact: .* use Dense\(\)"):
        found(Laplace(MODE, ByChannel()), model, guide, x)


def test_laplace_at_the_mode_is_what_nuts_draws_and_at_the_one_step_it_is_not():
    """Seventeen weights: predicted pixel means and their spread, in standard errors, and k̂."""
    vae, x, z, model, guide = given_codes(alpha=20.0, channels=1)
    patterns = (f"{next(iter(vae.decoder.layout.shapes))}[3,0]", "*.bias")
    exact = found(Laplace(MODE, Dense(), patterns), model, guide, x)
    positions, centre = exact.positions, exact.point
    drawn = nuts(model, guide, x, centre={"theta_N": centre}, positions=positions, num_samples=150, warmup_steps=60)

    def decode(weights):
        whole = centre.expand(len(weights), 1, -1).index_copy(-1, positions, weights.unsqueeze(1))
        return vae.decode(z.expand(len(weights), -1, -1), whole)

    def k_hat(q):
        weights = q.sample((2_000,)).flatten(1)
        prior = dist.Normal(vae.theta[positions], vae.tau).log_prob(weights).sum(-1)
        joint = decode(weights).log_prob(x.expand(len(weights), *x.shape[1:])).flatten(1).sum(1) + prior
        return pareto_k((joint - q.log_prob(weights.view(-1, 1, 1, len(positions))).flatten()).detach())

    with torch.no_grad():
        truth, ours = (decode(w).mean.flatten(1) for w in (drawn["theta_N"].flatten(0, 1),
                                                           exact.block.sample((4_000,)).flatten(1)))  # fmt: skip
        assert k_hat(exact.block) < 0.5
        far = Laplace(OneStepMAP(), Dense(), patterns)
        assert k_hat(found(far, model, guide, x).block) > 0.7
    spread = truth.std(0)
    assert spread.min() > 1e-3
    assert (
        (truth.mean(0) - ours.mean(0)).abs() < 5 * spread / 100**0.5
    ).all()  # of 300 draws, at least 100 effective ones
    assert ((ours.std(0) / spread - 1).abs() < 5 / (2 * 100) ** 0.5).all()
