"""Posteriors in ArviZ, for its 0.x series (InferenceData) and its 1.x series (DataTree).

Draws have shape (chain, draw, …). Draws from a Gaussian or a point estimate are independent: they form one chain, are
marked by the attribute `inference_method`, and get no r̂, which only has a meaning for Markov chains.

Pareto k̂ (Vehtari, Simpson, Gelman, Yao, Gabry, 2024, "Pareto smoothed importance sampling") is the tail index of
the ratios posterior / approximation at draws from the approximation: below 0.5, the approximation is good; above 0.7,
it is unreliable. Use k̂ in tens of dimensions: in thousands, every approximation fails it, even with good predictions.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import ArrayLike

Variables = Mapping[str, ArrayLike]


class Loo(NamedTuple):
    """Leave-one-out estimate of the log density of held-out points, from the points conditioned on."""

    mean: float
    """Nats per point."""
    standard_error: float
    pareto_k: float
    """The largest k̂ of all points: above 0.7, the estimate is unreliable."""


def to_arviz(
    posterior: Variables,
    *,
    inference_method: str,
    log_likelihood: Variables | None = None,
    posterior_predictive: Variables | None = None,
    observed_data: Variables | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> Any:
    """Build an InferenceData (ArviZ 0.x) or a DataTree (1.x).

    Args:
        posterior, log_likelihood, posterior_predictive: by variable, (chain, draw, …).
        inference_method: how the draws were obtained; "nuts" for Markov chains.
        observed_data: by variable, (…).
        dims: names of the dimensions after chain and draw, by variable, such as neighbourhood, point, latent.
        coords: labels by dimension.

    >>> data = to_arviz({"theta_N": np.zeros((1, 100, 2))}, inference_method="laplace", dims={"theta_N": ["parameter"]})
    >>> dict(data["posterior"].sizes)
    {'chain': 1, 'draw': 100, 'parameter': 2}
    """
    groups = {
        "posterior": posterior,
        "log_likelihood": log_likelihood,
        "posterior_predictive": posterior_predictive,
        "observed_data": observed_data,
    }
    given: dict[str, Any] = {
        group: {name: np.asarray(values) for name, values in variables.items()}
        for group, variables in groups.items()
        if variables
    }
    attrs = {"inference_method": inference_method}
    names: dict[str, Any] = {"dims": {name: list(value) for name, value in (dims or {}).items()}, "coords": coords}
    az = _arviz()
    if _is_first_series(az):
        return az.from_dict(**given, **names, attrs=attrs)
    return az.from_dict(given, **names, attrs={"/": attrs})


def pareto_k(log_ratios: ArrayLike) -> float:
    """k̂ of log importance ratios log p(θ, N) − log q(θ) at draws θ ~ q: (S,), with S ≥ 25.

    If all ratios are equal, the approximation is exact, and k̂ is −∞.

    >>> draws = np.random.default_rng(0).normal(size=2000)
    >>> pareto_k(-0.5 * draws**2 / 4 + 0.5 * draws**2) > 0.7   # q is half as wide as p
    True

    Raises:
        ValueError: there are too few ratios, or one is not finite.
    """
    ratios = np.asarray(log_ratios, float)
    if ratios.ndim != 1 or len(ratios) < 25 or not np.isfinite(ratios).all():
        raise ValueError(f"log ratios have shape {ratios.shape}: (S,) finite ones are needed, with S at least 25")
    if np.ptp(ratios) < 1e-6:
        return -np.inf
    az = _arviz()
    if _is_first_series(az):
        return float(az.psislw(ratios)[1])
    from arviz_stats.base import array_stats

    return float(array_stats.psislw(-ratios)[1])  # ArviZ 1.x takes log likelihoods, the negatives of the ratios


def loo(data: Any) -> Loo:
    """Estimate how well the other points predict each point, from the pointwise log likelihood in `data`."""
    az = _arviz()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a large k̂, which is returned
        result = az.loo(data, pointwise=True)
    elpd, error = (result.elpd_loo, result.se) if _is_first_series(az) else (result.elpd, result.se)
    points = result.n_data_points
    return Loo(float(elpd / points), float(error / points), float(np.max(result.pareto_k)))


def summarise(data: Any) -> Any:
    """ArviZ's table of means and intervals, with r̂ and effective sample sizes only for Markov chains."""
    return _arviz().summary(data, kind="all" if data.attrs.get("inference_method") == "nuts" else "stats")


