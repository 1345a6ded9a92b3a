"""`hlvae reproduce`: reproduce a table or a figure of the paper, with published values next to ours."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hierarchical_lvae.analysis import CODES, FEATURES, ScoreSettings
from hierarchical_lvae.cli.failures import in_flags
from hierarchical_lvae.cli.names import (
    Count,
    Location,
    Name,
    Separated,
    data_dir_option,
    device_option,
    option_of,
    points_option,
)
from hierarchical_lvae.runs.options import PRESETS, FitOptions
from hierarchical_lvae.types import Interrupted

KNOWN = ("table1", "table2", "table5", "effect", "baselines", "fig2", "fig3", "fig4")
IMAGES = {"quick": 5_000}


@click.command(short_help="Reproduce a table or a figure of the paper.")
@click.argument("name", type=Name(KNOWN))
@click.option("--preset", type=Name(PRESETS), default="quick", show_default=True, help="Training protocol of the fits.")
@click.option("--seeds", type=Count(1, 10_000), default=1, show_default=True, help="Fits per row, one per seed.")
@click.option("--rows", type=Separated(), default=(), help="Rows to reproduce [default: all]")
@option_of(FitOptions, "steps", default=None, help="Meta-steps per fit [default: by preset]")
@option_of(ScoreSettings, "codes", type=Name(CODES), help="Encode with the local (adapted) or the meta encoder.")
@points_option("Number of points for fitting and for testing classifiers.")
@option_of(
    ScoreSettings,
    "images",
    default=None,
    help="Number of generated and of real images for FID [default: 50,000; quick: 5,000]",
)
@option_of(ScoreSettings, "features", type=Name(FEATURES), help="Features for the Fréchet distance.")
@option_of(
    ScoreSettings, "inception_weights", type=Location(), help="Inception weights [default: torch hub's, or downloaded]"
)
@click.option("--jobs", type=Count(), help="Runs in parallel [default: one per core; one on a GPU]")
@click.option("--dask", metavar="ADDRESS", help="Send the runs to this Dask scheduler; it must see the same files.")
@click.option("--out", type=Location(), help="Directory of the runs [default: runs/TABLE-PRESET]")
@data_dir_option
@device_option
@click.option(
    "--print-only",
    "finished_only",
    is_flag=True,
    help="Train nothing: print the finished rows, and the published values of the others.",
)
@click.option("--dry-run", is_flag=True, help="Train nothing: print the commands that would be run.")
@click.pass_context
def reproduce(
    ctx: click.Context, name: str, preset: str, seeds: int, rows: tuple[str, ...], steps: int | None,
    codes: str, points: tuple[int, int], images: int | None, features: str, inception_weights: Path | None,
    jobs: int | None, dask: str | None, out: Path | None, data_dir: Path | None, device: str, finished_only: bool,
    dry_run: bool,
) -> None:  # fmt: skip
    """Reproduce a table of the paper (published values, ours and the difference), or draw one of its figures.

    Finished runs are reused, and interrupted runs are resumed; a figure uses the runs of its table. If a row diverges
    or fails, the table says so, and the other rows still run. The table is saved next to the runs as Markdown, as CSV
    and as a plot of every seed; its header lists the differences from the paper's protocol. With --rows, it holds
    these rows and all rows that finished earlier.

    \b
    Examples:
      hlvae reproduce table1 --preset quick
      hlvae reproduce table5 --rows sampling,none --seeds 5
      hlvae reproduce fig2
    """
    from hierarchical_lvae.evaluation import inception
    from hierarchical_lvae.experiments import FIGURES, Workers, at_a_time, finished_beside, plan, run_table, table_of
    from hierarchical_lvae.presentation.figures import compose
    from hierarchical_lvae.presentation.tables import lines, refuse_others, write
    from hierarchical_lvae.runs import load_run
    from hierarchical_lvae.training.memory import keep_freed_memory

    keep_freed_memory()
    figure, table = FIGURES.get(name), table_of(name)
    out = out or Path("runs", f"{figure.table if figure else name}-{preset}")
    if figure and seeds > 1:
        raise click.UsageError("a figure shows one run per row: leave out --seeds")
    known = [row.name for row in table.rows]
    if unknown := [row for row in rows if row not in known]:
        raise click.UsageError(f"no row is called {unknown[0]!r}: there are {', '.join(known)}")
    weights = None if inception_weights is None else inception(inception_weights).weights.absolute()
    images = images or IMAGES.get(preset, ScoreSettings.images)
    settings = ScoreSettings(
        codes, train=points[0], test=points[1], images=images, features=features, inception_weights=weights
    )
    where: dict[str, Any] = {"directory": out, "preset": preset, "seeds": range(seeds), "settings": settings}
    given: dict[str, Any] = {"steps": steps, "data_dir": data_dir, "device": device}
    if dry_run:
        if finished_only:
            raise click.UsageError("--dry-run prints commands and --print-only a table: give only one of them")
        if commands := [*plan(table, rows=rows, **where, **given)]:
            click.echo("\n".join(commands))
        else:
            instead = "draw the figure" if figure else "print the table"
            click.echo(
                f"nothing to run: all requested runs in {out} have finished or diverged; "
                f"give --print-only instead of --dry-run to {instead}",
                err=True,
            )
        return
    stem = "table" if codes == ScoreSettings.codes else f"table-{codes}"
    names = [f"figures/{name}.png"] if figure else [f"{stem}.md", f"{stem}.csv", f"figures/{stem}.png"]
    if figure or not finished_only:
        refuse_others(table, out, names)
    workers = Workers(jobs or at_a_time(device), dask)
    table, results = (table, []) if figure else finished_beside(table, rows, **where)
    try:
        for result in run_table(table, rows=rows, finished_only=finished_only, workers=workers, **where, **given):
            results.append(replace(result, remark=in_flags(result.remark)))
            click.echo(f"{result.row.name}, seed {result.seed}: {results[-1].remark or 'done'}", err=True)
            if not (finished_only or figure):
                write(table, results, out, stem)
    except Interrupted as error:
        raise Interrupted(error.signal, "stopped after a checkpoint: run the same command again to resume") from None
    except KeyboardInterrupt:  # between two fits, or in another process than theirs
        raise Interrupted(signal.SIGINT, "interrupted: run the same command again to resume") from None
    if figure:
        drawn = {result.row.name: load_run(result.path, device, data_dir) for result in results if not result.remark}
        click.echo(compose(name, [(row.label, drawn[row.name]) for row in table.rows if row.name in drawn], out))
    else:
        click.echo(in_flags("\n".join(lines(table, results))))
        if not finished_only:
            click.echo(f"saved to {out}: {', '.join(names)}", err=True)
    if any(result.failed for result in results):
        ctx.exit(1)
