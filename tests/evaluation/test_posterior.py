"""Posteriors in ArviZ, of whichever series is installed."""

import numpy as np
import pytest
from matplotlib.text import Text

from hierarchical_lvae.evaluation import loo, merge, pareto_k, plot_density, plot_forest, save, summarise, to_arviz

R, K, P = 2, 5, 3
rng = np.random.default_rng(0)
DIMS = {"theta_N": ["neighbourhood", "parameter"], "z": ["neighbourhood", "point", "latent"],
        "x": ["neighbourhood", "point"], "intensity": ["neighbourhood", "point"]}  # fmt: skip


def posterior(method, chains, draws=60):
    n = chains, draws
    return to_arviz(
        {"theta_N": rng.normal(size=(*n, R, P)), "z": rng.normal(size=(*n, R, K, 2))},
        inference_method=method,
        log_likelihood={"x": rng.normal(-10, 0.1, size=(*n, R, K))},
        posterior_predictive={"intensity": rng.random((*n, R, K))},
        observed_data={"intensity": rng.random((R, K))},
        dims=DIMS,
        coords={"parameter": ["a", "b", "c"]},
    )


@pytest.fixture
def both():
    return {"laplace-block": posterior("laplace", 1, 120), "nuts": posterior("nuts", 2)}


def test_groups_dimensions_and_attributes(both):
    data = both["nuts"]
    assert dict(data["posterior"].sizes) == {
        "chain": 2, "draw": 60, "neighbourhood": R, "parameter": P, "point": K, "latent": 2,
    }  # fmt: skip
    assert data["log_likelihood"]["x"].dims == ("chain", "draw", "neighbourhood", "point")
    assert data["observed_data"]["intensity"].dims == ("neighbourhood", "point")
    assert data["posterior_predictive"]["intensity"].shape == (2, 60, R, K)
    assert data.attrs["inference_method"] == "nuts"
    assert list(data["posterior"]["parameter"].values) == ["a", "b", "c"]


def test_r_hat_is_for_markov_chains_alone(both):
    assert "r_hat" in summarise(both["nuts"]).columns
    assert not {"r_hat", "ess_bulk"} & set(summarise(both["laplace-block"]).columns)


def test_methods_merge_into_a_file_that_arviz_reads(both, tmp_path):
    import arviz

    both["one-step (block)"] = to_arviz(
        {"theta_N": np.zeros((1, 120, R, P))}, inference_method="one-step", dims=DIMS
    )  # no log likelihood: a point, which is left out
    save(merge(both), tmp_path / "posterior.nc")
    data = arviz.from_netcdf(tmp_path / "posterior.nc")
    draws = data["posterior"]["theta_N"].sel(inference="laplace-block")
    assert draws.dims == ("chain", "draw", "neighbourhood", "parameter")
    original = both["laplace-block"]["posterior"]["theta_N"].values
    np.testing.assert_array_equal(draws.values.reshape(original.shape), original)
    np.testing.assert_array_equal(
        data["posterior"]["theta_N"].sel(inference="nuts").values, both["nuts"]["posterior"]["theta_N"].values
    )
    assert data["log_likelihood"]["x"].sizes["inference"] == 2
    assert data["observed_data"]["observed_intensity"].shape == (R, K)


def test_pareto_k_knows_good_from_bad():
    """Proposals s times as wide as a normal target have k = 1 − s², in one dimension (for s < 1)."""
    z = rng.normal(size=20_000)
    for s, low, high in ((1.5, -np.inf, 0.1), (0.9, 0.0, 0.4), (0.3, 0.75, 1.1)):
        x = s * z
        assert low < pareto_k(0.5 * z**2 - 0.5 * x**2) < high
    assert pareto_k(np.full(100, 3.0)) == -np.inf
    with pytest.raises(ValueError, match=r"log ratios have shape \(10,\)"):
        pareto_k(np.zeros(10))
    with pytest.raises(ValueError, match="finite"):
        pareto_k([np.nan] * 100)


def test_loo_of_equal_densities_is_that_density(both):
    data = to_arviz(
        {"theta_N": rng.normal(size=(1, 100, 1))},
        inference_method="laplace",
        log_likelihood={"x": np.tile(-np.arange(4.0), (1, 100, 1)) + 1e-3 * rng.normal(size=(1, 100, 4))},
    )
    result = loo(data)
    assert result.mean == pytest.approx(-1.5, abs=1e-2)
    assert result.standard_error > 0
    assert loo(both["nuts"]).mean == pytest.approx(-10, abs=0.1)


def test_names_are_drawn_as_they_stand(tmp_path):
    names = [r"$\frac{$", "a$b$"]
    data = {
        name: to_arviz(
            {"w$": rng.normal(size=(2, 50, 1, 2))}, inference_method="nuts", dims={"w$": DIMS["theta_N"]},
            coords={"parameter": names},
        )
        for name in ("$x^2$", "cost_$")
    }  # fmt: skip
    for figure in (plot_forest(data, "w$"), plot_density(data, "w$")):
        figure.savefig(tmp_path / "figure.png")
        drawn = " ".join(text.get_text() for text in figure.findobj(Text))
        assert all(name in drawn for name in (*names, *data))


def test_plots_are_figures(both, tmp_path):
    where = {"neighbourhood": [0], "parameter": ["a", "b"]}
    for figure in (plot_forest(both, "theta_N", where), plot_density(both, "theta_N", where)):
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 2000
