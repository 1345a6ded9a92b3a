"""`mini.py` against the big code: the same weights and noise must give the same numbers."""

from functools import partial

import pytest
import torch

from hierarchical_lvae import mini
from hierarchical_lvae.inference import LocalELBO, OneStepMAP, Shared
from hierarchical_lvae.models import LIKELIHOODS, LocalVAE

pytestmark = pytest.mark.usefixtures("double")
B, K, D, SHAPE = 3, 2, 4, (3, 16, 16)


def flatten(weights):
    return torch.cat([w.flatten() for w in weights])


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0, 10.0])
def test_mini_and_local_elbo_agree(alpha):
    theta, phi = mini.initial_weights(SHAPE, D)
    vae = LocalVAE(alpha, K, SHAPE, D)
    vae.theta.data, vae.phi.data = flatten(theta).detach(), flatten(phi).detach()
    x, x_N = torch.rand(B, *SHAPE), torch.rand(B, K, *SHAPE)

    torch.manual_seed(1)
    noise_N = torch.randn(B, K, D) if alpha else torch.zeros(B, K, D)
    noise = torch.randn(B, 1, D).squeeze(1)
    expected = mini.meta_loss(theta, phi, x, x_N, noise, noise_N, alpha)
    expected.backward()

    torch.manual_seed(1)
    elbo = LocalELBO(OneStepMAP() if alpha else Shared())
    loss = elbo.loss_and_grads(vae.model, vae.guide, x, x_N)

    assert loss == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(vae.theta.grad, flatten([w.grad for w in theta]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(vae.phi.grad, flatten([w.grad for w in phi]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_agree_for_every_likelihood(likelihood, first_order, monkeypatch):
    """With the reconstruction of mini.py exchanged for that of the likelihood, of both orders."""
    alpha = 1e-3 if "gaussian" in likelihood else 1.0
    theta, phi = mini.initial_weights(SHAPE, D)
    vae = LocalVAE(alpha, K, SHAPE, D, likelihood)
    vae.theta.data, vae.phi.data = flatten(theta).detach(), flatten(phi).detach()
    x, x_N = torch.rand(B, *SHAPE), torch.rand(B, K, *SHAPE)
    if likelihood != "bernoulli":
        monkeypatch.setattr(mini, "reconstruction", lambda output, x: -vae.likelihood(output).log_prob(x).sum())
    monkeypatch.setattr(mini, "local_weights", partial(mini.local_weights, create_graph=not first_order))

    torch.manual_seed(1)
    noise_N, noise = torch.randn(B, K, D), torch.randn(B, 1, D).squeeze(1)
    mini.meta_loss(theta, phi, x, x_N, noise, noise_N, alpha).backward()
    torch.manual_seed(1)
    expected = [flatten([w.grad for w in weights]) for weights in (theta, phi)]
    vae.zero_grad()
    LocalELBO(OneStepMAP(first_order)).loss_and_grads(vae.model, vae.guide, x, x_N)
    for grad, slow in zip((vae.theta.grad, vae.phi.grad), expected, strict=True):
        assert (grad - slow).norm() / slow.norm() < 1e-9


def test_local_weights_agree():
    theta, phi = mini.initial_weights(SHAPE, D)
    vae = LocalVAE(1.0, K, SHAPE, D)
    vae.theta.data, vae.phi.data = flatten(theta).detach(), flatten(phi).detach()
    x_N = torch.rand(1, K, *SHAPE)
    torch.manual_seed(1)
    theta_N, phi_N = mini.local_weights(theta, phi, x_N[0], torch.randn(1, K, D)[0], alpha=1.0)
    torch.manual_seed(1)
    posterior = LocalELBO(OneStepMAP()).local_posterior(vae.model, vae.guide, x_N)
    torch.testing.assert_close(posterior["theta_N"].mean[0, 0], flatten(theta_N), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(posterior["phi_N"].mean[0, 0], flatten(phi_N), rtol=1e-12, atol=1e-12)
    assert (posterior["theta_N"].mean[0, 0] - vae.theta).norm() > 1e-3


def test_the_lesson_learns(capsys):
    theta, phi = mini.initial_weights((3, 16, 16), 4)
    x = mini.squares(64)
    assert x.shape == (64, 3, 16, 16)
    assert 0 <= x.min() < x.max() <= 1
    before = mini.negative_elbo(theta, phi, x, torch.randn(64, 4))
    torch.manual_seed(0)
    trained = mini.train(1.0, steps=100, B=2, K=2)
    assert mini.negative_elbo(*trained, x, torch.randn(64, 4)) < 0.97 * before
    assert "step 100" in capsys.readouterr().out
