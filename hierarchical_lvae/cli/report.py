"""`hlvae report`: write a one-page report of a run."""

from pathlib import Path
from typing import Any

import click

from hierarchical_lvae.cli.names import Location, where_options


@click.command(short_help="Write a one-page HTML report of RUN.")
@click.argument("run", type=Location())
@where_options
def report(run: Path, **where: Any) -> None:
    """Write RUN/report.html, a one-page report: options, curves, figures, scores and local posteriors.

    The page embeds its figures and opens offline. Missing figures are drawn, and those of an unfinished run are
    redrawn; scores and comparisons are shown as saved by `evaluate` and `compare`. A pretrained run (see `hlvae data
    list`) is first copied to runs/NAME.

    \b
    Examples:
      hlvae report runs/first
      hlvae report pretrained:3dshapes-local
    """
    from hierarchical_lvae.presentation.figures import DRAWN, draw_all
    from hierarchical_lvae.presentation.report import write_report
    from hierarchical_lvae.runs import load_run
    from hierarchical_lvae.runs.directory import read_state
    from hierarchical_lvae.runs.pretrained import own_copy

    run = own_copy(run)
    unfinished = read_state(run).status != "finished"
    if unfinished or any(not (run / f"figures/{name}.png").is_file() for name in DRAWN):
        draw_all(load_run(run, **where))
    click.echo(write_report(run))
