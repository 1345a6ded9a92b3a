"""A comparison of local posteriors as two tables of text, a CSV, and figures."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hierarchical_lvae.presentation.figures import describe, save
from hierarchical_lvae.presentation.scores import aligned

if TYPE_CHECKING:
    from hierarchical_lvae.analysis import Comparison, ComparisonRow, ComparisonSettings
    from hierarchical_lvae.runs import Run

COLUMNS = {
    "method": "{}",
    "random": "{:,}",
    "held-out": "{:.2f}",
    "gain": "{:+.2f}",
    "±": "{:.2f}",
    "evidence": "{:.1f}",
    "calibration": "{:.4f}",
    "coverage": "{:.0%}",
    "k̂": "{:.2f}",
    "LOO": "{:.2f}",
    "cost": "{:,.1f}",
}
NOTES = (
    "random: number of random local parameters · held-out, gain ± standard error: nats per image",
    "evidence: nats per neighbourhood, for a block given the other weights; comparable only within one structure",
    "calibration: error of pixel means at each point's own code, 0 is best · coverage: of their 90 % intervals",
    "k̂: good below 0.5, unreliable above 0.7 · LOO: leave-one-out density of support points, other weights fixed",
    "gain, cost (inference time): relative to the point estimate (one-step; for a block of a local head, exact)",
)
"""What the columns mean."""


def table(result: "Comparison", settings: "ComparisonSettings") -> list[str]:
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


def _cells(rows: "list[ComparisonRow]") -> list[list[str]]:
    return [list(COLUMNS)] + [
        ["–" if value is None else form.format(value) for form, value in zip(COLUMNS.values(), row, strict=True)]
        for row in rows
    ]


def write(run: "Run", result: "Comparison") -> Iterator[Path]:
    """Write the table, the posteriors and the figures into the run directory; yields their paths."""
    from hierarchical_lvae.analysis import ComparisonRow
    from hierarchical_lvae.evaluation import merge, plot_density, plot_forest
    from hierarchical_lvae.evaluation import save as save_netcdf
    from hierarchical_lvae.files import atomic
    from hierarchical_lvae.presentation import plots

    out = run.directory
    with atomic(out / "compare.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["part", *ComparisonRow._fields])
        for part, rows in (("all weights", result.all_weights), ("block", result.block)):
            writer.writerows((part, *row) for row in rows)
    yield out / "compare.csv"
    title = describe(run)
    if result.deviations:
        panels = plots.predictive_deviation(result.references, result.means, result.deviations, title)
        yield save(panels, out, "deviation")
        yield save(plots.posterior_draws(result.references[0], result.samples, title), out, "draws")
    distributions = {name: data for name, data in result.posteriors.items() if not name.endswith("(block)")}
    if distributions:
        with atomic(out / "posterior.nc") as temporary:
            save_netcdf(merge(distributions), temporary)
        yield out / "posterior.nc"
        entries = {"neighbourhood": [0], "parameter": narrowest(result)}
        yield save(plot_forest(result.posteriors, "theta_N", entries), out, "forest")
        yield save(plot_density(distributions, "theta_N", entries), out, "density")


def narrowest(result: "Comparison", number: int = 6) -> list[str]:
    """The parameters of the block with the narrowest posteriors in the first neighbourhood."""
    data = result.posteriors["nuts" if "nuts" in result.posteriors else "laplace-block"]
    widths = data["posterior"]["theta_N"].isel(neighbourhood=0).std(("chain", "draw"))
    return [str(name) for name in widths.sortby(widths)["parameter"].values[:number]]
