"""The runs of a table: train and score each of them once, several at a time.

Runs are stored in DIRECTORY/ROW-SEED, and scores in each run's `metrics.json`. A run that has finished or diverged is
not trained again, and an interrupted run is resumed. If a run diverges or fails, its result has a remark instead of
values, and the others continue.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from joblib import Parallel, cpu_count, delayed, parallel_config

from hierarchical_lvae import progress
from hierarchical_lvae.analysis import ScoreSettings, key_of, read_scores, score
from hierarchical_lvae.experiments.paper import Place, Row, Table
from hierarchical_lvae.runs import FitOptions, load_run, read_options
from hierarchical_lvae.runs.directory import ENDED, is_run, read_record, read_state
from hierarchical_lvae.training import fit, resume
from hierarchical_lvae.training.memory import keep_freed_memory
from hierarchical_lvae.types import Diverged, Interrupted, reason, suggestion

LOOK_EVERY, ANSWER_WITHIN, PATIENCE = 5.0, 20.0, 60.0  # seconds
_ONE_PER_PROCESS = threading.Lock()  # all threads share the random state


class Workers(NamedTuple):
    """Where runs are computed."""

    jobs: int = 1
    """How many runs at a time, in processes that share the cores of this machine."""
    dask: str | None = None
    """The address of a Dask scheduler to use instead; its cluster must see the same directories."""


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
    directory, workers = Path(directory).absolute(), workers or Workers()
    here = workers == Workers()
    tasks, steps = [], {}
    for row, given, path in runs_of(table, directory, preset, seeds, rows, options):
        if finished_only:
            try:
                if read_state(path).status in ENDED:
                    yield read_row(table, row, path, settings)
            except (OSError, ValueError) as error:
                nothing = (None,) * len(table.columns)
                yield Result(row, given, path, nothing, {}, remark=f"failed: {reason(error)}")
            continue
        call = delayed(run_row if here else _run_apart if workers.dask else _run_in_a_child)
        tasks.append(call(table, row, given, path, settings))
        steps[path] = given.steps
    if not tasks:
        return
    with _backend(workers), _followed(steps) if progress.shown() and not here else nullcontext():
        yield from Parallel(return_as="generator_unordered", pre_dispatch="all")(tasks)


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
    except Diverged as error:
        return Result(row, options, path, nothing, {}, remark=f"diverged: {error}")
    except Exception as error:
        return Result(row, options, path, nothing, {}, remark=f"failed: {reason(error)}")
    values = tuple(_found(scores, place) for place in table.columns.values())
    failed = "; ".join(f"{name}: {score['failed']}" for name, score in scores.items() if "failed" in score)
    return Result(row, run.options, path, values, scores, run.dataset.source, failed and f"failed: {failed}")


def read_row(table: Table, row: Row, path: str | Path, settings: ScoreSettings | None = None) -> Result:
    """Read the result of one row whose run finished or diverged, with the scores for the codes that `settings` selects.

    Raises:
        ValueError: the run cannot be read.
    """
    path = Path(path)
    options, saved, state = read_options(path), read_scores(path), read_state(path)
    keys = {name: key_of(name, (settings or ScoreSettings()).codes) for name in table.metrics}
    scores = {name: saved[key] for name, key in keys.items() if key in saved}
    values = tuple(_found(scores, place) for place in table.columns.values())
    remark = f"diverged: {state.why}" if state.status == "diverged" else ""
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


def _run_in_a_child(*arguments: Any) -> Result:
    _end_with(os.getppid())  # Dask ends its own workers
    return _run_apart(*arguments)


def _run_apart(*arguments: Any) -> Result:
    keep_freed_memory()
    with progress.hidden():
        return run_row(*arguments)


@cache
def _end_with(parent: int) -> None:
    """End this worker when its parent has ended, for whatever reason; SIGTERM lets a fit write its checkpoint.

    On Windows the id of the parent never changes, so the worker finishes its run.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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


def _backend(workers: Workers) -> AbstractContextManager[Any]:
    """Configure joblib for these workers."""
    if workers.dask is not None:
        return parallel_config("dask", client=_client(workers.dask))
    threads = max(1, cpu_count() // workers.jobs)
    if workers.jobs == 1:
        return parallel_config("sequential")
    return parallel_config("loky", n_jobs=workers.jobs, inner_max_num_threads=threads)


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise OSError("Dask is not installed: pip install 'hierarchical-lvae[cluster]'") from error
    if not re.fullmatch(r"\w+://\S+|\S+:\d+", address):
        raise ValueError(f"{address!r} is not the address of a Dask scheduler: give one such as tcp://127.0.0.1:8786")
    try:
        return Client(address, timeout=ANSWER_WITHIN)
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler answers at {address} ({error}): is it running?") from error


@contextmanager
def _followed(steps: Mapping[Path, int]) -> Iterator[None]:
    """Show the progress of runs in other processes, read from their checkpoints."""

    def done() -> int:
        total = 0
        for path, number in steps.items():
            with suppress(OSError, ValueError):  # the run itself reports the error
                total += min(read_state(path).step or 0, number)
        return total

    def follow() -> None:
        while not ended.wait(LOOK_EVERY):
            bar.update(done() - bar.n)

    ended = threading.Event()
    with progress.bar(
        desc="steps of all runs", total=sum(steps.values()), initial=done(), unit="step", smoothing=0
    ) as bar:
        watcher = threading.Thread(target=follow, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            bar.update(done() - bar.n)
