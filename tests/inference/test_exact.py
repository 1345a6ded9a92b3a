"""The exact mode: against scikit-learn, against many steps, and its meta-gradient against central differences."""

from collections import Counter

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.poutine import block, condition
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from hierarchical_lvae.inference import ExactMAP, LocalELBO, MultiStepMAP, OneStepMAP, exact
from hierarchical_lvae.inference.curvature import ggn_product
from hierarchical_lvae.inference.elbo import SupportLoss
from hierarchical_lvae.inference.linear import LinearLoss
from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.models.layers import UpConv
from hierarchical_lvae.models.linear_regression import LocalLinearRegression
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.runs.directory import read_state
from hierarchical_lvae.runs.pretrained import PLACE
from hierarchical_lvae.training import fit
from hierarchical_lvae.types import Diverged, random_state_kept

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

    implicit = gradient(ExactMAP(1e-10))
    many = gradient(SameCodes(MultiStepMAP(120, float(vae.tau) ** 2 / 6)))
    for name, parameter in vae.named_parameters():
        torch.testing.assert_close(implicit[name], many[name], rtol=1e-6, atol=1e-6 * implicit[name].abs().max().item())
        direction = torch.randn_like(parameter)
        direction /= direction.norm()
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-4 * direction)
                ends.append(loss(ExactMAP(1e-10)).item())
                parameter.sub_(sign * 1e-4 * direction)
        assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(
            (implicit[name] * direction).sum().item(), rel=1e-6, abs=1e-6
        )


@pytest.mark.parametrize("alpha", [1e-7, 1e-4, 0.2, 10.0])
def test_it_ends_in_single_precision(alpha):
    """With trained weights, at any prior variance: where rounding is the limit, the mode is as good as it can be."""
    trained = load_file(PLACE / "3dshapes-local/model.safetensors")
    vae = LocalVAE(alpha, 1, (3, 32, 32), local_layers="head")
    theta = vae.decoder.whole.split(trained["theta"])
    with torch.no_grad():
        vae.theta.copy_(torch.cat([theta[name].flatten() for name in vae.decoder.layout.shapes]))
        vae.theta_shared.copy_(torch.cat([theta[name].flatten() for name in vae.decoder.shared.shapes]))
        vae.phi.copy_(trained["phi"])
    support = torch.rand(4, 1, 3, 4, 4).repeat_interleave(8, -1).repeat_interleave(8, -2).bernoulli()
    usual, best = (mode(vae, support, ExactMAP(tolerance)) for tolerance in (1e-3, 1e-12))
    assert (usual - best).norm() < 1e-3 * (best - vae.theta).norm() + 1e-6 * vae.theta.norm()


@pytest.mark.parametrize("alpha", [1.0, 100.0])
def test_the_network_is_evaluated_at_the_start_and_at_the_mode_only(alpha, monkeypatch):
    """However many Newton steps lead there; the query adds one evaluation to the outer loss."""
    vae, support = head(alpha)
    passes, steps, slope = Counter(), [], exact._gradient

    def count(name):
        forward = getattr(LocalVAE, name)

        def counted(self, *args):
            passes[name] += 1
            return forward(self, *args)

        monkeypatch.setattr(LocalVAE, name, counted)

    count("encode")
    count("decode")
    monkeypatch.setattr(exact, "_gradient", lambda *args, **more: steps.append(1) or slope(*args, **more))
    mode(vae, support, ExactMAP(1e-8))
    assert passes == {"encode": 2, "decode": 2}
    assert len(steps) > 4
    LocalELBO(ExactMAP(1e-8)).differentiable_loss(vae.model, vae.guide, support[:, 0], support).backward()
    assert passes == {"encode": 5, "decode": 5}


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian-learned", "continuous-bernoulli"])
@pytest.mark.parametrize("particles", [1, 2])
def test_without_the_network_the_loss_is_the_same(likelihood, particles):
    """Its value, gradient and curvature away from where the network was evaluated."""
    vae, support = head(likelihood=likelihood)
    program = SupportLoss(LocalELBO(ExactMAP(), num_particles=particles), vae.model, vae.guide, support, True)
    elsewhere = (vae.theta + torch.randn(B, 1, vae.theta.numel()).double()).detach().requires_grad_()
    with random_state_kept():
        linear = LinearLoss(program(), "theta_N")
    expected, found = program({"theta_N": elsewhere}), linear({"theta_N": elsewhere})
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(found.loss, expected.loss, **close)
    slopes = [torch.autograd.grad(at.loss.sum(), elsewhere, retain_graph=True)[0] for at in (found, expected)]
    torch.testing.assert_close(*slopes, **close)
    v = torch.randn_like(elsewhere)
    product = ggn_product(expected, "theta_N")(v)
    torch.testing.assert_close(linear.curvature(found)(v), product, **close)
    torch.testing.assert_close(ggn_product(found, "theta_N")(v), product, **close)
    assert linear().loss.equal(linear({"theta_N": vae.theta.detach().expand(B, 1, -1)}).loss)


