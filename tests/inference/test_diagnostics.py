"""`diagnose`: the effect of the local step and its sharpness, against closed forms."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

from hierarchical_lvae.inference import LocalELBO, OneStepMAP, diagnose
from hierarchical_lvae.models import LocalLinearRegression, LocalVAE

pytestmark = pytest.mark.usefixtures("double")
B, K, SHAPE = 3, 2, (1, 8, 8)


def test_diagnosis_tells_loss_distance_and_sharpness():
    program = LocalLinearRegression(torch.randn(3), tau=0.3, sigma=0.9)
    data = torch.randn(B, K, 3), torch.randn(B, K)
    state = torch.get_rng_state()
    info = diagnose(LocalELBO(OneStepMAP()), program.model, program.guide, data, power_iterations=200)
    assert torch.equal(state, torch.get_rng_state())
    sharpness = 0.3**2 * torch.linalg.eigvalsh(program.curvature(data))[:, -1]
    torch.testing.assert_close(info.sharpness, sharpness, rtol=1e-6, atol=0)
    assert (info.loss_after < info.loss_before).all()
    posterior = LocalELBO(OneStepMAP()).local_posterior(program.model, program.guide, data)["theta_N"]
    torch.testing.assert_close(info.distance, (posterior.mean.detach().squeeze(1) - program.theta.detach()).norm(dim=1))


def test_sharpness_of_one_site_is_that_of_its_block():
    a, b, tau, sigma = torch.randn(B, K), torch.randn(B, K), 0.7, 0.9

    def model(x):
        with pyro.plate("n", B, dim=-2):
            u, v = (pyro.sample(name, dist.Normal(0.0, tau)) for name in "uv")
            with pyro.plate("k", K, dim=-1):
                pyro.sample("x", dist.Normal(a * u + b * v, sigma), obs=x)

    measure = partial(
        diagnose, LocalELBO(OneStepMAP(), sites=["u", "v"]), model, lambda x: None, torch.randn(B, K), 200
    )
    aa, ab, bb = (tau**2 * (p * q).sum(1) / sigma**2 for p, q in ((a, a), (a, b), (b, b)))
    torch.testing.assert_close(measure(sites=["u"]).sharpness, aa)
    torch.testing.assert_close(measure(sites=["v"]).sharpness, bb)
    joint = (aa + bb) / 2 + (((aa - bb) / 2) ** 2 + ab**2).sqrt()
    torch.testing.assert_close(measure().sharpness, joint)
    with pytest.raises(ValueError, match=r"^'w' is not a local site: choose from u, v$"):
        measure(sites=["w"])


@pytest.mark.parametrize("alpha", [0.0, 5.0])
def test_diagnosis_of_a_vae(alpha):
    vae = LocalVAE(alpha, K, SHAPE, latent_dim=3)
    info = diagnose(LocalELBO(OneStepMAP()), vae.model, vae.guide, torch.rand(B, K, *SHAPE))
    assert all(field.shape == (B,) for field in info)
    assert (info.loss_after < info.loss_before).all() if alpha else torch.equal(info.loss_after, info.loss_before)
    assert (info.distance > 0).all() == bool(alpha)
