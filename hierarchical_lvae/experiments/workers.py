"""Where runs are computed: in this process, in several processes of this machine, or on a Dask cluster."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from joblib import Parallel, cpu_count, delayed, parallel_config

from hierarchical_lvae import progress
from hierarchical_lvae.runs.directory import read_log, read_state
from hierarchical_lvae.training.memory import keep_freed_memory

LOOK_EVERY, ANSWER_WITHIN, PATIENCE = 5.0, 20.0, 60.0  # seconds


class Workers(NamedTuple):
    """Where runs are computed."""

    jobs: int = 1
    """How many runs at a time, in processes that share the cores of this machine."""
    dask: str | None = None
    """The address of a Dask scheduler to use instead; its cluster must see the same directories."""


def at_a_time(device: str) -> int:
    """The usual number of runs at a time: one per core; one on a GPU."""
    return 1 if device.startswith("cuda") else cpu_count()


def compute(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], workers: Workers, steps: Mapping[Path, int]
) -> Iterator[Any]:
    """Call `function` with the arguments of each task; yield what it returns once it is ready, in any order.

    Args:
        steps: the steps of each run, to show the progress of runs in other processes.

    Raises:
        OSError: the Dask cluster does not answer, or Dask is not installed.
        ValueError: the address of its scheduler is not one.
    """
    if not tasks:
        return
    workers = workers._replace(jobs=min(workers.jobs, len(tasks)))
    here = workers == Workers()
    call = delayed(function if here else partial(_run_apart if workers.dask else _run_in_a_child, function))
    followed = _followed(steps) if progress.shown() and not here else nullcontext()
    patient = nullcontext() if here or workers.dask else _stopped_after_their_checkpoints(steps)
    with _backend(workers), followed, patient:
        yield from Parallel(return_as="generator_unordered", pre_dispatch="all")(call(*task) for task in tasks)


def _run_in_a_child(function: Callable[..., Any], *arguments: Any) -> Any:
    _end_with(os.getppid())  # Dask ends its own workers
    return _run_apart(function, *arguments)


def _run_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    keep_freed_memory()
    with progress.hidden():
        return function(*arguments)


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


@contextmanager
def _stopped_after_their_checkpoints(runs: Iterable[Path]) -> Iterator[None]:
    """On Ctrl-C, wait until each fit has written a checkpoint; joblib kills the workers once this process stops.

    A terminal sends Ctrl-C to the workers, too, where it stops the fits. A second Ctrl-C stops at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.getsignal(signal.SIGINT)

    def wait(number: int, frame: Any) -> None:
        signal.signal(number, usual)
        until = time.monotonic() + ANSWER_WITHIN
        training = [*filter(_is_training, runs)]
        while any(map(_is_training, training)) and time.monotonic() < until:
            time.sleep(0.1)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _is_training(run: Path) -> bool:
    with suppress(OSError, ValueError):
        return read_state(run).status == "running"
    return False


def _backend(workers: Workers) -> AbstractContextManager[Any]:
    """Configure joblib for these workers."""
    if workers.dask is not None:
        return parallel_config("dask", client=_client(workers.dask))
    if workers.jobs == 1:
        return parallel_config("sequential")
    threads = max(1, cpu_count() // workers.jobs)
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
    """Show the progress of runs in other processes, read from their logs and checkpoints."""

    def done() -> int:
        total = 0
        for path, number in steps.items():
            with suppress(OSError, ValueError):  # the run itself reports the error
                logged = [entry["step"] for entry in read_log(path)]
                total += min(max(read_state(path).step or 0, *logged[-1:], 0), number)
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
