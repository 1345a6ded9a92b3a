"""`hlvae report`: a run on one page."""

from pathlib import Path
from typing import Any

import click

from hierarchical_lvae.cli.names import Location, where_options


@click.command(short_help="Show RUN on one page.")
@click.argument("run", type=Location())
@where_options
def report(run: Path, **where: Any) -> None:
    """Show RUN on one page, RUN/report.html: options, curves, figures, scores, local posteriors.

    The page holds its figures itself, and opens offline. Figures that are missing are drawn, and those of an unfinished
    run are drawn again; scores and comparisons are what `evaluate` and `compare` left. A pretrained run (see `hlvae
    data list`) is copied to runs/NAME first.

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
