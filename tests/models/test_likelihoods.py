from pkgutil import resolve_name

import pytest
import torch

from hierarchical_lvae.models import LIKELIHOODS
from hierarchical_lvae.models.likelihoods import Gaussian

every_likelihood = pytest.mark.parametrize("name", LIKELIHOODS)


def likelihood_of(name):
    return resolve_name(LIKELIHOODS[name])()


@every_likelihood
def test_noise_around_an_image_has_it_as_its_mean(name, double):
    x = torch.linspace(0.1, 0.9, 9).view(1, 1, 1, 9)
    noise = likelihood_of(name).around(x)
    torch.testing.assert_close(noise.mean, x, rtol=0, atol=1 / 510 + 1e-9)
    draws = noise.sample((20_000,))
    assert ((draws.mean(0) - noise.mean).abs() < 5 * draws.std(0) / 20_000**0.5).all()


@every_likelihood
def test_extreme_pixels_are_finite(name):
    x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    likelihood = likelihood_of(name)
    assert likelihood.around(x).sample((100,)).isfinite().all()
    torch.testing.assert_close(likelihood.around(x).mean, x, rtol=0, atol=1 / 510 + 1e-6)
    output = torch.tensor([-40.0, 40.0]).view(1, 1, 1, 2).requires_grad_()
    log_prob = likelihood(output).log_prob(x).sum()
    assert log_prob.isfinite()
    assert torch.autograd.grad(log_prob, output)[0].isfinite().all()


def test_bernoulli_is_the_cross_entropy_of_grey_pixels(double):
    output, x = torch.randn(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    expected = x * torch.sigmoid(output).log() + (1 - x) * torch.sigmoid(-output).log()
    torch.testing.assert_close(likelihood_of("bernoulli")(output).log_prob(x), expected)


def test_continuous_bernoulli_integrates_to_one(double):
    likelihood = likelihood_of("continuous-bernoulli")
    x = torch.linspace(0, 1, 10_001)
    for logit in (-8.0, -0.01, 0.0, 0.5, 8.0):
        density = likelihood(torch.tensor(logit)).log_prob(x).exp()
        assert torch.trapezoid(density, x).item() == pytest.approx(1.0, abs=1e-4)


def test_gaussian_scale_is_learnt_only_when_asked():
    assert dict(Gaussian().named_parameters()) == {}
    assert Gaussian(0.3, learned=True).log_scale.exp().item() == pytest.approx(0.3)
    with pytest.raises(ValueError, match="scale is 0"):
        Gaussian(0.0)
