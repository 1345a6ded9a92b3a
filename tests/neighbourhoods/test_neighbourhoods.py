"""What every entry of `NEIGHBOURHOODS` must do."""

import pytest
import torch
from pyro.distributions import Bernoulli, Normal

from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS, build_neighbourhood

every_neighbourhood = pytest.mark.parametrize("name", NEIGHBOURHOODS)


@every_neighbourhood
@pytest.mark.parametrize(("batch", "num_neighbours"), [(1, 1), (4, 3)])
def test_k_distinct_neighbours_of_the_right_kind(name, batch, num_neighbours, double):
    x = torch.rand(batch, 3, 8, 8)
    x_N = build_neighbourhood(name, num_neighbours, Bernoulli)(torch.arange(batch), x)
    assert x_N.shape == (batch, num_neighbours, 3, 8, 8)
    assert x_N.dtype == x.dtype
    assert 0 <= x_N.min() <= x_N.max() <= 1
    for points in x_N:
        assert len(points.flatten(1).unique(dim=0)) == num_neighbours


@every_neighbourhood
def test_the_same_seed_draws_the_same(name):
    x, index = torch.rand(4, 3, 8, 8), torch.arange(4)
    neighbourhood = build_neighbourhood(name, 3, Bernoulli)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(neighbourhood(index, x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_noise_is_around_each_image():
    x = torch.rand(2, 3, 8, 8)
    x_N = build_neighbourhood("noise", 4000, lambda mean: Normal(mean, 0.1))(torch.arange(2), x)
    torch.testing.assert_close(x_N.mean(1), x, rtol=0, atol=5 * 0.1 / 4000**0.5)
    torch.testing.assert_close(x_N.std(1), torch.full_like(x, 0.1), rtol=0.1, atol=0)


def test_no_neighbours_are_refused():
    with pytest.raises(ValueError, match="K is 0"):
        build_neighbourhood("noise", 0, Bernoulli)
