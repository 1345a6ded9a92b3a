"""What every entry of `LOCAL_INFERENCE` must do, whatever its method."""

from pkgutil import resolve_name

import pyro.distributions as dist
import pytest
import torch

from hierarchical_lvae.inference import LOCAL_INFERENCE, LocalELBO, MultiStepMAP
from hierarchical_lvae.models import LocalLinearRegression, LocalVAE
from tests.layers import layers_for

B, K, SHAPE = 3, 2, (1, 8, 8)
every_local = pytest.mark.parametrize("name", LOCAL_INFERENCE)


def elbo_of(name):
    return LocalELBO(resolve_name(LOCAL_INFERENCE[name])())


@every_local
def test_posterior_has_the_shape_of_the_sites(name):
    vae = LocalVAE(1.0, K, SHAPE, 3, **layers_for(name))
    posterior = elbo_of(name).local_posterior(vae.model, vae.guide, torch.rand(B, K, *SHAPE))
    moved = {"shared": set(), "exact": {"theta_N"}, "laplace-exact": {"theta_N"}}
    assert set(posterior) == moved.get(name, {"theta_N", "phi_N"})
    for site, meta in (("theta_N", vae.theta), ("phi_N", vae.phi)):
        if site in posterior:
            assert posterior[site].batch_shape == (B, 1)
            assert posterior[site].event_shape == meta.shape
            assert posterior[site].has_rsample
            assert posterior[site].mean.shape == (B, 1, meta.numel())
    assert isinstance(posterior.get("phi_N", dist.Delta(torch.zeros(1))), dist.Delta)  # φ_N is a point


@every_local
def test_gradients_reach_all_meta_parameters(name):
    vae = LocalVAE(1.0, K, SHAPE, 3, **layers_for(name))
    elbo_of(name).loss_and_grads(vae.model, vae.guide, torch.rand(B, *SHAPE), torch.rand(B, K, *SHAPE))
    for parameter in vae.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.norm() > 0


@every_local
def test_nothing_moves_where_alpha_is_zero(name, double):
    vae = LocalVAE(0.0, K, SHAPE, 3)
    elbo, support = elbo_of(name), torch.rand(B, K, *SHAPE)
    if name.startswith("laplace") or name == "exact":
        with pytest.raises(ValueError, match=r"there are none: |has none: "):
            elbo.local_posterior(vae.model, vae.guide, support)
        return
    assert elbo.local_posterior(vae.model, vae.guide, support) == {}
    query = torch.rand(B, *SHAPE)
    losses = []
    for other in (elbo, elbo_of("shared")):
        torch.manual_seed(3)
        # the inner pass may draw codes: compare at equal outer noise by making the codes' noise irrelevant
        vae.phi.data[-3:] = -30.0
        losses.append(other.loss(vae.model, vae.guide, query, support))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@every_local
def test_all_meet_the_plain_vae_as_alpha_vanishes(name, double):
    query, support = torch.rand(B, *SHAPE), torch.rand(B, K, *SHAPE)
    torch.manual_seed(1)
    vae = LocalVAE(1e-9, K, SHAPE, 3, **layers_for(name))
    elbo_of(name).local_posterior(vae.model, vae.guide, support)
    vae.phi.data[-3:] = -30.0
    local = elbo_of(name).loss(vae.model, vae.guide, query, support)
    plain = elbo_of("shared").loss(vae.model, vae.guide, query, support)
    assert local == pytest.approx(plain, rel=1e-5)


@every_local
def test_any_number_of_neighbourhoods_and_points(name):
    vae = LocalVAE(1.0, K, SHAPE, 3, **layers_for(name))
    for batch, points in ((1, 1), (1, 4), (5, 1)):
        query, support = torch.rand(batch, *SHAPE), torch.rand(batch, points, *SHAPE)
        assert elbo_of(name).differentiable_loss(vae.model, vae.guide, query, support).isfinite()


@every_local
def test_it_knows_no_network(name):
    program = LocalLinearRegression(torch.randn(3), tau=0.1, sigma=1.0)
    data = torch.randn(B, 5, 3), 5 * torch.randn(B, 5)
    if name in ("laplace-last-layer", "laplace-exact"):
        with pytest.raises(ValueError, match=r"the program states no layout|of the last layer"):
            elbo_of(name).loss(program.model, program.guide, data, data)
        return
    local, shared = (elbo_of(n).loss(program.model, program.guide, data, data) for n in (name, "shared"))
    assert local < shared or name == "shared"  # adapting to the query itself helps, by more than a KL


@every_local
def test_the_dtype_is_the_programs(name, double):
    vae = LocalVAE(1.0, K, SHAPE, 3, **layers_for(name))
    posterior = elbo_of(name).local_posterior(vae.model, vae.guide, torch.rand(B, K, *SHAPE))
    assert all(q.mean.dtype == torch.float64 for q in posterior.values())


def test_multi_step_refuses_impossible_options():
    with pytest.raises(ValueError, match="num_steps is 0"):
        MultiStepMAP(num_steps=0)
    with pytest.raises(ValueError, match="step_size is -1"):
        MultiStepMAP(step_size=-1.0)
