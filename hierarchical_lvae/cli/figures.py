"""`hlvae figures`: draw Figures 2, 3 and 4 of the paper, training curves and reconstructions of a run."""

from pathlib import Path
from typing import Any

import click

from hierarchical_lvae.cli.names import Location, option_of, where_options
from hierarchical_lvae.runs.options import FitOptions


@click.command(short_help="Redraw the figures of RUN.")
@click.argument("run", type=Location())
@option_of(
    FitOptions, "seed", default=None, help="Random seed for references, codes and neighbours [default: the run's seed]"
)
@where_options
def figures(run: Path, seed: int | None, **where: Any) -> None:
    """Draw Figures 2, 3 and 4 of the paper, training curves and reconstructions of RUN; save them to RUN/figures.

    A pretrained run (see `hlvae data list`) is first copied to runs/NAME.

    \b
    Examples:
      hlvae figures pretrained:3dshapes-local
      hlvae figures runs/first
      hlvae figures runs/first --seed 7
    """
    from hierarchical_lvae.presentation.figures import draw_all
    from hierarchical_lvae.runs import load_run
    from hierarchical_lvae.runs.pretrained import own_copy

    for path in draw_all(load_run(own_copy(run), **where), seed):
        click.echo(path)
