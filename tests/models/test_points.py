"""The Local VAE of points: its bound is the Gaussian's, and the local step does what it is for."""

import math

import pytest
import torch

from hierarchical_lvae.inference import LocalELBO, OneStepMAP, Shared
from hierarchical_lvae.inference.bound import negative_elbo
from hierarchical_lvae.models import PointVAE

SITES = {"theta_N", "phi_N"}


def test_the_bound_is_equation_10_over_twice_the_variance_and_a_kl(double):
    program = PointVAE(size=3, inputs=6, sigma=0.3)
    y, x = torch.randn(2, 5, 6), torch.randn(2, 5, 3)
    torch.manual_seed(1)
    loss = negative_elbo(program.model, program.guide, (y, x), SITES).loss
    torch.manual_seed(1)
    q = program.encode(y, program.phi.view(1, 1, -1))
    z = q.mean + q.stddev * torch.randn(2, 5, 2)
    squares = (x - program.decoder(z, program.theta.view(1, 1, -1))).square().sum((1, 2))
    kl = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum((1, 2))
    expected = squares / (2 * 0.3**2) + 15 * math.log(0.3 * math.sqrt(2 * math.pi)) + kl
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)


def test_tau_is_alpha_over_the_numbers_of_a_neighbourhood():
    assert PointVAE(alpha=0.6, num_neighbours=10, size=3).tau ** 2 == pytest.approx(0.02)


def test_a_trained_local_step_finds_out_where_a_neighbourhood_is():
    """Clusters anywhere in space, alike but for their place: one code cannot say where, the neighbours do."""
    program = PointVAE(alpha=0.005, num_neighbours=5, latent_dim=1, width=32, sigma=0.3)
    local = LocalELBO(OneStepMAP())
    optimizer = torch.optim.Adam(program.parameters(), lr=3e-3)

    def draw(number):
        points = torch.randn(number, 1, 3) + 0.1 * torch.randn(number, 6, 3)
        query, support = points[:, :1], points[:, 1:]
        return (query, query), (support, support)

    for _ in range(100):
        optimizer.zero_grad()
        local.loss_and_grads(program.model, program.guide, *draw(25))
        optimizer.step()
    query, support = draw(200)
    losses = [LocalELBO(kind).loss(program.model, program.guide, query, support) for kind in (Shared(), OneStepMAP())]
    assert losses[1] < 0.5 * losses[0]