def regression(weight=3.0, seen=(True, True, False, True, True), prior_depends=False):
    """A regression with weighted, masked points and a code; the prior of the code may depend on θ_N."""
    theta = torch.randn(4).double().requires_grad_()

    def model(data):
        inputs, outputs = data
        with pyro.plate("neighbourhood", B, dim=-2):
            theta_N = pyro.sample("theta_N", dist.Normal(theta, 0.7).to_event(1))
            with pyro.plate("point", 5, dim=-1), pyro.poutine.scale(scale=weight):
                mean = theta_N.sum(-1) if prior_depends else torch.zeros(B, 1).double()
                z = pyro.sample("z", dist.Normal(mean, 1.0))
                with pyro.poutine.mask(mask=torch.tensor(seen)):
                    pyro.sample("y", dist.Normal((inputs * theta_N).sum(-1) + z.detach(), 0.3), obs=outputs)

    def guide(data):
        with pyro.plate("neighbourhood", B, dim=-2), pyro.plate("point", 5, dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(B, 5).double(), 0.1))

    return model, guide, (torch.randn(B, 5, 4).double(), torch.randn(B, 5).double())


def test_weights_and_masks_of_points_are_those_of_the_program():
    torch.manual_seed(0)
    model, guide, data = regression()
    program = SupportLoss(LocalELBO(ExactMAP()), model, guide, data, False)
    value = {"theta_N": torch.randn(B, 1, 4).double()}
    with random_state_kept():
        linear = LinearLoss(program(), "theta_N")
    torch.testing.assert_close(linear(value).loss, program(value).loss, rtol=1e-12, atol=1e-12)


def test_only_the_likelihood_may_depend_on_the_weights():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"but other terms of the loss change by .* nats: choose another"):
        LocalELBO(ExactMAP()).local_posterior(*regression(prior_depends=True))


def test_neighbourhoods_that_reach_their_mode_at_different_steps_do_not_interact():
    """Given the codes; a grey image is at its mode sooner than a black and white one."""
    vae, support = head()
    support[0] = 0.5
    z = torch.randn(B, K, 3).double()

    def given(z, x):
        programs = condition(vae.model, {"z": z}), block(vae.guide, hide=["z"])
        return LocalELBO(ExactMAP(1e-10)).local_posterior(*programs, x)["theta_N"].mean

    together = given(z, support)
    for g in range(B):
        torch.testing.assert_close(together[g], given(z[g : g + 1], support[g : g + 1])[0], rtol=1e-9, atol=1e-9)


def test_what_is_not_finite_is_left_to_the_caller():
    vae, support = head()
    support[0, 0, 0, 0, 0] = torch.nan
    with pyro.validation_enabled(False):
        found = mode(vae, support, ExactMAP())
    assert found[0].isnan().any()
    assert found[1].isfinite().all()


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
        ("decoder", "linear in the local weights, but this one deviates from a line by"),
    ):
        vae, support = head(local_layers=layers)
        with pytest.raises(ValueError, match=message):
            mode(vae, support, ExactMAP())
    vae, support = head(0.0)
    with pytest.raises(ValueError, match="the program has none: for the Local VAE give an `alpha` above 0"):
        mode(vae, support, ExactMAP())
    vae, support = head(100.0)
    with pytest.raises(
        torch.linalg.LinAlgError, match=r"no mode within 1 Newton steps. ‖τ∇F‖ is .*: give more `max_steps`"
    ):
        mode(vae, support, ExactMAP(1e-9, max_steps=1))
    for wrong in ({"tolerance": 0.0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=" is 0"):
            ExactMAP(**wrong)


def test_a_fit_without_a_mode_has_diverged(tmp_path, monkeypatch):
    """It ends with its last checkpoint, and names the cause."""
    monkeypatch.setattr(ExactMAP, "max_steps", 1)
    monkeypatch.setattr(ExactMAP, "__init__", lambda self: object.__setattr__(self, "max_steps", 1))
    options = {"dataset": "digits", "batch": 2, "num_neighbours": 2, "latent_dim": 3, "steps": 5, "alpha": 100.0}
    with pytest.raises(Diverged, match="the local inference, although every site is finite; no mode within 1 Newton"):
        fit(FitOptions.of("quick", local="exact", local_layers="head", **options), tmp_path / "run")
    assert read_state(tmp_path / "run").status == "diverged"
