"""NUTS against closed forms, in standard errors."""

import pytest
import torch

from hierarchical_lvae.inference import LocalELBO, OneStepMAP
from hierarchical_lvae.inference.nuts import nuts
from hierarchical_lvae.models import LocalLinearRegression, LocalVAE

pytestmark = pytest.mark.usefixtures("double")
K, P, TAU, SIGMA = 6, 3, 0.4, 0.9


@pytest.fixture
def program():
    return LocalLinearRegression(torch.randn(P), TAU, SIGMA)


@pytest.fixture
def data():
    return torch.randn(1, K, P), torch.randn(1, K)


def close(draws, mean, sd):
    """Means and standard deviations of (chains, draws, p), within five standard errors of 100 effective draws."""
    flat = draws.flatten(0, 1)
    assert ((flat.mean(0) - mean).abs() < 5 * sd / 10).all()
    assert ((flat.std(0) / sd - 1).abs() < 5 / (2 * 100) ** 0.5).all()


def test_draws_are_of_the_posterior(program, data):
    draws = nuts(program.model, program.guide, data, num_samples=200, warmup_steps=100)["theta_N"]
    assert draws.shape == (2, 200, P)
    truth = program.posterior(data)
    close(draws, truth.mean[0].detach(), truth.variance[0].sqrt())
    pooled = draws.flatten(0, 1)
    correlation = torch.corrcoef(pooled.T)
    sd = truth.variance[0].sqrt()
    assert (correlation - truth.covariance_matrix[0] / sd.outer(sd)).abs().max() < 5 / 10
    assert not torch.equal(draws[0], draws[1])


def test_draws_of_a_block_are_given_the_rest(program, data):
    centre = torch.randn(1, 1, P)
    positions = torch.tensor([0, 2])
    args = {"num_samples": 300, "warmup_steps": 100, "num_chains": 1}
    draws = nuts(program.model, program.guide, data, centre={"theta_N": centre}, positions=positions, **args)["theta_N"]
    precision = torch.eye(P) / TAU**2 + program.curvature(data)[0]
    mean = program.posterior(data).mean[0].detach()
    inside = precision[positions][:, positions]
    pull = precision[positions, 1] * (centre[0, 0, 1] - mean[1])
    close(draws, mean[positions] - torch.linalg.solve(inside, pull), torch.linalg.inv(inside).diagonal().sqrt())


def test_codes_are_drawn_with_the_weights_and_the_random_state_is_kept():
    vae = LocalVAE(0.1, 2, (1, 8, 8), 2)
    support = torch.rand(1, 2, 1, 8, 8).bernoulli()
    posterior = LocalELBO(OneStepMAP()).local_posterior(vae.model, vae.guide, support)
    centre = {name: q.mean.detach() for name, q in posterior.items()}
    positions = vae.decoder.layout.positions("5.bias")
    state = torch.get_rng_state()
    args = {"centre": centre, "positions": positions, "num_samples": 5, "warmup_steps": 5}
    with torch.no_grad():
        first, again = (nuts(vae.model, vae.guide, support, seed=4, **args) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first["theta_N"].shape == (2, 5, 1)
    assert first["z"].shape == (2, 5, 1, 2, 2)
    assert torch.equal(first["theta_N"], again["theta_N"])
    assert torch.equal(first["z"], again["z"])


def test_refusals_name_the_remedy(program, data):
    vae = LocalVAE(0.1, 2, (1, 8, 8), 2)
    with pytest.raises(ValueError, match=r"NUTS would sample 264,965 dimensions .* pass fewer `positions`"):
        nuts(vae.model, vae.guide, torch.rand(1, 2, 1, 8, 8))
    plain = LocalVAE(0.0, 2, (1, 8, 8), 2)
    with pytest.raises(ValueError, match="'theta_N' is not a random local site of this program"):
        nuts(plain.model, plain.guide, torch.rand(1, 2, 1, 8, 8))
    with pytest.raises(ValueError, match="got 4 neighbourhoods: sample them one at a time"):
        nuts(program.model, program.guide, (torch.randn(4, K, P), torch.randn(4, K)))
