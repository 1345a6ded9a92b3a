"""`hlvae compare`: compare the local posteriors of a run."""

import logging
import os
from pathlib import Path
from typing import Any

import click

from hierarchical_lvae.analysis import BLOCK_METHODS, DEFAULT_METHODS, ComparisonSettings
from hierarchical_lvae.cli.failures import Failures
from hierarchical_lvae.cli.names import Location, Names, Separated, option_of, where_options
from hierarchical_lvae.inference import LOCAL_INFERENCE

log = logging.getLogger(__name__)
KNOWN = (*LOCAL_INFERENCE, *BLOCK_METHODS)


@click.command(short_help="Compare local posteriors of RUN.")
@click.argument("run", type=Location())
@click.option(
    "--local",
    type=Names(KNOWN),
    default=",".join(DEFAULT_METHODS),
    show_default=True,
    help="Local posteriors to compare.",
)
@option_of(ComparisonSettings, "neighbourhoods", help="Neighbourhoods for the methods that infer all local weights.")
@option_of(
    ComparisonSettings,
    "reference_neighbourhoods",
    "--reference",
    help="How many of these to use for the block of weights.",
)
@click.option(
    "--block",
    type=Separated(),
    default=(),
    help="Patterns of decoder parameter names, such as 9.bias or 9.weight[:,0], that select the block "
    "[default: the first channel of a local head, if small enough; else biases of the last layers]",
)
@option_of(ComparisonSettings, "num_draws", "--draws", help="Draws from each posterior.")
@option_of(ComparisonSettings, "warmup_steps", "--warmup", help="Warm-up steps of each NUTS chain.")
@option_of(ComparisonSettings, "seed", help="Random seed for references, neighbours and draws.")
@where_options
def compare(
    run: Path, local: tuple[str, ...], neighbourhoods: int, reference_neighbourhoods: int, block: tuple[str, ...],
    num_draws: int, warmup_steps: int, seed: int, **where: Any,
) -> None:  # fmt: skip
    """Compare local posteriors of RUN: point estimates, Laplace approximations and, for a block of weights, NUTS.

    Prints two tables and writes compare.csv, posterior.nc (for ArviZ) and figures to RUN. Held-out points belong to
    the same neighbourhoods but are not adapted on; gains are relative to the point estimate, on the same points. If a
    method fails, the reason is printed, the other methods still run, and the exit code is 1. A pretrained run (see
    `hlvae data list`) is first copied to runs/NAME. In a read-only directory, only the tables are printed.

    \b
    Examples:
      hlvae compare runs/first
      hlvae compare runs/first --local one-step,laplace,laplace-last-layer --neighbourhoods 32
    """
    from hierarchical_lvae.analysis import compare as compare_run
    from hierarchical_lvae.presentation.compare import table, write
    from hierarchical_lvae.presentation.titles import describe
    from hierarchical_lvae.runs import load_run
    from hierarchical_lvae.runs.pretrained import own_copy

    loaded = load_run(own_copy(run), **where)
    if not os.access(loaded.directory, os.W_OK):
        log.warning("%s is read-only: the tables are printed, and no files are written", loaded.directory)
    few, even = min(reference_neighbourhoods, neighbourhoods), num_draws + num_draws % 2
    settings = ComparisonSettings(neighbourhoods, few, even, warmup_steps=warmup_steps, seed=seed)
    result = compare_run(loaded, local, settings, block)
    click.echo(describe(loaded))
    for line in table(result, settings):
        click.echo(line)
    failures = Failures()
    for method, why in result.failed.items():
        failures.add(method, why)
    written = list[Path]()
    with failures.of("files", writes=True):
        written.extend(write(loaded, result))
    for path in written:
        click.echo(path)
    failures.end()
