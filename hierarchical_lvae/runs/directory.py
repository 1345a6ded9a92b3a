"""The run directory and its lock. Only this module reads and writes the files of a fit.

| file | content |
|---|---|
| `options.json` | the options of the fit, with versions and the data's fingerprint |
| `model.safetensors` | the weights |
| `state.safetensors`, `state.json` | the checkpoint, and the progress of the fit |
| `log.jsonl` | one line every 50 steps |
| `metrics.json`, `compare.csv`, `posterior.nc`, `figures/`, `report.html` | the output of other commands |
"""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hierarchical_lvae import __version__
from hierarchical_lvae.data import FactorImages
from hierarchical_lvae.files import (
    TEMPORARY,
    append_json_line,
    delete_lock,
    explained,
    locked,
    read_json,
    read_tensors,
    sweep,
    write_json,
    write_tensors,
    write_text,
)  # fmt: skip
from hierarchical_lvae.runs.options import FitOptions
from hierarchical_lvae.runs.pretrained import check_writable, located

OPTIONS, MODEL, CHECKPOINT, STATE, LOG = (
    "options.json", "model.safetensors", "state.safetensors", "state.json", "log.jsonl"
)  # fmt: skip
LOCK = ".hlvae.lock"
ENDED = "finished", "diverged"


class State(NamedTuple):
    """The progress of a fit."""

    status: str
    """"running", "interrupted", "finished" or "diverged"; "new" before the first checkpoint; "unknown" if there are
    weights but no record of how long they were trained."""
    step: int | None = None
    """Steps done at the last checkpoint."""
    steps: int | None = None
    """Steps in total."""
    why: str = ""
    """How the fit diverged."""

    def __str__(self) -> str:
        """Status and steps, for a message.

        >>> str(State("interrupted", 50, 110)), str(State("unknown"))
        ('interrupted at step 50 of 110', 'unknown')
        """
        if self.step is None:
            return self.status
        return f"{self.status} at step {self.step:,}" + ("" if self.steps is None else f" of {self.steps:,}")


