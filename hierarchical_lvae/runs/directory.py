"""A run directory: the lock on it, how far its fit came, and its log.

| file | what |
|---|---|
| `options.json` | the options of the fit, with versions and the data's fingerprint |
| `model.safetensors` | the weights |
| `state.safetensors`, `state.json` | the checkpoint, and how far it is |
| `log.jsonl` | a line every 50 steps |
| `metrics.json`, `compare.csv`, `posterior.nc`, `figures/`, `report.html` | what other commands leave |
"""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hierarchical_lvae.files import TEMPORARY, explained, locked, read_json, read_tensors, sweep, write_json, write_text

LOCK = ".hlvae.lock"
ENDED = "finished", "diverged"


class State(NamedTuple):
    """How far the fit of a run directory came."""

    status: str
    """"running", "interrupted", "finished" or "diverged"; "new" before the first checkpoint; "unknown" if the weights
    are there and nothing says how far they were trained."""
    step: int | None = None
    """Steps done at the last checkpoint."""
    steps: int | None = None
    """Steps to do."""
    why: str = ""
    """How it diverged."""

    def __str__(self) -> str:
        """Status and steps, for a message.

        >>> str(State("interrupted", 50, 110)), str(State("unknown"))
        ('interrupted at step 50 of 110', 'unknown')
        """
        if self.step is None:
            return self.status
        return f"{self.status} at step {self.step:,}" + ("" if self.steps is None else f" of {self.steps:,}")


def read_state(path: str | Path) -> State:
    """Read how far the fit of a run directory came; without `state.json`, from its checkpoint.

    Raises:
        ValueError: `state.json` is damaged.
    """
    path = Path(path)
    if (path / "state.json").is_file():
        try:
            saved = read_json(path / "state.json")
            return State(str(saved["status"]), int(saved["step"]), int(saved["steps"]), str(saved.get("why", "")))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path / 'state.json'} is damaged: `{command('resume', path)}` writes it again"
            ) from error
    if (path / "state.safetensors").is_file():  # the process died between the two files
        steps = read_json(path / "options.json").get("steps") if (path / "options.json").is_file() else None
        step = int(read_tensors(path / "state.safetensors")["step"])
        return State("finished" if step == steps else "interrupted", step, steps)
    return State("unknown" if (path / "model.safetensors").is_file() else "new")


def write_state(path: Path, state: State) -> None:
    """Write `state.json`; `why` only where there is a reason."""
    write_json(path / "state.json", {key: value for key, value in state._asdict().items() if value != ""})


def command(name: str, path: str | Path, *options: str) -> str:
    """A command on a run directory as it is typed; "resume" is `hlvae fit --resume`.

    >>> command("evaluate", "runs/my first", "--metrics", "dci")
    "hlvae evaluate 'runs/my first' --metrics dci"
    """
    words = ["fit", "--resume"] if name == "resume" else [name]
    return shlex.join(["hlvae", *words, str(path), *options])


@contextmanager
def claimed(path: Path, new: bool) -> Iterator[None]:
    """Hold a run directory for this process; a new one is made, and removed again if nothing was written to it.

    Raises:
        FileExistsError: a new directory holds something already.
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    there = path.is_dir()
    if new and there and (others := [file.name for file in path.iterdir() if not _is_ours(file.name)]):
        resumable = f", or continue that run with `{command('resume', path)}`" if "options.json" in others else ""
        raise FileExistsError(
            f"{path} is not empty (it holds {others[0]}{', …' if len(others) > 1 else ''}): "
            f"choose another `out`{resumable}"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(path, error) from error
    with locked(path / LOCK, f"another process is training in {path}: wait for it, or choose another `out`"):
        sweep(path)
        sweep(path / "figures")
        try:
            yield
        finally:
            if not there and [file.name for file in path.iterdir()] in ([], [LOCK]):
                (path / LOCK).unlink(missing_ok=True)
                path.rmdir()


def _is_ours(name: str) -> bool:
    """Whether an entry of a directory is what a fit leaves if it is killed before its first checkpoint."""
    return name == LOCK or name.startswith(TEMPORARY)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read the lines of a log, up to the first that is damaged: there the process died as it wrote."""
    path = Path(path)
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


def truncate_log(path: Path, step: int) -> None:
    """Leave the lines of a log up to `step`: the later ones will be written again."""
    kept = [entry for entry in read_log(path) if entry["step"] <= step]
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
