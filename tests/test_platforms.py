"""The package on other platforms, as far as Linux shows: without the modules and functions that Windows lacks."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import types

import pytest

from hierarchical_lvae import files
from hierarchical_lvae.files import locked
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.runs.directory import claimed
from hierarchical_lvae.training import fit, memory

OPTIONS = FitOptions.of("quick", dataset="digits", batch=2, num_neighbours=2, latent_dim=3, steps=3)
AS_ON_WINDOWS = """
import ctypes, os, sys

for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("sysconf", "sched_getaffinity", "getloadavg", "getpgid"):
    delattr(os, name)

class CDLL(ctypes.CDLL):
    def __init__(self, name, *args, **kwargs):
        if name is None:
            raise TypeError("argument should be str, bytes or os.PathLike, not NoneType")
        super().__init__(name, *args, **kwargs)

ctypes.CDLL = CDLL
"""
COMMAND = """
from hierarchical_lvae.cli import main
main()
"""
FROM_PYTHON = """
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit, resume

options = dict(dataset="digits", batch=2, num_neighbours=2, latent_dim=3, steps=3)
print(fit(FitOptions.of("quick", **options), "run").options.steps, resume("run", steps=4).options.steps)
"""
FIT = ["fit", "--dataset", "digits", "--preset", "quick", "--steps", "3", "-B", "2", "-K", "2", "--out", "run"]


def as_on_windows(code, cwd, *arguments):
    code = [sys.executable, "-c", AS_ON_WINDOWS + code, *arguments]
    return subprocess.run(code, cwd=cwd, capture_output=True, text=True)


def test_without_the_modules_of_unix_a_fit_trains_and_is_resumed(tmp_path):
    result = as_on_windows(FROM_PYTHON, tmp_path)
    assert result.stdout == "3 4\n", result.stderr


def test_and_so_do_the_commands(tmp_path):
    result = as_on_windows(COMMAND, tmp_path, *FIT)
    assert result.returncode == 0, result.stderr
    assert "does not support locks (Function not implemented)" in result.stderr
    assert (tmp_path / "run/figures/figure4.png").exists()
    for words in (["doctor"], ["bench", "-B", "1", "-K", "1", "--image-size", "8", "--rounds", "1", "--device", "cpu"]):
        result = as_on_windows(COMMAND, tmp_path, *words)
        assert result.returncode == 0, result.stderr
        assert "Error" not in result.stdout


@pytest.fixture
def msvcrt(monkeypatch):
    """Python's module on Windows, by `flock`: a lock of bytes from the current position, or a PermissionError."""
    tried = []

    def locking(descriptor, mode, number):
        tried.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, number))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2, tried=tried))
    return sys.modules["msvcrt"]


def test_the_lock_of_windows_holds_off_a_second_process(msvcrt, tmp_path):
    (tmp_path / "lock").write_text("text")  # the lock is on the first byte, not on the one after the last
    with locked(tmp_path / "lock") as supported:
        assert supported
        with pytest.raises(BlockingIOError, match="it is held"), locked(tmp_path / "lock", "it is held"):
            pass
    with locked(tmp_path / "lock", "it is held"):
        pass
    assert msvcrt.tried == [(0, 2, 1)] * 3


def test_there_it_can_be_waited_for(msvcrt, tmp_path, monkeypatch):
    asked = threading.Event()
    monkeypatch.setattr(files.time, "sleep", lambda seconds: asked.set())
    order = []

    def second():
        with locked(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path / "lock"):
        thread.start()
        assert asked.wait(60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_there_an_open_file_is_not_deleted(msvcrt, tmp_path, monkeypatch):
    """What went wrong is reported, and not that the directory stays, which the next fit takes for a new one."""

    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))

    with monkeypatch.context() as windows:
        windows.setattr("pathlib.Path.unlink", refuse)
        with pytest.raises(RuntimeError, match="early"), claimed(tmp_path / "run", new=True):
            raise RuntimeError("early")
    assert [file.name for file in (tmp_path / "run").iterdir()] == [".hlvae.lock"]
    fit(OPTIONS, tmp_path / "run")


def test_files_are_synced_through_a_descriptor_open_for_writing(tmp_path, monkeypatch):
    """Windows refuses others."""
    flags, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (flags.append(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE), fsync(file))
    )
    files.write_text(tmp_path / "text", "text")
    files.append_json_line(tmp_path / "log", {})
    assert flags == [os.O_RDWR, os.O_WRONLY]


@pytest.mark.parametrize("error", [TypeError, OSError])
def test_without_glibc_freed_memory_is_left_alone(monkeypatch, error):
    def refuse(name):
        raise error

    monkeypatch.setattr(memory.ctypes, "CDLL", refuse)
    assert not memory.keep_freed_memory()
    memory.give_back_freed_memory()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: types.SimpleNamespace())  # as on macOS
    assert not memory.keep_freed_memory()
    memory.give_back_freed_memory()


@pytest.mark.parametrize("answer", [None, -1, ValueError("unrecognized configuration name")])
def test_where_the_size_of_the_memory_is_unknown_no_step_is_refused(monkeypatch, answer):
    def sysconf(name):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(MemoryError, match="needs at least"):
        memory.check_step_fits(10**6, 10**6, (3, 64, 64))
    if answer is None:
        monkeypatch.delattr(os, "sysconf")
    else:
        monkeypatch.setattr(os, "sysconf", sysconf)
    assert memory.memory_of_machine() is None
    memory.check_step_fits(10**6, 10**6, (3, 64, 64))