def read_options(path: str | Path) -> FitOptions:
    """Read the options of a run directory; missing ones, except `dataset`, take their defaults.

    Raises:
        FileNotFoundError: `path` is not a run directory.
        ValueError: its options cannot be read, or no pretrained run has that name.
    """
    saved, file = read_record(path), located(path) / OPTIONS
    try:
        names = ["dataset", *(field.name for field in fields(FitOptions) if field.name in saved)]
        return FitOptions(**{name: saved[name] for name in names})
    except (KeyError, ValueError, TypeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{file} does not hold the options of a fit ({why}): restore it, or fit again") from error


def read_record(path: str | Path) -> dict[str, Any]:
    """Read options.json as saved: the options, the `data` (source, fingerprint) and the `versions`.

    Raises:
        FileNotFoundError: `path` is not a run directory.
        ValueError: the file is damaged, or no pretrained run has that name.
    """
    path = located(path)
    if not is_run(path):
        if path.exists():
            why = "it has no options.json" if path.is_dir() else "it is a file"
            raise FileNotFoundError(f"{path} is not a run directory ({why}): give the directory that a fit wrote")
        creates = shlex.join(["hlvae", "fit", "--dataset", "…", "--out", str(path)])
        raise FileNotFoundError(f"{path} is not a run directory (it does not exist): `{creates}` creates one")
    saved = read_json(path / OPTIONS)
    return saved | {key: saved[key] if isinstance(saved.get(key), dict) else {} for key in ("data", "versions")}


def write_options(path: Path, options: FitOptions, dataset: FactorImages) -> None:
    """Write options.json; from then on the run can be resumed."""
    data = {"source": dataset.source, "images": len(dataset), "fingerprint": dataset.fingerprint}
    versions = {"hierarchical-lvae": __version__, **{name: version(name) for name in ("torch", "pyro-ppl", "numpy")}}
    write_json(path / OPTIONS, {**asdict(options), "preset": options.preset, "data": data, "versions": versions})


def is_run(path: Path) -> bool:
    """Whether a directory is a run directory."""
    return (path / OPTIONS).is_file()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a run.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: the file is damaged.
    """
    if not (path / MODEL).is_file():
        why = "the file was lost" if (path / CHECKPOINT).is_file() else "the fit never started"
        raise FileNotFoundError(f"{path} has no model.safetensors ({why}): `{command('resume', path)}` writes it")
    return read_tensors(path / MODEL)


def read_checkpoint(path: Path) -> dict[str, Tensor] | None:
    """Read the checkpoint of a run, if there is one.

    Raises:
        ValueError: the file is damaged.
    """
    return read_tensors(path / CHECKPOINT) if (path / CHECKPOINT).exists() else None


def write_checkpoint(path: Path, checkpoint: dict[str, Tensor], weights: dict[str, Tensor], state: State) -> None:
    """Write the checkpoint, the weights in a file of their own, and the state of the fit."""
    write_tensors(path / CHECKPOINT, checkpoint)
    write_tensors(path / MODEL, weights)
    write_state(path, state)


def read_state(path: str | Path) -> State:
    """Read the state of a fit from `state.json` or, if that is missing, from the checkpoint.

    Raises:
        ValueError: `state.json` is damaged.
    """
    path = Path(path)
    if (path / STATE).is_file():
        try:
            saved = read_json(path / STATE)
            return State(str(saved["status"]), int(saved["step"]), int(saved["steps"]), str(saved.get("why", "")))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path / STATE} is damaged: `{command('resume', path)}` writes it again") from error
    if (path / CHECKPOINT).is_file():  # the process died between writing the two files
        steps = read_json(path / OPTIONS).get("steps") if (path / OPTIONS).is_file() else None
        step = int(read_tensors(path / CHECKPOINT)["step"])
        return State("finished" if step == steps else "interrupted", step, steps)
    return State("unknown" if (path / MODEL).is_file() else "new")


def write_state(path: Path, state: State) -> None:
    """Write `state.json`, without `why` if that is empty."""
    write_json(path / STATE, {key: value for key, value in state._asdict().items() if value != ""})


def command(name: str, path: str | Path, *options: str) -> str:
    """Format a shell command for a run directory; "resume" stands for `hlvae fit --resume`.

    >>> command("evaluate", "runs/my first", "--metrics", "dci")
    "hlvae evaluate 'runs/my first' --metrics dci"
    """
    words = ["fit", "--resume"] if name == "resume" else [name]
    return shlex.join(["hlvae", *words, str(path), *options])


@contextmanager
def claimed(path: Path, new: bool) -> Iterator[None]:
    """Lock a run directory for this process. It is created if missing, and then removed again if it stays empty.

    Raises:
        FileExistsError: the directory is to be new, but it is not empty, or `path` is a file.
        ValueError: it is a pretrained run of the package.
        BlockingIOError: another process holds the lock.
        OSError: the directory cannot be created.
    """
    check_writable(path)
    there = path.is_dir()
    if not there and path.exists():
        raise FileExistsError(f"{path} is a file, not a directory: choose another `out`")
    if new and there and (others := [file.name for file in path.iterdir() if not _is_ours(file.name)]):
        resumable = f", or continue that run with `{command('resume', path)}`" if OPTIONS in others else ""
        raise FileExistsError(
            f"{path} is not empty (it holds {others[0]}{', …' if len(others) > 1 else ''}): "
            f"choose another `out`{resumable}"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(path, error) from error
    remedy = "wait for it, or choose another `out`" if new else "wait for it, or stop it"
    with locked(path / LOCK, f"another process is training in {path}: {remedy}"):
        sweep(path)
        sweep(path / "figures")
        try:
            yield
        finally:
            if not there and [file.name for file in path.iterdir()] in ([], [LOCK]):
                delete_lock(path / LOCK)
                with suppress(OSError):  # Windows keeps the lock file, and so the directory
                    path.rmdir()


def _is_ours(name: str) -> bool:
    """Whether a file is one that a fit leaves behind if it is killed before its first checkpoint."""
    return name == LOCK or name.startswith(TEMPORARY)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read a run's log up to the first damaged line: the process died while writing that line."""
    path = Path(path) / LOG
    entries: list[dict[str, Any]] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not (isinstance(entry, dict) and isinstance(entry.get("step"), int)):
            break
        entries.append(entry)
    return entries


def count_skipped(log: list[dict[str, Any]]) -> int:
    """How many steps the fit skipped because their loss or gradient was not finite.

    >>> count_skipped([{"step": 50, "skipped": 2}, {"step": 100}])
    2
    """
    return sum(entry.get("skipped", 0) for entry in log)


def truncate_log(path: Path, step: int) -> None:
    """Cut a run's log after `step`; the resumed fit writes the later lines again."""
    kept = [entry for entry in read_log(path) if entry["step"] <= step]
    write_text(path / LOG, "".join(json.dumps(entry) + "\n" for entry in kept))


def append_log(path: Path, entry: dict[str, Any]) -> None:
    """Append a line to a run's log."""
    append_json_line(path / LOG, entry)
