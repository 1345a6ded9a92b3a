"""`hlvae report`: a run on one page."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hierarchical_lvae.cli.compare import COLUMNS, NOTES
from hierarchical_lvae.cli.names import Location, where_options
from hierarchical_lvae.cli.scores import lines
from hierarchical_lvae.scoring import SCORES

if TYPE_CHECKING:
    from hierarchical_lvae.report import Section

FIGURES = ("figure2", "figure3", "figure4", "training", "reconstructions")


@click.command(short_help="Show RUN on one page.")
@click.argument("run", type=Location())
@where_options
def report(run: Path, **where: Any) -> None:
    """Show RUN on one page, RUN/report.html: options, curves, figures, scores, local posteriors.

    The page holds its figures itself, and opens offline. Figures that are missing are drawn, and those of an unfinished
    run are drawn anew; scores and comparisons are what `evaluate` and `compare` left.

    \b
    Examples:
      hlvae report runs/first
    """
    from hierarchical_lvae.directory import read_state
    from hierarchical_lvae.drawing import draw_all
    from hierarchical_lvae.report import write_report
    from hierarchical_lvae.training import load_run, read_options

    options = read_options(run)
    unfinished = read_state(run).status != "finished"
    if unfinished or any(not (run / f"figures/{name}.png").is_file() for name in FIGURES):
        draw_all(load_run(run, **where), run)
    click.echo(write_report(run, scores(run), comparison(run, options.alpha == 0)))


def scores(run: Path) -> "Section":
    """What `evaluate` left, a table a score; those of earlier weights are called so."""
    from hierarchical_lvae.directory import command
    from hierarchical_lvae.report import Section, Table
    from hierarchical_lvae.scoring import model_digest, read_scores
    from hierarchical_lvae.scoring.store import META

    tables, current, old_meta = [], [], []
    saved, weights = read_scores(run), model_digest(run)
    for key, values in saved.items():
        about = values.get("settings", {})
        name, old = key.removesuffix(META), about.get("model") != weights
        how = ", ".join(f"{k} {v}" for k, v in about.items() if k not in ("model", "data", "versions", "weights"))
        tables.append(Table(f"{name}{' of earlier weights' if old else ''} ({how})", (), lines(name, values)))
        current += [] if old else [key]
        old_meta += [name] if old and key.endswith(META) else []
    missing = []
    for lacking, of, options in (
        ([name for name in SCORES if name not in current], "", ()),
        (old_meta, " of meta codes", ("--codes", "meta")),
    ):
        if lacking:
            how = command("evaluate", run, "--metrics", ",".join(lacking), *options)
            missing.append((", ".join(lacking) + of, how))
    return Section("Scores", tables, missing=missing)


def comparison(run: Path, plain: bool) -> "Section":
    """What `compare` left: a table of all local weights, and one of the block."""
    from hierarchical_lvae.directory import command
    from hierarchical_lvae.report import Section, Table

    title, file = "Local posteriors", run / "compare.csv"
    if plain:
        return Section(title, notes=["With α = 0 no weights are local, and there is nothing to compare."])
    if not file.is_file():
        return Section(title, missing=[("local posteriors side by side", command("compare", run))])
    with file.open(newline="", encoding="utf-8") as opened:
        header, *rows = csv.reader(opened)
    if len(header) != len(COLUMNS) + 1:
        raise ValueError(f"{file} is not what compare writes: run `{command('compare', run)}` again")
    formats = ["{}", *COLUMNS.values()][2:]
    tables = []
    for part in dict.fromkeys(row[0] for row in rows):
        cells = [
            (method, *("–" if v == "" else form.format(_number(v)) for form, v in zip(formats, values, strict=True)))
            for kind, method, *values in rows
            if kind == part
        ]
        tables.append(Table(part.capitalize(), tuple(COLUMNS), cells))
    notes = [*NOTES]
    if (run / "posterior.nc").is_file():
        notes.append("posterior.nc holds the draws, for arviz.from_netcdf")
    return Section(title, tables, notes=notes)


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number
