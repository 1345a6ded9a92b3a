"""The swap score of a run, where it is known what its decoder takes from the code and what from the weights."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hierarchical_lvae.analysis import swap
from hierarchical_lvae.data import FactorImages
from hierarchical_lvae.data.factor_images import factor_grid
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit

COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])


def painted(colours, places):
    """A square of a colour (n, 3) at one of four places (n,), on black: (n, 3, 8, 8)."""
    x = torch.zeros(len(places), 3, 8, 8)
    for image, colour, place in zip(x, colours, places.tolist(), strict=True):
        row, column = divmod(int(place), 2)
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = colour[:, None, None]
    return x


@pytest.fixture(scope="module")
def squares():
    factors = np.repeat(factor_grid((3, 4)), 20, axis=0).astype(np.int64)
    images = painted(COLOURS[factors[:, 0]], torch.from_numpy(factors[:, 1]))
    return FactorImages(
        (images * 255).byte(), factors, factor_names=("hue", "place"), factor_sizes=(3, 4), source="squares"
    )


class Perfect:
    """A run with perfect codes (the colour and the place), and a decoder that takes the colour from its reference."""

    def __init__(self, dataset, tmp_path, colour_from_weights):
        self.dataset, self.colour_from_weights = dataset, colour_from_weights
        self.options = SimpleNamespace(device="cpu", data_dir=str(tmp_path))

    def neighbourhood(self, index, x):
        return x.unsqueeze(1)

    def encode(self, x, x_N):
        colour = x.flatten(2).amax(2)
        place = x.amax(1).view(-1, 2, 4, 2, 4).amax((2, 4)).flatten(1).argmax(1, keepdim=True)
        return torch.cat([colour, place.float()], 1)

    def decode(self, z, x_N):
        z = z.squeeze(1)
        colour = x_N.squeeze(1).flatten(2).amax(2) if self.colour_from_weights else z[:, :3]
        return painted(colour, z[:, 3]).unsqueeze(1)


@pytest.mark.parametrize("colour_from_weights", [True, False])
def test_it_tells_the_code_from_the_weights(squares, tmp_path, monkeypatch, colour_from_weights):
    monkeypatch.setattr("hierarchical_lvae.evaluation.factor_classifier.STEPS", 300)
    found = swap(Perfect(squares, tmp_path, colour_from_weights), test=200)
    assert found["factors"] == ["hue", "place"]
    assert (found["accuracy"], found["ceiling"]) == ([1, 1], [1, 1])
    assert found["chance"] == pytest.approx([1 / 3, 1 / 4])
    assert found["in_code"] == [0 if colour_from_weights else 1, 1]
    assert found["of_colour"]["weights"] == (1 if colour_from_weights else 0)
    assert found["without_colour"]["of_ceiling"] == 1


def test_in_a_plain_vae_all_is_in_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.evaluation.factor_classifier.STEPS", 300)
    plain = {"alpha": 0.0, "beta": 0.1, "lr": 2e-3, "steps": 300, "neighbourhood": "noise", "data_dir": tmp_path}
    run = fit(FitOptions.of("quick", dataset="digits", **plain), tmp_path / "run")
    found = swap(run, test=200)
    assert found["in_code"][0] > 1 - 4 * found["error"][0]
    assert found["ceiling"][0] > 2 * found["chance"][0]


def test_the_random_state_is_left_as_it_was(squares, tmp_path):
    run = Perfect(squares, tmp_path, True)
    state = torch.get_rng_state()
    first = swap(run, test=200)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert swap(run, test=200) == first


def test_data_without_factors_have_none(squares, tmp_path):
    bare = replace(squares, factors=squares.factors[:, :0], factor_names=(), factor_sizes=())
    assert "no factors" in swap(Perfect(bare, tmp_path, True), test=200)["not_available"]


def test_images_that_are_not_finite_have_no_score(squares, tmp_path, monkeypatch):
    """The classifier would predict a value for them, too."""
    monkeypatch.setattr("hierarchical_lvae.evaluation.factor_classifier.STEPS", 5)
    run = Perfect(squares, tmp_path, True)
    run.decode = lambda z, x_N: torch.full((len(z), 1, 3, 8, 8), torch.nan)
    with pytest.raises(ValueError, match="decoded images have pixels that are not finite: has the fit diverged"):
        swap(run, test=200)
