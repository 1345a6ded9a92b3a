"""`hlvae evaluate`: the scores of a run, in a table and in metrics.json."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hierarchical_lvae.analysis import CODES, FEATURES, SCORES, ScoreSettings
from hierarchical_lvae.cli.failures import Failures, in_flags
from hierarchical_lvae.cli.names import Location, Name, Names, option_of, points_option, where_options
from hierarchical_lvae.presentation.figures import describe, draw_importance
from hierarchical_lvae.presentation.scores import NOTES, lines, table

if TYPE_CHECKING:
    from hierarchical_lvae.runs import Run


@click.command(short_help="Score RUN: codes, images, likelihood.")
@click.argument("run", type=Location())
@click.option("--metrics", type=Names(SCORES), default=",".join(SCORES), show_default=True, help="What to compute.")
@option_of(ScoreSettings, "codes", type=Name(CODES), help="Which encoder's codes.")
@option_of(ScoreSettings, "seed", help="Of points, neighbours and classifiers.")
@points_option("To fit on, to test on.")
@option_of(ScoreSettings, "draws", help="Of the codes, for IWAE.")
@option_of(ScoreSettings, "images", help="Generated and real, for FID.")
@option_of(ScoreSettings, "features", type=Name(FEATURES), help="What the distance sees.")
@option_of(ScoreSettings, "inception_weights", type=Location(), help="Their file [default: torch hub's, or downloaded]")
@click.option("--against", type=Location(), multiple=True, help="Another run, set beside; repeatable.")
@where_options
def evaluate(
    run: Path, metrics: tuple[str, ...], points: tuple[int, int], against: tuple[Path, ...], dataset: Path | None,
    data_dir: Path | None, device: str, **amounts: Any,
) -> None:  # fmt: skip
    """Score RUN, print a table, and leave metrics.json in it; what stands there already is not computed again.

    Disentanglement by DCI, MIG, SAP, the FactorVAE and BetaVAE scores and modularity, with the field's settings;
    whether pictures follow the code or the local weights when both are swapped (swap); generated images by FID, KID,
    precision and recall, and by how close they come to their references and to the data; likelihood by ELBO and IWAE,
    of points that were adapted on and of points that were not.

    FID is called so only with the reference weights of Inception. Where they are not to be had, the distance is one of
    features of the data's own factors, FD-factors.

    Scores do not depend on each other: one that fails is a line of the table that says why, the others are computed and
    saved, and the exit code is 1. A run that cannot be read is left out likewise. Factors that are constant, or have a
    value of their own for almost every point, are left out. In a read-only directory nothing is saved, with a warning.
    A pretrained run (see `hlvae data list`) is copied to runs/NAME first.

    \b
    Examples:
      hlvae evaluate runs/first
      hlvae evaluate runs/local --metrics dci,mig --codes meta --against runs/plain
      hlvae evaluate pretrained:3dshapes-local --metrics swap --against pretrained:3dshapes-plain
    """
    from hierarchical_lvae.runs import load_run
    from hierarchical_lvae.runs.pretrained import own_copy

    settings = ScoreSettings(train=points[0], test=points[1], **amounts)
    failures = Failures()
    runs: dict[Path, Run] = {}
    for path in (run, *against):
        with failures.of(str(path)):
            runs[path] = load_run(own_copy(path), device, data_dir, dataset)
    for why in failures.names if runs else ():
        click.echo(f"Left out: {why}", err=True)
    columns = {}
    for path, loaded in runs.items():
        of = f" of {path}" if len(runs) > 1 else ""
        columns[path] = scored(loaded, path, metrics, settings, failures, of)
    if any(columns.values()):
        click.echo()
        for line in table(columns):
            click.echo(line)
        used = settings.within(min(len(loaded.dataset) for loaded in runs.values()))
        click.echo(
            f"\ncodes: {used.codes} · points: {used.train:,} to fit on, {used.test:,} to test on · seed {used.seed}"
        )
        for of, note in NOTES.items():
            if set(of.split()) & set(metrics):
                click.echo(note)
    failures.end()


def scored(
    loaded: "Run", path: Path, metrics: tuple[str, ...], settings: ScoreSettings, failures: Failures, of: str
) -> dict[str, str]:
    """Score one run and draw its importances; returns its column of the table, texts by label."""
    from hierarchical_lvae.analysis import score

    column, scores = dict[str, str](), dict[str, dict[str, Any]]()
    with failures.of(f"metrics.json{of}"):
        for name, values in score(loaded, metrics, settings):
            scores[name] = values
            column |= {label: in_flags(text) for label, text in lines(name, values)}
            if "failed" in values:
                failures.add(f"{name}{of}", values["failed"])
    click.echo(f"{path}: {describe(loaded)}")
    found = scores.get("dci", {})
    for part, values in found.get("parts", {"": found}).items():
        if "importance" in values:
            with failures.of(f"importance figure{of}", writes=True):
                click.echo(draw_importance(loaded, values, settings.codes, part))
    return column
