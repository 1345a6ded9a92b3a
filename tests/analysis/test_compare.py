"""Comparisons of the local posteriors of a small run."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hierarchical_lvae.analysis import ComparisonSettings, compare
from hierarchical_lvae.analysis.block import default_block, find_block, has_exact_mode
from hierarchical_lvae.analysis.measure import draw_points
from hierarchical_lvae.inference import Laplace, OneStepMAP
from hierarchical_lvae.inference.nuts import LARGEST
from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS, Neighbourhood
from hierarchical_lvae.presentation.compare import COLUMNS, NOTES, table
from hierarchical_lvae.runs import FitOptions, prepare

SMALL = ComparisonSettings(
    neighbourhoods=3, reference_neighbourhoods=2, num_draws=50, num_codes=2, warmup_steps=10, seed=1
)  # fmt: skip


def run_of(**changes):
    options = {"dataset": "digits", "num_neighbours": 4, "latent_dim": 3, "alpha": 0.1, "neighbourhood": "noise"}
    return prepare(FitOptions.of("quick", **{**options, **changes}))


def numbers(row):
    """What a table shows of a method, but for the time that it took."""
    return [getattr(row, name) for name in COLUMNS if name != "cost"]


def posterior(row):
    """Draws of the block by a method: (chains, draws, R, p)."""
    return row.arviz["posterior"]["theta_N"]


@pytest.fixture(scope="module")
def run():
    return run_of()


@pytest.fixture(scope="module")
def result(run):
    return compare(run, settings=SMALL)


def test_all_methods_have_a_row_and_what_applies_to_them(result):
    rows = {row.method: row for row in result.all_weights}
    assert list(rows) == ["one-step", "shared", "multi-step", "laplace", "laplace-low-rank"]
    for name, row in rows.items():
        gaussian = name.startswith("laplace")
        assert (row.random_parameters > 0) == gaussian
        assert (row.evidence is not None) == (row.coverage is not None) == gaussian
        assert row.k_hat is None
        assert row.loo is None
        assert math.isfinite(row.held_out)
        assert row.held_out - rows["one-step"].held_out == pytest.approx(row.gain, abs=1e-3)
        assert 0 <= row.calibration < 1
    assert rows["one-step"].gain == 0
    assert rows["one-step"].cost == 1
    assert all(row.cost > 0 for row in rows.values())

    block = {row.method: row for row in result.block}
    assert list(block) == ["one-step (block)", "laplace-block", "nuts"]
    assert [row.random_parameters for row in result.block] == [0, 1, 1]
    assert result.patterns == ("5.bias",)
    assert block["laplace-block"].k_hat < 0.7  # one bias of an untrained net: all but Gaussian
    assert block["nuts"].k_hat is None
    assert abs(block["laplace-block"].loo - block["nuts"].loo) < 1


def test_laplace_of_one_bias_is_the_posterior_that_nuts_draws(result):
    """The curvature in one bias is that of a sigmoid, well known: means and deviations agree.

    NUTS accepts other draws where another processor rounds otherwise, and 50 are few: over six seeds the means were
    apart by up to 0.34 deviations, and the ratios of the deviations were between 0.75 and 1.43.
    """
    a, b = (posterior(row).values for row in result.block[1:])
    means, deviations = ((f(a, axis=(0, 1)), f(b, axis=(0, 1))) for f in (np.mean, np.std))
    assert (abs(means[0] - means[1]) < 1.5 * deviations[1]).all()
    assert 0.5 < np.exp(np.log(deviations[0] / deviations[1]).mean()) < 2


def test_pictures_have_the_shapes_of_the_references(result):
    assert result.references.shape == (3, 1, 8, 8)
    for row in result.all_weights:
        draws = 50 if row.method.startswith("laplace") else 1
        assert row.pixels.shape == (draws, 3, 1, 8, 8), row.method
        assert 0 <= row.pixels.min() <= row.pixels.max() <= 1
        assert draws == 1 or (row.pixels.std(0) > 0).any()


def test_it_is_seeded_and_leaves_the_random_state(run):
    state = torch.get_rng_state()
    methods = ("one-step", "laplace", "laplace-block")
    first, again = (compare(run, methods, SMALL) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(first.all_weights + first.block, again.all_weights + again.block, strict=True):
        assert numbers(a) == numbers(b)
    np.testing.assert_array_equal(*(posterior(c.block[-1]).values for c in (first, again)))


def test_the_cost_is_in_one_steps(run, monkeypatch):
    seconds = {OneStepMAP: 2.0, Laplace: 5.0}

    def timed(infer, rounds, enough):
        found = infer()
        return found, seconds[type(found[0].local)]

    monkeypatch.setattr("hierarchical_lvae.analysis.measure.timed", timed)
    result = compare(run, ("one-step", "laplace"), SMALL)
    assert [row.cost for row in result.all_weights] == pytest.approx([1, 2.5])


def test_only_what_is_asked_for_is_done(run):
    result = compare(run, ("laplace",), SMALL)
    assert [row.method for row in result.all_weights] == ["laplace"]
    assert result.block == []
    more = compare(run, ("shared", "laplace"), SMALL)
    assert numbers(more.all_weights[-1]) == numbers(result.all_weights[0])


def test_a_block_by_name(run):
    result = compare(run, ("laplace-block",), SMALL, block=("5.bias",))
    assert [row.random_parameters for row in result.block] == [0, 1]
    assert list(posterior(result.block[1])["parameter"].values) == ["5.bias[0]"]


def test_held_out_points_are_not_adapted_on(run):
    points = draw_points(run, 3)
    assert points.support.shape == points.held_out.shape == (3, 4, 1, 8, 8)
    assert not torch.equal(points.support, points.held_out)


@pytest.mark.parametrize("name", NEIGHBOURHOODS)
def test_no_held_out_point_is_adapted_on(name, tmp_path):
    if name == "graph":  # of degree K: a second draw gives the same points in another order
        np.savez(tmp_path / "ring.npz", ids=(np.arange(1797)[:, None] + np.arange(1, 5)) % 1797)
        name = f"graph:{tmp_path / 'ring.npz'}"
    one = {"num_neighbours": 1} if name == "noise-mean" else {}
    points = draw_points(run_of(neighbourhood=name, **one), 6)
    for support, held_out in zip(points.support.flatten(2), points.held_out.flatten(2), strict=True):
        assert not (support[:, None] == held_out).all(2).any()


def test_neighbours_that_are_always_the_same_are_split():
    class Fixed(Neighbourhood):
        def __init__(self, points):
            self.points = points

        def __call__(self, index, x):
            return self.points

    def drawn(points):
        return draw_points(replace(run_of(), neighbourhood=Fixed(points)), 3)

    fixed = torch.rand(3, 4, 1, 8, 8)
    points = drawn(fixed)
    assert torch.equal(torch.cat([points.support, points.held_out], 1), fixed)
    with pytest.raises(ValueError, match="the neighbours are copies of the images"):
        drawn(fixed[:, :1].expand(-1, 4, -1, -1, -1))
    with pytest.raises(ValueError, match="K = 1 leaves no neighbour to hold out"):
        drawn(fixed[:, :1])


def test_refusals(run):
    with pytest.raises(ValueError, match="this run has α = 0"):
        compare(run_of(alpha=0.0), settings=SMALL)
    with pytest.raises(ValueError, match="no local inference is called 'nut': did you mean 'nuts'"):
        compare(run, ("nut",), SMALL)
    with pytest.raises(ValueError, match=r"the block 2\.bias has 1,024 parameters, .* such as 5\.bias"):
        compare(run, ("laplace-block",), SMALL, block=("2.bias",))
    with pytest.raises(ValueError, match="num draws is 51"):
        ComparisonSettings(num_draws=51)
    with pytest.raises(ValueError, match="num codes is 0"):
        ComparisonSettings(num_codes=0)


@pytest.fixture
def broken(monkeypatch):
    """Make a method of all weights, or the block, fail."""

    def fail(*_, **__):
        raise FloatingPointError("the curvature is\nnot finite")

    return lambda place: monkeypatch.setattr(f"hierarchical_lvae.analysis.{place}", fail)


WHY = "unexpected FloatingPointError: the curvature is not finite"


def test_a_method_that_fails_leaves_the_others(run, result, broken):
    broken("measure.estimate_evidence")
    found = compare(run, ("one-step", "laplace", "shared"), SMALL)
    assert found.failed == {"laplace": WHY}
    assert list(map(numbers, found.all_weights)) == list(map(numbers, result.all_weights[:2]))


def test_a_block_that_fails_leaves_all_weights(run, broken):
    broken("block.LocalELBO")
    found = compare(run, ("one-step", "laplace-block", "nuts"), SMALL)
    assert found.failed == {"one-step (block)": WHY, "laplace-block": WHY, "nuts": WHY}
    assert [row.method for row in found.all_weights] == ["one-step"]
    assert found.block == []


def test_a_method_of_the_block_that_fails_leaves_the_others(run, broken):
    broken("block.pareto_k")
    found = compare(run, ("laplace-block", "laplace"), SMALL)
    assert found.failed == {"laplace-block": WHY}
    assert [row.method for row in found.all_weights + found.block] == ["laplace", "one-step (block)"]


def test_without_the_one_step_estimate_there_is_nothing_to_compare_with(run, broken):
    broken("measure.predict")
    with pytest.raises(FloatingPointError, match="the curvature"):
        compare(run, ("laplace",), SMALL)


def test_the_default_precision_is_left_to_the_caller(run, double):
    methods = ("one-step", "laplace", "laplace-block")
    found = compare(run, methods, SMALL)
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)
    expected = compare(run, methods, SMALL)
    for a, b in zip(found.all_weights + found.block, expected.all_weights + expected.block, strict=True):
        assert numbers(a) == numbers(b)


@pytest.mark.parametrize(
    ("side", "layers", "neighbours", "expected"),
    [
        (32, "head", 1, ("9.weight[:,0]", "9.bias[0]")),
        (32, "decoder.9.*", 1, ("9.weight[:,0]", "9.bias[0]")),
        (32, "head", 10, ("9.bias",)),  # 513 weights and 100 codes are too many for NUTS
        (8, "head", 1, ("5.bias",)),  # 1,025 weights
        (32, "all", 1, ("9.bias", "7.bias")),
    ],
)
def test_the_block_is_a_channel_where_nuts_can_sample_it(side, layers, neighbours, expected):
    vae = LocalVAE(0.1, neighbours, (3, side, side), 10, local_layers=layers)
    run = SimpleNamespace(vae=vae, options=SimpleNamespace(num_neighbours=neighbours, latent_dim=10, device="cpu"))
    assert default_block(run) == expected
    assert has_exact_mode(run) == (layers != "all")
    assert len(find_block(run, expected)) + 10 * neighbours <= LARGEST


def test_without_biases_a_block_must_be_named():
    vae = LocalVAE(0.1, 1, (1, 8, 8), 3, local_layers="decoder.2.weight")
    with pytest.raises(ValueError, match="none of the local layers has few enough biases for a block"):
        default_block(SimpleNamespace(vae=vae))


def test_a_head_has_an_exact_mode():
    """And methods for a block of it, at that mode: no encoder is adapted."""
    result = compare(run_of(local_layers="head"), ("one-step", "exact", "laplace-block", "nuts"), SMALL)
    assert result.failed == {}
    assert [row.method for row in result.all_weights] == ["one-step", "exact"]
    assert "the other weights at the exact mode" in "\n".join(table(result, SMALL))
    assert [row.method for row in result.block] == ["exact (block)", "laplace-block", "nuts"]


def test_only_shown_columns_are_explained(result):
    assert table(result, SMALL)[-len(NOTES) :] == [*NOTES]
    failed = result._replace(all_weights=[], block=[], failed={"laplace": WHY})
    assert table(failed, SMALL) == ["", f"laplace: – ({WHY})"]
