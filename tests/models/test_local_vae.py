"""The Local VAE as a Pyro program: its sites, and Pyro's own tools on it."""

import math
from contextlib import nullcontext

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO

from hierarchical_lvae.models import LIKELIHOODS, LocalVAE

B, K, SHAPE = 3, 2, (1, 8, 8)


@pytest.fixture
def vae():
    return LocalVAE(1.0, K, SHAPE, latent_dim=4)


def test_sites_and_shapes(vae):
    x = torch.rand(B, K, *SHAPE)
    model = poutine.trace(vae.model).get_trace(x)
    guide = poutine.trace(vae.guide).get_trace(x)
    for trace in (model, guide):
        trace.compute_log_prob()
    assert model.nodes["theta_N"]["value"].shape == (B, 1, vae.theta.numel())
    assert model.nodes["z"]["value"].shape == (B, K, 4)
    assert model.nodes["x"]["value"].shape == (B, K, *SHAPE)
    assert model.nodes["x"]["log_prob"].shape == (B, K)
    assert guide.nodes["phi_N"]["value"].shape == (B, 1, vae.phi.numel())
    assert guide.nodes["phi_N"]["infer"]["is_auxiliary"]
    assert guide.nodes["z"]["value"].shape == (B, K, 4)
    parameters = {n.split(".")[1] for n, s in guide.nodes.items() if s["type"] == "param"}
    assert parameters == {"theta", "phi"}
    assert set(vae.state_dict()) == {"theta", "phi", "tau"}


def test_alpha_is_the_prior_variance():
    vae = LocalVAE(0.3, 7, (3, 16, 16))
    prior = poutine.trace(vae.model).get_trace(torch.rand(1, 3, 16, 16)).nodes["theta_N"]["fn"].base_dist
    assert prior.scale.unique().item() == pytest.approx(math.sqrt(0.3 / (7 * 3 * 16 * 16)))
    assert torch.equal(prior.loc[0, 0], vae.theta)


def test_a_query_is_a_neighbourhood_of_one_point(vae):
    x = torch.rand(B, *SHAPE)
    assert torch.equal(poutine.trace(vae.model).get_trace(x).nodes["x"]["value"], x.unsqueeze(1))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_pyros_own_bounds_work_on_the_pair(alpha, elbo, likelihood):
    vae = LocalVAE(alpha, K, SHAPE, latent_dim=4, likelihood=likelihood)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), elbo())
    x = torch.rand(B, K, *SHAPE)
    before = vae.theta.clone()
    assert all(math.isfinite(svi.step(x)) for _ in range(3))
    assert (vae.theta - before).norm() > 0


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_generates(vae, parallel):
    draws = Predictive(poutine.uncondition(vae.model), num_samples=5, parallel=parallel)(torch.rand(B, K, *SHAPE))
    assert draws["x"].shape == (5, B, K, *SHAPE)
    assert set(draws["x"].unique().tolist()) <= {0.0, 1.0}
    assert draws["theta_N"].shape == (5, B, 1, vae.theta.numel())


def test_a_small_prior_still_draws_images_like_the_meta_decoders():
    vae = LocalVAE(1.0, 10)
    z = torch.randn(1, 4, 10)
    with torch.no_grad():
        meta = vae.decode(z, vae.theta.view(1, 1, -1)).mean
        drawn = vae.decode(z, vae.theta.view(1, 1, -1) + vae.tau * torch.randn(1, 1, vae.theta.numel())).mean
    assert 0 < (drawn - meta).abs().mean() < 0.05


@pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf])
def test_impossible_alphas_are_refused(alpha):
    with pytest.raises(ValueError, match="must be finite and not negative"):
        LocalVAE(alpha)


def test_impossible_sizes_are_refused(vae):
    with pytest.raises(ValueError, match="must be at least 1"):
        LocalVAE(num_neighbours=0)
    with pytest.raises(ValueError, match=r"images have shape \(3, 2, 1, 9, 8\)"):
        vae.model(torch.rand(B, K, 1, 9, 8))
    with pytest.raises(ValueError, match="no likelihood is called 'bernouli': did you mean 'bernoulli'"):
        LocalVAE(likelihood="bernouli")
    with pytest.raises(ValueError, match=r"no likelihood is called .*Bernoulli.*: did you mean .bernoulli."):
        LocalVAE(1.0, 2, (1, 8, 8), likelihood=LocalVAE(1.0, 2, (1, 8, 8)).likelihood)
    with pytest.raises(ValueError, match="no activation is called"):
        LocalVAE(activation="reul")
    with pytest.raises(ValueError, match=r"images have shape \(8, 8\)"):
        vae.guide(torch.rand(8, 8))
    with pytest.raises(ValueError, match=r"image_shape is \(8, 8\): give \(C, H, W\)"):
        LocalVAE(image_shape=(8, 8))


@pytest.mark.parametrize("validated", [True, False])
def test_pixels_are_checked_if_pyro_validates(vae, validated):
    wrong = torch.rand(B, K, 1, 8, 8) * 2 - 1
    refused = pytest.raises(ValueError, match=r"x has pixels from -\S+ to \S+, but they must be in \[0, 1\]: rescale x")
    with pyro.validation_enabled(validated), refused if validated else nullcontext():
        vae.guide(wrong)
    gaussian = LocalVAE(image_shape=(1, 8, 8), likelihood="gaussian")
    pyro.poutine.trace(gaussian.model).get_trace(wrong).compute_log_prob()


@pytest.mark.parametrize("images", [torch.rand(B, K, 1, 8, 8).double(), torch.ones(B, K, 1, 8, 8, dtype=torch.uint8)])
def test_images_and_codes_have_the_type_of_the_weights(vae, images):
    with pytest.raises(ValueError, match=rf"images are {images.dtype} but the weights are torch.float32: convert"):
        vae.guide(images)
    with pytest.raises(ValueError, match=r"codes are torch.float64 but the weights are torch.float32: convert"):
        vae.decode(torch.randn(1, 2, 3).double(), vae.theta.view(1, 1, -1))