def merge(data: Mapping[str, Any]) -> Any:
    """Combine the draws of several methods in one object, with a dimension `inference` after chain and draw.

    Use this to save them in one file; `merge(…).posterior.sel(inference="nuts")` then selects a method. Independent
    draws are split into as many chains as the others have, so that shapes agree; methods without a log likelihood
    (point estimates) are omitted.
    """
    kept = {name: entry for name, entry in data.items() if "log_likelihood" in _groups(entry)}
    chains = max(entry["posterior"].sizes["chain"] for entry in kept.values())
    first = next(iter(kept.values()))
    groups: dict[str, dict[str, np.ndarray]] = {}
    dims: dict[str, list[str]] = {}
    for group in ("posterior", "log_likelihood", "posterior_predictive"):
        for variable, values in first[group].data_vars.items():
            stacked = [entry[group][variable].values for entry in kept.values()]
            stacked = [v.reshape(chains, -1, *v.shape[2:]) for v in stacked]
            groups.setdefault(group, {})[str(variable)] = np.stack(stacked, 2)
            dims[str(variable)] = ["inference", *map(str, values.dims[2:])]
    observed = {f"observed_{n}": v.values for n, v in first["observed_data"].data_vars.items()}
    dims |= {f"observed_{n}": list(map(str, v.dims)) for n, v in first["observed_data"].data_vars.items()}
    coords = {"inference": list(kept), "parameter": first["posterior"]["parameter"].values}
    return to_arviz(
        groups.pop("posterior"),
        **groups,
        observed_data=observed,
        inference_method=", ".join(kept),
        dims=dims,
        coords=coords,
    )


def save(data: Any, path: str | Path) -> None:
    """Write a netCDF file, which `arviz.from_netcdf` reads."""
    data.to_netcdf(str(path), engine="h5netcdf")


def plot_forest(data: Mapping[str, Any], variable: str, coords: Mapping[str, Any] | None = None) -> Any:
    """ArviZ's forest plot of (some entries of) one variable, with methods side by side, as a matplotlib figure."""
    az, data, where = _arviz(), _alike(data, variable), dict(coords or {})
    if _is_first_series(az):
        entries = np.prod([len(labels) for labels in where.values()]) if where else 10
        kwargs = {"var_names": [variable], "coords": where, "combined": True, "hdi_prob": 0.9, "textsize": 9}
        size = (8, 1.5 + 0.3 * entries * len(data))
        figure = az.plot_forest(list(data.values()), model_names=list(data), figsize=size, **kwargs)[0].figure
        figure.set_layout_engine("tight")  # so that long names are not cut off
        return _verbatim(figure)
    plot = az.plot_forest(data, var_names=[variable], coords=where, combined=True, backend="matplotlib")
    return _verbatim(plot.viz["figure"].item())


def plot_density(data: Mapping[str, Any], variable: str, coords: Mapping[str, Any] | None = None) -> Any:
    """ArviZ's density plot of (some entries of) one variable, with methods overlaid, as a matplotlib figure."""
    az, data, where = _arviz(), _alike(data, variable), dict(coords or {})
    if _is_first_series(az):
        kwargs = {"var_names": [variable], "data_labels": list(data), "hdi_prob": 0.99, "textsize": 9}
        chosen = [entry.sel(**where) for entry in data.values()]
        axes = az.plot_density(chosen, shade=0.1, **kwargs)
        figure = axes.ravel()[0].figure
        figure.set_size_inches(3.2 * axes.shape[-1], 2.6 * (axes.size // axes.shape[-1]))
        figure.set_layout_engine("tight")
        return _verbatim(figure)
    plot = az.plot_dist(data, var_names=[variable], coords=where, backend="matplotlib")
    return _verbatim(plot.viz["figure"].item())


def _verbatim(figure: Any) -> Any:
    """Draw all text of a figure verbatim: a `$` in a name does not start mathematics."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        if "$" in text.get_text():
            text.set_wrap(False)  # matplotlib parses wrapped text regardless of the setting
    return figure


def _alike(data: Mapping[str, Any], variable: str) -> dict[str, Any]:
    """One variable of each method, split into the same number of chains."""
    values = {name: entry["posterior"][variable] for name, entry in data.items()}
    chains = max(array.sizes["chain"] for array in values.values())
    alike = {}
    for name, array in values.items():
        dims = [str(dim) for dim in array.dims[2:]]
        draws = array.values.reshape(chains, -1, *array.shape[2:])
        coords = {dim: array[dim].values for dim in dims}
        alike[name] = to_arviz({variable: draws}, inference_method=name, dims={variable: dims}, coords=coords)
    return alike


def _groups(data: Any) -> set[str]:
    return {str(name).strip("/") for name in (data.groups() if callable(data.groups) else data.groups)}


def _arviz() -> Any:
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # 0.23 logs which parts of 1.0 are not installed, and warns of its release
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import arviz
            except (OSError, RuntimeError):  # 0.23 saves its warning's date in the user's cache, which is not writable
                with tempfile.TemporaryDirectory() as place, patch.dict(os.environ, HOME=place, XDG_CACHE_HOME=place):
                    import arviz
    finally:
        logging.disable(disabled)
    return arviz


def _is_first_series(arviz: Any) -> bool:
    return arviz.__version__.startswith("0.")
