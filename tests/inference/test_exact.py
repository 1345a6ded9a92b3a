"""The exact mode: against scikit-learn, against many steps, and its meta-gradient against central differences."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hierarchical_lvae.inference import ExactMAP, LocalELBO, MultiStepMAP, OneStepMAP
from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.models.layers import UpConv
from hierarchical_lvae.models.linear_regression import LocalLinearRegression
from hierarchical_lvae.types import random_state_kept

SHAPE, K, B = (3, 8, 8), 2, 2


def head(alpha=5.0, likelihood="bernoulli", **more):
    torch.manual_seed(0)
    vae = LocalVAE(alpha, K, SHAPE, 3, likelihood, "softplus", **{"local_layers": "head", **more}).double()
    return vae, torch.rand(B, K, *SHAPE).double().round()


def mode(vae, support, local):
    torch.manual_seed(7)
    with torch.no_grad():
        return LocalELBO(local).local_posterior(vae.model, vae.guide, support)["theta_N"].mean


class SameCodes:
    """A local inference whose evaluations all draw the codes that its first one draws."""

    def __init__(self, local):
        self.local = local

    def __call__(self, local_loss):
        def again(values=None):
            with random_state_kept():
                return local_loss(values)

        again.differentiable = local_loss.differentiable
        found = self.local(again)
        local_loss()  # as if it had been one evaluation
        return found


def test_it_is_logistic_regression_on_the_features(monkeypatch):
    """Per colour channel, on the patches of the last map; scikit-learn's prior is around 0, and so ours is here."""
    vae, support = head()
    with torch.no_grad():
        vae.theta.zero_()
    maps, forward = [], UpConv.__call__

    def watched(self, x, weight, bias):
        maps.append(x.detach())
        return forward(self, x, weight, bias)

    monkeypatch.setattr(UpConv, "__call__", watched)
    found = vae.decoder.layout.split(mode(vae, support, ExactMAP(1e-8)))
    x = maps[0]  # (K, B, 64, 4, 4)
    weight, bias = vae.decoder.layout.shapes
    for g in range(B):
        columns = []
        for i in range(64 * 16):  # a column of the design matrix: the image of one weight of a channel
            kernel = torch.zeros(64 * 16, dtype=x.dtype).index_fill(0, torch.tensor(i), 1).view(64, 1, 4, 4)
            columns.append(torch.nn.functional.conv_transpose2d(x[:, g], kernel, stride=2, padding=1).flatten())
        design = torch.stack([*columns, torch.ones_like(columns[0])], 1).numpy()
        for channel in range(3):
            pixels = support[g, :, channel].flatten().numpy()
            model = LogisticRegression(C=float(vae.tau) ** 2, fit_intercept=False, tol=1e-12, max_iter=10_000)
            ours = np.append(found[weight][g, 0, :, channel].flatten(), found[bias][g, 0, channel])
            np.testing.assert_allclose(ours, model.fit(design, pixels).coef_[0], atol=1e-6)


def test_of_linear_regression_it_is_the_mean_of_the_posterior():
    torch.manual_seed(0)
    program = LocalLinearRegression(torch.randn(4).double(), tau=0.7, sigma=0.3)
    data = torch.randn(B, 5, 4).double(), torch.randn(B, 5).double()
    found = LocalELBO(ExactMAP(1e-9)).local_posterior(program.model, program.guide, data)["theta_N"].mean
    torch.testing.assert_close(found.squeeze(1), program.posterior(data).mean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("likelihood", "alpha"), [("bernoulli", 5.0), ("gaussian", 0.01), ("continuous-bernoulli", 10.0)]
)
def test_it_is_where_many_steps_end(likelihood, alpha):
    vae, support = head(alpha, likelihood)
    many = MultiStepMAP(120, float(vae.tau) ** 2 / 6)
    expected = mode(vae, support, SameCodes(many))
    torch.testing.assert_close(mode(vae, support, ExactMAP(1e-8)), expected, rtol=1e-6, atol=1e-7)
    one = mode(vae, support, OneStepMAP())
    assert (one - expected).norm() > 0.01 * (expected - vae.theta).norm()  # it had some way to go


def test_the_meta_gradient_is_that_of_central_differences():
    """Of the outer loss, in every kind of meta-parameter; and that of many unrolled steps, to their own precision."""
    vae, support = head()
    query = support[:, 0]

    def loss(local):
        torch.manual_seed(3)
        return LocalELBO(local).differentiable_loss(vae.model, vae.guide, query, support)

    def gradient(local):
        vae.zero_grad()
        loss(local).backward()
        return {name: parameter.grad.clone() for name, parameter in vae.named_parameters()}

    exact = gradient(ExactMAP(1e-10))
    many = gradient(SameCodes(MultiStepMAP(120, float(vae.tau) ** 2 / 6)))
    for name, parameter in vae.named_parameters():
        torch.testing.assert_close(exact[name], many[name], rtol=1e-6, atol=1e-6 * exact[name].abs().max().item())
        direction = torch.randn_like(parameter)
        direction /= direction.norm()
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-4 * direction)
                ends.append(loss(ExactMAP(1e-10)).item())
                parameter.sub_(sign * 1e-4 * direction)
        assert (ends[0] - ends[1]) / 2e-4 == pytest.approx((exact[name] * direction).sum().item(), rel=1e-6, abs=1e-6)


def test_it_leaves_the_random_state_as_one_evaluation_does():
    vae, support = head()
    mode(vae, support, ExactMAP())
    after = torch.get_rng_state()
    mode(vae, support, OneStepMAP())
    assert torch.equal(after, torch.get_rng_state())


def test_what_it_cannot_do_is_said():
    for layers, message in (
        ("all", "one local site, in the model, but the program has (phi_N, theta_N|theta_N, phi_N)"),
        ("encoder", "one local site, in the model, but the program has phi_N"),
        ("decoder", "linear in theta_N, and this one is not"),
    ):
        vae, support = head(local_layers=layers)
        with pytest.raises(ValueError, match=message):
            mode(vae, support, ExactMAP())
    vae, support = head(0.0)
    with pytest.raises(ValueError, match="the program has none: for the Local VAE give an `alpha` above 0"):
        mode(vae, support, ExactMAP())
    vae, support = head(100.0)
    with pytest.raises(ArithmeticError, match=r"no mode within 1 Newton steps: ‖τ∇F‖ is .*: give more `max_steps`"):
        mode(vae, support, ExactMAP(1e-9, max_steps=1))
    for wrong in ({"tolerance": 0.0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=" is 0"):
            ExactMAP(**wrong)
