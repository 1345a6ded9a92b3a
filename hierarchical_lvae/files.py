"""Atomic file writing: each file is written to a temporary file in the same directory, then renamed.

Names of temporary files begin with `.hlvae-`, which no other program uses, and `sweep` deletes no other files. Text is
encoded as UTF-8 whatever the locale; permissions follow the umask.
"""

import atexit
import contextlib
import errno
import importlib
import json
import logging
import math
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.optim import Optimizer

TEMPORARY = ".hlvae-"
"""Prefix of the names of temporary files."""
ABANDONED = 3600.0
"""Seconds since its last change after which a temporary file is taken to have no writer."""
UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""Error numbers of file systems and platforms without locks."""
ASK_EVERY = 0.1
"""Seconds between two attempts to take a lock on Windows, which cannot wait for one without a limit."""

log = logging.getLogger(__name__)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces `path` on success and is deleted on failure.

    The temporary file is in the directory of `path`, which is created if necessary.

    Raises:
        OSError: the file cannot be written, with the cause and a remedy; any previous file at `path` is intact.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{path.stem[:100]}-{secrets.token_hex(4)}{path.suffix}")
    made = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # the umask applies
        made = True
        yield temporary
        with temporary.open("r+b") as file:  # Windows syncs only files that are open for writing
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if made:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, path, temporary):
            raise explained(path, error) from error
        raise


def _is_about(error: OSError, path: Path, temporary: Path) -> bool:
    """Whether an error comes from writing this file, and not from other work inside the `with` block."""
    if error.filename is None:
        return not isinstance(error, BrokenPipeError)
    own = {temporary.absolute(), path.absolute(), *path.absolute().parents}
    return isinstance(error.filename, str | Path) and Path(error.filename).absolute() in own


def occupied(path: Path) -> bool:
    """Whether `path` exists; call this before computing the content of the file to be written there.

    Raises:
        OSError: no file can be written there.
    """
    try:
        there = path.exists()
        parent = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    except OSError as error:
        raise explained(path, error) from error
    for number, met in ((errno.ENOTDIR, parent.is_dir()), (errno.EACCES, os.access(parent, os.W_OK | os.X_OK))):
        if not met:
            raise explained(path, OSError(number, os.strerror(number)))
    return there


def sweep(directory: Path) -> None:
    """Delete temporary files of processes that were killed while writing, but no other file and no directory."""
    for leftover in directory.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):  # already gone, or no permission to delete it: harmless
            if leftover.is_file() and time.time() - leftover.stat().st_mtime > ABANDONED:
                leftover.unlink()


@contextmanager
def locked(path: Path, held: str = "") -> Iterator[bool]:
    """Hold a lock on the file `path`, which is created and kept; yield whether there are locks here.

    The system releases the lock if this process is killed. On Windows the lock is mandatory: give an empty file.

    Args:
        path: the lock file.
        held: the error message if another process holds the lock; if empty, wait for that process.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file cannot be created.
    """
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise explained(path, error) from error
    with file:
        try:
            _lock(file.fileno(), wait=not held)
            supported = True
        except BlockingIOError:
            raise BlockingIOError(held) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            log.warning("%s does not support locks (%s): do not use it from two processes", path.parent, error.strerror)
            supported, is_empty = False, file.tell() == 0
            file.close()
            if is_empty:
                path.unlink(missing_ok=True)
        yield supported


def delete_lock(path: Path) -> None:
    """Delete a lock file while holding its lock, except on Windows, which deletes no open file: there it stays."""
    with contextlib.suppress(PermissionError):
        path.unlink(missing_ok=True)


def _lock(descriptor: int, wait: bool) -> None:
    """Lock an open file until it is closed.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: there are no locks here.
    """
    try:
        import fcntl
    except ImportError:
        _lock_on_windows(descriptor, wait)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _lock_on_windows(descriptor: int, wait: bool) -> None:
    try:
        msvcrt = importlib.import_module("msvcrt")
    except ImportError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    while True:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return
        except PermissionError:
            if not wait:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        time.sleep(ASK_EVERY)


@cache
def scratch() -> Path:
    """A temporary directory of this process, deleted when it ends."""
    directory = tempfile.mkdtemp(prefix="hlvae-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8 atomically; what UTF-8 cannot encode, such as parts of some file names, is escaped."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors atomically; equal tensors give equal bytes."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read tensors by name, as `write_tensors` writes them.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return load(Path(path).read_bytes())  # safetensors itself cannot open paths that are not UTF-8
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it, or fit again") from error


def append_json_line(path: Path, content: Mapping[str, Any]) -> None:
    """Append a JSON line to a log; non-finite numbers become null.

    Raises:
        OSError: the log cannot be written.
    """
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()}
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint written later must not survive a crash that loses this line
    except OSError as error:
        raise explained(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: the file does not hold a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON object ({error}): restore it, or move it away") from error
    return content


def explained(path: Path, error: OSError) -> OSError:
    """Return the error for a file that cannot be written, with a remedy and the original `errno`."""
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free up space there" if full else "make that location writable, or choose another"
    with_remedy = OSError(f"{path} cannot be written ({reason}): {remedy}")
    with_remedy.errno = error.errno
    return with_remedy


def named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, which is removed.

    >>> import torch
    >>> named({"a.x": torch.tensor(1), "b.x": torch.tensor(2)}, "b.")
    {'x': tensor(2)}
    """
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def moments(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimizer as tensors named optimizer.INDEX.KEY."""
    slots = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value for i, values in slots.items() for key, value in values.items()}


def restore_moments(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state that `moments` returned."""
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in named(tensors, "optimizer.").items():
        index, key = name.split(".")
        slots.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
