"""The commands that train and score the runs of a table: what `hlvae reproduce --dry-run` prints."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hierarchical_lvae.analysis import ScoreSettings
from hierarchical_lvae.experiments.paper import Table
from hierarchical_lvae.experiments.rows import runs_of
from hierarchical_lvae.runs.directory import command, is_run, read_options, read_state
from hierarchical_lvae.runs.options import FitOptions


def plan(
    table: Table,
    directory: str | Path,
    preset: str,
    seeds: Sequence[int] = (0,),
    rows: Sequence[str] = (),
    settings: ScoreSettings | None = None,
    **options: Any,
) -> Iterator[str]:
    """Yield the commands that would train and score the rows, in order. The arguments are those of `run_table`.

    An existing run is resumed if it is not finished or has fewer steps. (`evaluate` keeps existing scores.)
    """
    for _, given, path in runs_of(table, Path(directory), preset, seeds, rows, options):
        if not is_run(path):
            yield fit_command(given, path, preset)
        elif (status := read_state(path).status) == "diverged":
            continue
        elif given.steps > read_options(path).steps:
            yield command("resume", path, "--steps", str(given.steps))
        elif status != "finished":
            yield command("resume", path)
        if table.metrics:
            yield command("evaluate", path, "--metrics", ",".join(table.metrics), *_score_words(settings))


def _score_words(settings: ScoreSettings | None) -> list[str]:
    usual, settings = ScoreSettings(), settings or ScoreSettings()
    words = []
    if (settings.train, settings.test) != (usual.train, usual.test):
        words += ["--points", str(settings.train), str(settings.test)]
    for name in ("codes", "images", "features", "inception_weights"):
        if (value := getattr(settings, name)) != getattr(usual, name):
            words += ["--" + name.replace("_", "-"), str(value)]
    return words


def fit_command(options: FitOptions, path: str | Path, preset: str) -> str:
    """Format the `hlvae fit` command for these options; it names the options that differ from the preset's.

    >>> fit_command(FitOptions.of("quick", dataset="digits", alpha=0.0, seed=3), "runs/plain", "quick")
    'hlvae fit --dataset digits --preset quick --alpha 0.0 --seed 3 --out runs/plain'
    """
    wanted, given = asdict(options), dict[str, Any]()
    for name in [*wanted, *wanted]:  # twice: an option that is given changes the defaults of others
        usual = getattr(FitOptions.of(preset, dataset=options.dataset, **given), name)
        given |= {name: wanted[name]} if wanted[name] != usual else {}
    words = ["hlvae", "fit", "--dataset", options.dataset, "--preset", preset]
    for name in [name for name in wanted if name in given]:
        flag, value = "--" + name.replace("_", "-"), given[name]
        words += [flag] if value is True else [flag, str(value)]
    return shlex.join([*words, "--out", str(path)])
