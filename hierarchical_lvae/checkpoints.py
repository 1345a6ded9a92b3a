"""Files that are whole or absent: each is written beside its place and moved there in one step.

A checkpoint is one file, `state.safetensors`: what was not in it when the process died is done again.
"""

import errno
import fcntl
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

LOCK = ".lock"
NEIGHBOURHOOD, PENALTY = "neighbourhood.", "penalty."
"""How the names of a neighbourhood's tensors, and of a penalty's, begin in a checkpoint."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same directory, which is made if need be; on success it replaces `path`, on failure
    it is removed.

    Raises:
        OSError: with the cause and a remedy; what stood at `path` before is intact.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _explained(path, error) from error
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of any shapes by name as safetensors, atomically; equal tensors give equal bytes."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Read what `write_tensors` wrote: the tensors, of any shapes, whose names begin with a prefix, which is taken off.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): restore it, or fit anew") from error


def append_json_line(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line to a log; a number that is not finite becomes null.

    Raises:
        OSError: the log cannot be written.
    """
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()}
    try:
        with path.open("a") as file:
            file.write(json.dumps(finite, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a later checkpoint must not outlive it
    except OSError as error:
        raise _explained(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON object ({error}): restore it, or move it away") from error
    return content


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log, up to one that is no line of a log: there the process died as it wrote."""
    entries: list[dict[str, Any]] = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
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
    with atomic(path) as temporary:
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))


@contextmanager
def claimed(path: Path, new: bool) -> Iterator[None]:
    """Hold a run directory for this process; a new one is made, and removed again if nothing was written to it.

    Raises:
        FileExistsError: a new directory holds something already.
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    if new and path.is_dir() and not all(file.name.startswith(".") for file in path.iterdir()):
        resumable = f", or go on with --resume {path}" if (path / "options.json").exists() else ""
        raise FileExistsError(f"{path} holds files already: choose another --out{resumable}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("w")
    except OSError as error:
        raise _explained(path, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another process is training in {path}: wait for it, or choose another --out"
            ) from None
        for leftover in path.glob(".*-*"):  # of a process that was killed as it wrote
            leftover.unlink()
        try:
            yield
        finally:
            if [file.name for file in path.iterdir()] == [LOCK]:
                (path / LOCK).unlink()
                path.rmdir()


def pack(
    vae: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    states: Mapping[str, Mapping[str, Tensor]],
    step: int,
    losses: list[float],
) -> dict[str, Tensor]:
    """All that a fit needs to go on exactly: tensors of any shapes by name, in `states` those of others by prefix."""
    tensors = {f"vae.{name}": value for name, value in vae.state_dict().items()}
    tensors |= moments(optimizer)
    tensors |= {f"{prefix}{name}": value for prefix, state in states.items() for name, value in state.items()}
    tensors |= {"step": torch.tensor(step), "losses": torch.tensor(losses, dtype=torch.float64)}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()  # of the current device, which is the fit's
    return tensors


def unpack(
    tensors: Mapping[str, Tensor],
    vae: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
) -> tuple[int, list[float]]:
    """Put what `pack` gave, tensors of any shapes, back in place, but for the states of others (see `named`).

    Returns the step and the losses not yet logged.

    Raises:
        ValueError: they are of another model, or not all there.
    """
    try:
        vae.load_state_dict(named(tensors, "vae."))
        restore_moments(optimizer, tensors)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])
        return int(tensors["step"]), tensors["losses"].tolist()
    except (KeyError, IndexError, TypeError, RuntimeError, ValueError) as error:  # of whatever is not as it was packed
        raise ValueError(f"it is no checkpoint of this model ({_first_line(error)})") from error


def named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those (of any shapes) whose names begin with a prefix, which is taken off.

    >>> named({"a.x": torch.tensor(1), "b.x": torch.tensor(2)}, "b.")
    {'x': tensor(2)}
    """
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer has gathered, of any shapes, by name: optimizer.INDEX.KEY."""
    slots = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value for i, values in slots.items() for key, value in values.items()}


def restore_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `moments` gave, tensors of any shapes, found by its names."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in named(tensors, "optimizer.").items():
        index, key = name.split(".")
        slots.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _explained(path: Path, error: OSError) -> OSError:
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free space there" if full else "make that place writable, or choose another"
    return OSError(f"{path} cannot be written ({reason}): {remedy}")
