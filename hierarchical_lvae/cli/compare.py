"""`hlvae compare`: local posteriors of a run side by side."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hierarchical_lvae.cli.failures import Failures
from hierarchical_lvae.cli.names import SEED, Count, Location, Names, where_options
from hierarchical_lvae.comparison import BLOCK_METHODS, DEFAULT_METHODS
from hierarchical_lvae.drawing import describe, save
from hierarchical_lvae.inference import LOCAL_INFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hierarchical_lvae.comparison import Comparison, Row
    from hierarchical_lvae.training import Run

KNOWN = (*LOCAL_INFERENCE, *BLOCK_METHODS)
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
    "random: local parameters with a distribution · held-out, gain ± standard error: nats an image",
    "evidence: nats a neighbourhood, of a block given the rest, to be compared within one structure",
    "calibration: of pixel means at each point's own code, 0 is best · coverage: of their 90 % intervals",
    "k̂: below 0.5 good, above 0.7 not to be trusted · LOO: of support points, the rest of the weights held",
    "cost: time of the inference in one-step estimates",
)
"""What the columns mean."""


@click.command(short_help="Set local posteriors of RUN side by side.")
@click.argument("run", type=Location())
@click.option(
    "--local",
    type=Names(KNOWN),
    default=",".join(DEFAULT_METHODS),
    show_default=True,
    help="Local posteriors to compare.",
)
@click.option("--neighbourhoods", type=Count(1, 10_000), default=8, show_default=True, help="For all local weights.")
@click.option("--reference", type=Count(), default=2, show_default=True, help="Of these, for the block.")
@click.option("--block", help="Patterns of names of decoder parameters [default: the last biases, up to 50 of them]")
@click.option("--draws", type=Count(50, 100_000), default=200, show_default=True, help="From each posterior.")
@click.option("--warmup", type=Count(), default=250, show_default=True, help="Steps, of each chain of NUTS.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of references, neighbours and draws.")
@where_options
def compare(
    run: Path, local: tuple[str, ...], neighbourhoods: int, reference: int, block: str | None, draws: int,
    warmup: int, seed: int, **where: Any,
) -> None:  # fmt: skip
    """Compare local posteriors of RUN: points, Laplace's Gaussians, and (for a block of the weights) the truth by NUTS.

    Prints two tables, and leaves compare.csv, posterior.nc (for ArviZ) and figures in RUN. Held-out points are other
    points of the neighbourhoods than those adapted on; gains are over one-step, on the same points. A method that fails
    leaves the others: it is named with the reason, and the exit code is 1.

    \b
    Examples:
      hlvae compare runs/first
      hlvae compare runs/first --local one-step,laplace,laplace-last-layer --neighbourhoods 32
    """
    from hierarchical_lvae.comparison import Settings
    from hierarchical_lvae.comparison import compare as compare_run
    from hierarchical_lvae.training import load_run

    loaded = load_run(run, **where)
    reference = min(reference, neighbourhoods)
    settings = Settings(neighbourhoods, reference, draws + draws % 2, warmup_steps=warmup, seed=seed)
    result = compare_run(loaded, local, settings, () if block is None else tuple(block.split(",")))
    click.echo(describe(loaded))
    for line in table(result, settings):
        click.echo(line)
    failures = Failures()
    for method, why in result.failed.items():
        failures.add(method, why)
    written = list[Path]()
    with failures.of("files", writes=True):
        written.extend(write(loaded, result, run))
    for path in written:
        click.echo(path)
    failures.end()


def table(result: "Comparison", settings: Any) -> list[str]:
    """Two tables of text."""
    lines = []
    if result.all_weights:
        lines += ["", f"All local weights (neighbourhoods: {settings.neighbourhoods})"]
        lines += _aligned(result.all_weights)
    if result.block:
        names, number = ", ".join(result.patterns), settings.reference_neighbourhoods
        lines += ["", f"The block {names}, the rest at the one-step estimate (neighbourhoods: {number})"]
        lines += _aligned(result.block)
    failed = [f"{method}: – ({why})" for method, why in result.failed.items()]
    return [*lines, *(["", *failed] if failed else []), "", *NOTES]


def _aligned(rows: "list[Row]") -> list[str]:
    cells = [list(COLUMNS)] + [
        ["–" if value is None else form.format(value) for form, value in zip(COLUMNS.values(), row, strict=True)]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]


def write(run: "Run", result: "Comparison", out: Path) -> "Iterator[Path]":
    """Write the table, the posteriors and the figures into the run directory; yields their paths."""
    from hierarchical_lvae import figures
    from hierarchical_lvae.comparison import Row
    from hierarchical_lvae.evaluation import merge, plot_density, plot_forest
    from hierarchical_lvae.evaluation import save as save_netcdf
    from hierarchical_lvae.files import atomic

    with atomic(out / "compare.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["part", *Row._fields])
        for part, rows in (("all weights", result.all_weights), ("block", result.block)):
            writer.writerows(["" if value is None else value for value in (part, *row)] for row in rows)
    yield out / "compare.csv"
    title = describe(run)
    if result.deviations:
        panels = figures.predictive_deviation(result.references, result.means, result.deviations, title)
        yield save(panels, out, "deviation")
        yield save(figures.posterior_draws(result.references[0], result.samples, title), out, "draws")
    distributions = {name: data for name, data in result.posteriors.items() if not name.startswith("one-step")}
    if distributions:
        with atomic(out / "posterior.nc") as temporary:
            save_netcdf(merge(distributions), temporary)
        yield out / "posterior.nc"
        entries = {"neighbourhood": [0], "parameter": narrowest(result)}
        yield save(plot_forest(result.posteriors, "theta_N", entries), out, "forest")
        yield save(plot_density(distributions, "theta_N", entries), out, "density")


def narrowest(result: "Comparison", number: int = 6) -> list[str]:
    """The parameters of the block that the first neighbourhood narrows the most."""
    data = result.posteriors["nuts" if "nuts" in result.posteriors else "laplace-block"]
    widths = data["posterior"]["theta_N"].isel(neighbourhood=0).std(("chain", "draw"))
    return [str(name) for name in widths.sortby(widths)["parameter"].values[:number]]
