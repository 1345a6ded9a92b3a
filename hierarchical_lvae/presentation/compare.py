"""A comparison of local posteriors as two tables of text, a CSV, and figures."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hierarchical_lvae.analysis import Comparison, ComparisonSettings, Measured
from hierarchical_lvae.evaluation import merge, plot_density, plot_forest
from hierarchical_lvae.evaluation import save as save_netcdf
from hierarchical_lvae.files import atomic
from hierarchical_lvae.presentation import plots
from hierarchical_lvae.presentation.figures import save
from hierarchical_lvae.presentation.scores import aligned
from hierarchical_lvae.presentation.titles import describe
from hierarchical_lvae.runs import Run

COLUMNS = {
    "method": ("method", "{}"),
    "random_parameters": ("random", "{:,}"),
    "held_out": ("held-out", "{:.2f}"),
    "gain": ("gain", "{:+.2f}"),
    "gain_error": ("±", "{:.2f}"),
    "evidence": ("evidence", "{:.1f}"),
    "calibration": ("calibration", "{:.4f}"),
    "coverage": ("coverage", "{:.0%}"),
    "k_hat": ("k̂", "{:.2f}"),
    "loo": ("LOO", "{:.2f}"),
    "cost": ("cost", "{:,.1f}"),
}
"""The attributes of `Measured` that a table shows, each with its heading and format."""
NOTES = (
    "random: number of random local parameters · held-out, gain ± standard error: nats per image",
    "evidence: nats per neighbourhood, for a block given the other weights; comparable only within one structure",
    "evidence around a step that is far from the mode is often far too high",
    "calibration: error of pixel means at each point's own code, 0 is best · coverage: of their 90 % intervals",
    "k̂: good below 0.5, unreliable above 0.7 · LOO: leave-one-out density of support points, other weights fixed",
    "gain, cost (inference time): relative to the point estimate (one-step; for a block of a local head, exact)",
)
"""What the columns mean."""


def table(result: Comparison, settings: ComparisonSettings) -> list[str]:
    """Two tables of text, the methods that failed, and what the columns of the tables mean."""
    lines = []
    if result.all_weights:
        lines += ["", f"All local weights (neighbourhoods: {settings.neighbourhoods})"]
        lines += aligned(_cells(result.all_weights))
    if result.block:
        names, number = ", ".join(result.patterns), settings.reference_neighbourhoods
        point = "the exact mode" if result.block[0].method.startswith("exact") else "the one-step estimate"
        lines += ["", f"The block {names}, the other weights at {point} (neighbourhoods: {number})"]
        lines += aligned(_cells(result.block))
    failed = [f"{method}: – ({why})" for method, why in result.failed.items()]
    return [*lines, *(["", *failed] if failed else []), *(["", *NOTES] if lines else [])]


def _cells(rows: list[Measured]) -> list[list[str]]:
    return [[heading for heading, _ in COLUMNS.values()]] + [
        ["–" if (v := getattr(row, name)) is None else form.format(v) for name, (_, form) in COLUMNS.items()]
        for row in rows
    ]


def write(run: Run, result: Comparison) -> Iterator[Path]:
    """Write the table, the posteriors and the figures into the run directory; yields their paths."""
    out = run.directory
    with atomic(out / "compare.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["part", *COLUMNS])
        for part, rows in (("all weights", result.all_weights), ("block", result.block)):
            writer.writerows([part, *(getattr(row, name) for name in COLUMNS)] for row in rows)
    yield out / "compare.csv"
    title = describe(run)
    pixels = {row.method: row.pixels for row in result.all_weights}
    if drawn := {name: p for name, p in pixels.items() if len(p) > 1}:
        means, deviations = {m: p.mean(0) for m, p in pixels.items()}, {m: p.std(0) for m, p in drawn.items()}
        yield save(plots.predictive_deviation(result.references, means, deviations, title), out, "deviation")
        of_first = {name: p[:, 0] for name, p in drawn.items()}
        yield save(plots.posterior_draws(result.references[0], of_first, title), out, "draws")
    posteriors = {row.method: row.arviz for row in result.block}
    distributions = {name: data for name, data in posteriors.items() if not name.endswith("(block)")}
    if distributions:
        with atomic(out / "posterior.nc") as temporary:
            save_netcdf(merge(distributions), temporary)
        yield out / "posterior.nc"
        entries = {"neighbourhood": [0], "parameter": narrowest(distributions)}
        yield save(plot_forest(posteriors, "theta_N", entries), out, "forest")
        yield save(plot_density(distributions, "theta_N", entries), out, "density")


def narrowest(posteriors: Mapping[str, Any], number: int = 6) -> list[str]:
    """The parameters of the block with the narrowest posteriors in the first neighbourhood."""
    data = posteriors["nuts" if "nuts" in posteriors else "laplace-block"]
    widths = data["posterior"]["theta_N"].isel(neighbourhood=0).std(("chain", "draw"))
    return [str(name) for name in widths.sortby(widths)["parameter"].values[:number]]
