"""The runs of a table: train and score each of them once, several at a time.

Runs are stored in DIRECTORY/ROW-SEED, and scores in each run's `metrics.json`. A run that has finished or diverged is
not trained again, and an interrupted run is resumed. If a run diverges or fails, its result has a remark instead of
values, and the others continue.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hierarchical_lvae.analysis import ScoreSettings, key_of, model_digest, outdated, read_scores, score
from hierarchical_lvae.experiments.paper import Place, Row, Table
from hierarchical_lvae.experiments.workers import Workers, compute
from hierarchical_lvae.runs import FitOptions, load_run, read_options
from hierarchical_lvae.runs.directory import ENDED, is_run, read_record, read_state
from hierarchical_lvae.training import fit, resume
from hierarchical_lvae.types import Diverged, Interrupted, reason, suggestion

_ONE_PER_PROCESS = threading.Lock()  # all threads share the random state


@dataclass(frozen=True)
class Result:
    """One run of a row."""

    row: Row
    options: FitOptions
    path: Path
    values: tuple[float | None, ...]
    """One value per column; None where there is none."""
    scores: Mapping[str, Any]
    source: str = ""
    """The source of the data."""
    remark: str = ""
    """Why there are no values, if the run diverged or failed."""

    @property
    def seed(self) -> int:
        """The seed of the fit."""
        return self.options.seed

    @property
    def failed(self) -> bool:
        """Whether there was an error; a fit that diverged has not failed."""
        return self.remark.startswith("failed")


def run_table(
    table: Table,
    directory: str | Path,
    preset: str,
    seeds: Sequence[int] = (0,),
    rows: Sequence[str] = (),
    settings: ScoreSettings | None = None,
    finished_only: bool = False,
    workers: Workers | None = None,
    **options: Any,
) -> Iterator[Result]:
    """Train and score the rows of a table; yield each result once it is ready, in any order if there are several jobs.

    Args:
        table: an entry of `TABLES`.
        directory: where the runs are stored.
        preset: a key of `PRESETS`, for all fits.
        seeds: each row is trained once with each of these seeds.
        rows: names of the rows; all if empty.
        settings: how to compute the scores.
        finished_only: train and score nothing; only read the runs that finished or diverged, with any number of steps.
        workers: where to compute; by default in this process, one run after the other.
        options: further options of all fits, such as `device` or `steps`.

    Raises:
        ValueError: the table has no such row.
        Interrupted: a run received SIGINT or SIGTERM.
        OSError: the Dask cluster does not answer, or Dask is not installed.
    """
    known = [row.name for row in table.rows]
    if unknown := [name for name in rows if name not in known]:
        raise ValueError(f"no row is called {unknown[0]!r}: {suggestion(unknown[0], known)} (rows: {', '.join(known)})")
    runs = [*runs_of(table, Path(directory).absolute(), preset, seeds, rows, options)]
    if not finished_only:
        tasks = [(table, row, given, path, settings) for row, given, path in runs]
        yield from compute(run_row, tasks, workers or Workers(), {path: given.steps for _, given, path in runs})
        return
    for row, given, path in runs:
        try:
            if read_state(path).status in ENDED:
                yield read_row(table, row, path, settings)
        except (OSError, ValueError) as error:
            nothing = (None,) * len(table.columns)
            yield Result(row, given, path, nothing, {}, remark=f"failed: {reason(error)}")


def finished_beside(table: Table, rows: Sequence[str], **how: Any) -> tuple[Table, list[Result]]:
    """The table with these rows and all others that finished earlier, and the results of the others.

    `how`: the other arguments of `run_table`.
    """
    others = [row.name for row in table.rows if rows and row.name not in rows]
    found = [*run_table(table, rows=others, finished_only=True, **how)] if others else []
    there = {*rows, *(result.row.name for result in found)}
    return replace(table, rows=tuple(row for row in table.rows if not rows or row.name in there)), found


def runs_of(
    table: Table, directory: Path, preset: str, seeds: Sequence[int], rows: Sequence[str], options: Mapping[str, Any]
) -> Iterator[tuple[Row, FitOptions, Path]]:
    """Yield each row with the options and the directory of its fit. The arguments are those of `run_table`."""
    for row in table.rows:
        for seed in seeds if not rows or row.name in rows else ():
            given = fit_options(table, row, preset, {**options, "seed": seed})
            yield row, given, directory / f"{row.name}-{seed}"


def run_row(
    table: Table,
    row: Row,
    options: FitOptions,
    path: str | Path,
    settings: ScoreSettings | None = None,
) -> Result:
    """Train or resume one row, and score it; a failure is reported in the result.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived.
    """
    path, nothing = Path(path), (None,) * len(table.columns)
    try:
        with _ONE_PER_PROCESS:
            if not is_run(path):  # from then on it can be resumed
                fit(options, path)
            else:
                _refuse_others(options, path)
                if (state := read_state(path)).status == "diverged":
                    raise Diverged(state.why or "its state.json gives no reason")
                steps = max(options.steps, read_options(path).steps)
                if state.status != "finished" or (state.step or 0) < steps:  # a finished run may lack a checkpoint
                    resume(path, steps, options.data_dir, device=options.device)
            run = load_run(path, options.device, options.data_dir)
            scores = dict(score(run, table.metrics, settings))
    except Interrupted:
        raise
    except Exception as error:
        remark = f"diverged: {error}" if isinstance(error, Diverged) else f"failed: {reason(error)}"
        return Result(row, options, path, nothing, {}, remark=remark)
    values = tuple(_found(scores, place) for place in table.columns.values())
    failed = "; ".join(f"{name}: {score['failed']}" for name, score in scores.items() if "failed" in score)
    return Result(row, run.options, path, values, scores, run.dataset.source, failed and f"failed: {failed}")


def read_row(table: Table, row: Row, path: str | Path, settings: ScoreSettings | None = None) -> Result:
    """Read the result of one row whose run finished or diverged, with the scores for the codes that `settings` selects.

    Scores that are not current (see `outdated`) are ignored, and so are all scores of a run that diverged.

    Raises:
        ValueError: the run cannot be read.
    """
    path = Path(path)
    options, state, model = read_options(path), read_state(path), model_digest(path)
    diverged = state.status == "diverged"
    saved = {key: values for key, values in read_scores(path).items() if not (diverged or outdated(values, model))}
    keys = {name: key_of(name, (settings or ScoreSettings()).codes) for name in table.metrics}
    scores = {name: saved[key] for name, key in keys.items() if key in saved}
    values = tuple(_found(scores, place) for place in table.columns.values())
    remark = f"diverged: {state.why}" if diverged else ""
    if not remark and table.columns and not scores:
        remark = "not scored: leave out `finished_only`"
    source = read_record(path)["data"].get("source", "")
    return Result(row, options, path, values, scores, source, remark)


def fit_options(table: Table, row: Row, preset: str, options: Mapping[str, Any]) -> FitOptions:
    """The options of a row's fit. Its β multiplies that of the preset, which depends on the number of pixels."""
    given = {**table.options, **row.options}
    times = given.pop("beta", 1.0)
    usual = FitOptions.of(preset, **{**given, **options})
    return usual if options.get("beta") is not None else replace(usual, beta=usual.beta * times)


def _refuse_others(options: FitOptions, path: Path) -> None:
    """Raise if a run has other options; only the steps, the data directory and the device may differ."""
    begun = read_options(path)
    elsewhere = replace(begun, steps=options.steps, data_dir=options.data_dir, device=options.device)
    if elsewhere != options:
        raise ValueError(f"{path} was started with other options: choose another directory, or move it away")


def _found(scores: Any, place: Place) -> float | None:
    for key in place:
        scores = scores.get(key) if isinstance(scores, Mapping) else None
    return scores
