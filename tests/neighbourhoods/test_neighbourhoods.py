"""What every entry of `NEIGHBOURHOODS` must do."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pyro.distributions import Normal
from scipy.sparse import save_npz
from sklearn.neighbors import kneighbors_graph

from hierarchical_lvae.models import LIKELIHOODS
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS, build_neighbourhood
from hierarchical_lvae.neighbourhoods.build import distinct
from hierarchical_lvae.runs.options import FitOptions
from hierarchical_lvae.types import lookup

FIXED = ("noise-mean", "input-knn", "latent-knn")
"""Whose neighbours are not drawn."""
OF_ITSELF = ("noise", "noise-mean")
"""Whose neighbours are made from the query, and not other points of the data."""
every_neighbourhood = pytest.mark.parametrize("name", NEIGHBOURHOODS)


@pytest.fixture
def build(surroundings, data, tmp_path):
    """Build a neighbourhood and prepare it; the graph is one of scikit-learn."""

    def make(name, num_neighbours=3, **changes):
        num_neighbours = 1 if name == "noise-mean" else num_neighbours
        if name == "graph":
            graph = kneighbors_graph(data.batch(torch.arange(60)).flatten(1).numpy(), 7)
            save_npz(tmp_path / "graph.npz", graph)
            name = f"graph:{tmp_path / 'graph.npz'}"
        neighbourhood = build_neighbourhood(name, surroundings(num_neighbours, **changes))
        neighbourhood.prepare()
        return neighbourhood

    return make


@every_neighbourhood
@pytest.mark.parametrize(("batch", "num_neighbours"), [(1, 1), (4, 3), (60, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k_distinct_neighbours_of_the_right_kind_and_never_the_query(name, batch, num_neighbours, dtype, build, data):
    index = torch.randperm(60)[:batch]
    x = data.batch(index).to(dtype)
    neighbourhood = build(name, num_neighbours)
    neighbourhood.update(index, x)
    x_N = neighbourhood(index, x)
    num_neighbours = 1 if name == "noise-mean" else num_neighbours
    assert x_N.shape == (batch, num_neighbours, 3, 8, 8)
    assert (x_N.dtype, x_N.device) == (x.dtype, x.device)
    assert 0 <= x_N.min() <= x_N.max() <= 1
    for query, points in zip(x, x_N, strict=True):
        assert len(points.flatten(1).unique(dim=0)) == num_neighbours
        assert (points == query).flatten(1).all(1).any() == (name == "noise-mean")


@every_neighbourhood
def test_the_same_seed_draws_the_same(name, build, data):
    index = torch.arange(4)
    x = data.batch(index)
    neighbourhood = build(name)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(neighbourhood(index, x))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2]) == (name in FIXED)


@every_neighbourhood
def test_what_it_knows_is_in_its_state(name, build, data, tmp_path, monkeypatch):
    index = torch.tensor([5, 6, 5])
    x = data.batch(index)
    first = build(name)
    first.update(index, 1 - x)
    saved = {key: value.clone() for key, value in first.state_dict().items()}
    second = build_neighbourhood("graph:gone.npz" if name == "graph" else name, first.surroundings)
    second.load_state_dict(saved)
    monkeypatch.setattr("hierarchical_lvae.neighbourhoods.pixels.all_neighbours", None)
    second.prepare()
    results = []
    for neighbourhood in (first, second):
        torch.manual_seed(0)
        results.append(neighbourhood(index, x))
    assert torch.equal(*results)


@every_neighbourhood
def test_preparing_draws_nothing(name, build):
    state = torch.get_rng_state()
    build(name)
    assert torch.equal(state, torch.get_rng_state())


@every_neighbourhood
def test_more_neighbours_than_there_are_points_are_refused(name, surroundings):
    if name not in OF_ITSELF:
        with pytest.raises(ValueError, match=f"K is 60 but there are 60 images, so {name} has at most 59"):
            build_neighbourhood(name, surroundings(60))
    with pytest.raises(ValueError, match="K is 0"):
        build_neighbourhood(name, surroundings(0))


@every_neighbourhood
def test_a_single_image_has_only_itself(name, surroundings, data):
    alone = replace(data, images=data.images[:1], factors=data.factors[:1])
    if name in OF_ITSELF:
        assert build_neighbourhood(name, surroundings(1, data=alone))
    else:
        with pytest.raises(ValueError, match=f"only one image, and {name} needs at least two: choose another"):
            build_neighbourhood(name, surroundings(1, data=alone))


def test_noise_is_around_each_image(surroundings, data):
    x = data.batch(torch.arange(2))
    noise = build_neighbourhood("noise", surroundings(4000, around=lambda mean: Normal(mean, 0.1)))
    x_N = noise(torch.arange(2), x)
    torch.testing.assert_close(x_N.mean(1), x, rtol=0, atol=5 * 0.1 / 4000**0.5)
    torch.testing.assert_close(x_N.std(1), torch.full_like(x, 0.1), rtol=0.1, atol=0)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_mean_of_the_noise_is_what_many_copies_average(likelihood, surroundings, data):
    """So is the log likelihood, at given codes: the reconstruction term of ℓ_N of many copies is that of the mean."""
    x = data.batch(torch.arange(2)).double()
    noise = lookup(LIKELIHOODS, likelihood, "likelihood")().double()
    (mean,), copies = (
        build_neighbourhood(name, surroundings(number, around=noise.around))(torch.arange(2), x).movedim(1, 0)
        for name, number in (("noise-mean", 1), ("noise", 20_000))
    )
    half_a_level = 0.5 / 255 if likelihood == "continuous-bernoulli" else 0  # at 0 and 1, where it has no mean
    torch.testing.assert_close(mean, x, rtol=0, atol=half_a_level + 1e-6)
    torch.testing.assert_close(copies.mean(0), mean, rtol=0, atol=5 * copies.std(0).max().item() / 20_000**0.5)
    if likelihood == "bernoulli":
        with torch.no_grad():
            output = torch.randn_like(x)
            each = noise(output).log_prob(copies).sum((2, 3, 4))
            assert torch.allclose(each.mean(0), noise(output).log_prob(mean).sum((1, 2, 3)), atol=5 * each.std() / 141)


def test_the_mean_is_one_neighbour(surroundings):
    with pytest.raises(ValueError, match="K is 3, but noise-mean has one neighbour, the mean: give K = 1, or noise"):
        build_neighbourhood("noise-mean", surroundings(3))
    assert FitOptions.of("quick", dataset="digits", neighbourhood="noise-mean").num_neighbours == 1


def test_copies_cost_the_query_half_a_nat_over_their_number():
    """An intensity that is estimated from K copies of n pixels loses 1/(2K) nats on the query, whatever n."""
    torch.manual_seed(0)
    for number, pixels in ((1, 400), (5, 100), (20, 50)):
        p = 0.4
        ones = torch.distributions.Binomial(number * pixels, torch.tensor(p, dtype=torch.float64)).sample((200_000,))
        estimate = (ones / (number * pixels)).clamp(1e-6, 1 - 1e-6)
        entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
        loss = pixels * (-(p * estimate.log() + (1 - p) * (-estimate).log1p()) - entropy)
        assert loss.mean().item() == pytest.approx(1 / (2 * number), rel=0.03)


def test_names_are_suggested(surroundings):
    with pytest.raises(ValueError, match="no neighbourhood is called 'latent-nn': did you mean 'latent-knn'"):
        build_neighbourhood("latent-nn", surroundings())


@every_neighbourhood
def test_only_some_take_an_argument(name, surroundings):
    if name not in ("graph", "labels"):
        with pytest.raises(ValueError, match=f"{name} takes no argument but got '0.3': only graph and labels take one"):
            build_neighbourhood(f"{name}:0.3", surroundings())


def ids_of(data, x_N):
    """Which images of the data these are."""
    everything = data.batch(torch.arange(len(data))).flatten(1)
    return torch.cdist(x_N.flatten(2), everything.expand(len(x_N), -1, -1)).argmin(2)


def test_each_order_of_each_subset_is_drawn_alike():
    """All pairs and all triples below 5, each within five standard deviations, whatever else is drawn."""
    torch.manual_seed(0)
    draws = 20_000
    below = torch.tensor([5, 2**40]).repeat(draws)
    for number, orders in ((2, 20), (3, 60)):
        drawn = distinct(below, number)
        assert drawn.shape == (2 * draws, number)
        assert (drawn.sort(1).values.diff(dim=1) > 0).all()
        small, large = drawn[::2], drawn[1::2].double() / 2**40
        assert 0 <= small.min() <= small.max() < 5
        found, counts = small.unique(dim=0, return_counts=True)
        assert len(found) == orders
        assert (counts - draws / orders).abs().max() < 5 * math.sqrt(draws / orders)
        assert (large.mean(0) - 0.5).abs().max() < 5 * math.sqrt(1 / 12 / draws)
    assert distinct(torch.tensor([3]), 3).sort().values.tolist() == [[0, 1, 2]]


def test_all_points_of_a_group_but_the_query_are_drawn_alike(surroundings, data):
    torch.manual_seed(0)
    draws, own = 6_000, 8
    index = torch.full((draws,), own)
    ids = ids_of(data, build_neighbourhood("labels:scale", surroundings(2))(index, data.batch(index)))
    others = np.flatnonzero(data.factors[:, 1] == data.factors[own, 1])
    counts = ids.flatten().bincount(minlength=60).numpy()[others]
    assert counts.sum() == 2 * draws
    assert counts[others == own] == 0
    share = 2 / (len(others) - 1)
    assert np.abs(counts[others != own] - draws * share).max() < 5 * math.sqrt(draws * share * (1 - share))


def test_labels_are_shared(surroundings, data):
    index = torch.arange(0, 60, 7)
    x = data.batch(index)
    for argument, column in (("", 0), (":wall_hue", 0), (":scale", 1)):  # by default the colours
        ids = ids_of(data, build_neighbourhood(f"labels{argument}", surroundings(4))(index, x))
        assert (data.factors[ids, column] == data.factors[index, None, column]).all()
        assert len(np.unique(data.factors[ids, 1 - column])) > 1
    with pytest.raises(ValueError, match="no factor is called 'scal': did you mean 'scale'"):
        build_neighbourhood("labels:scal", surroundings())
    with pytest.raises(ValueError, match="K is 4, but some points share wall_hue, scale with only 3 others"):
        build_neighbourhood("labels:wall_hue,scale", surroundings(4))
    build_neighbourhood("labels:wall_hue,scale", surroundings(3))


def test_without_labels_there_is_no_oracle(surroundings, data):
    from dataclasses import replace

    bare = replace(data, factors=np.zeros((60, 0), int), factor_names=(), factor_sizes=())
    with pytest.raises(ValueError, match="the data have no labels"):
        build_neighbourhood("labels", surroundings(data=bare))
