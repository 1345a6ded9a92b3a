"""`hlvae evaluate`: score a run, print a table and write metrics.json."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hierarchical_lvae.analysis import CODES, FEATURES, SCORES, ScoreSettings
from hierarchical_lvae.cli.failures import Failures, in_flags
from hierarchical_lvae.cli.names import Location, Name, Names, option_of, points_option, where_options
from hierarchical_lvae.presentation.scores import has_numbers, lines, notes, table
from hierarchical_lvae.presentation.titles import describe

if TYPE_CHECKING:
    from hierarchical_lvae.runs import Run


@click.command(short_help="Score the codes, images and likelihood of RUN.")
@click.argument("run", type=Location())
@click.option("--metrics", type=Names(SCORES), default=",".join(SCORES), show_default=True, help="Scores to compute.")
@option_of(ScoreSettings, "codes", type=Name(CODES), help="Encode with the local (adapted) or the meta encoder.")
@option_of(ScoreSettings, "seed", help="Random seed for points, neighbours and classifiers.")
@points_option("Number of points for fitting and for testing classifiers.")
@option_of(ScoreSettings, "draws", help="Draws of the codes for IWAE.")
@option_of(ScoreSettings, "images", help="Number of generated and of real images for FID.")
@option_of(ScoreSettings, "features", type=Name(FEATURES), help="Features for the Fréchet distance.")
@option_of(
    ScoreSettings,
    "inception_weights",
    type=Location(),
    help="File with the Inception weights [default: torch hub's, or downloaded]",
)
@click.option("--against", type=Location(), multiple=True, help="Another run to score in the same table; repeatable.")
@where_options
def evaluate(
    run: Path, metrics: tuple[str, ...], points: tuple[int, int], against: tuple[Path, ...], dataset: Path | None,
    data_dir: Path | None, device: str, **amounts: Any,
) -> None:  # fmt: skip
    """Score RUN, print a table and save the scores to RUN/metrics.json. Scores already saved there are reused.

    Disentanglement is measured by DCI, MIG, SAP, the FactorVAE and BetaVAE scores and modularity, with the usual
    settings from the literature. The swap score shows whether each factor of an image follows the code or the local
    weights when these come from different images. Generated images are scored by FID, KID, precision and recall (fid),
    and by their distances to their references and to the training images (samples). ELBO and IWAE (iwae) bound the
    likelihood under the local weights, of the points used for adaptation and of held-out points.

    The name FID is used only with the reference Inception weights. If they are not available, the distance is computed
    on features of a classifier of the data's own factors and is called FD-factors.

    Scores are independent: if one fails, the table gives the reason, the others are computed and saved, and the exit
    code is 1. A run that cannot be read is skipped in the same way. Factors that are constant, or that have a different
    value for almost every point, are excluded. If the directory is read-only, a warning is printed and nothing is
    saved. A pretrained run (see `hlvae data list`) is first copied to runs/NAME.

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
        click.echo(f"Skipped: {why}", err=True)
    columns, shown = {}, set[str]()
    for path, loaded in runs.items():
        of = f" of {path}" if len(runs) > 1 else ""
        columns[path], with_numbers = scored(loaded, path, metrics, settings, failures, of)
        shown |= with_numbers
    if any(columns.values()):
        click.echo()
        for line in table(columns):
            click.echo(line)
        if shown:
            parts = [part for loaded in runs.values() for part in loaded.dataset.sub_sets]
            scored_on = [(part.name, settings.within(part.stop - part.start)) for part in parts]
            drawn = dict.fromkeys(
                f"{used.train:,} for fitting, {used.test:,} for testing" + (name and f" ({name})")
                for name, used in scored_on
            )
            click.echo(f"\ncodes: {settings.codes} · points: {'; '.join(drawn)} · seed {settings.seed}")
        for note in notes(shown):
            click.echo(note)
    failures.end()


def scored(
    loaded: "Run", path: Path, metrics: tuple[str, ...], settings: ScoreSettings, failures: Failures, of: str
) -> tuple[dict[str, str], set[str]]:
    """Score one run and draw its importances.

    Returns:
        Its column of the table, as text by label, and the names of the scores that have numbers.
    """
    from hierarchical_lvae.analysis import score
    from hierarchical_lvae.presentation.figures import draw_importance

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
    return column, {name for name, values in scores.items() if has_numbers(values)}
