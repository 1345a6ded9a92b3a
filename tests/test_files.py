"""Files of ours are whole or absent, and files of others are never touched."""

import errno
import fcntl
import logging
import os
import stat
import subprocess
import sys
import time

import pytest

from hierarchical_lvae.files import ABANDONED, atomic, locked, read_json, sweep, write_json, write_tensors, write_text
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.runs.directory import State, claimed, command, read_state, write_state
from hierarchical_lvae.training import fit

OPTIONS = FitOptions.of("quick", dataset="digits", batch=2, num_neighbours=2, latent_dim=3, steps=1)
THEIRS = (".env-prod", ".pre-commit-config.yaml", ".lock", ".hlvaerc", "report.html")


def age(path):
    os.utime(path, (time.time() - ABANDONED - 1,) * 2)


@pytest.mark.parametrize("name", THEIRS)
def test_a_directory_with_a_file_of_others_is_not_empty(tmp_path, name):
    (tmp_path / name).write_text("precious")
    age(tmp_path / name)
    with pytest.raises(FileExistsError, match=f"is not empty \\(it holds {name}\\): choose another `out`"):
        fit(OPTIONS, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "precious"}


def test_nor_is_one_with_a_hidden_folder(tmp_path):
    (tmp_path / ".my-folder").mkdir()
    with pytest.raises(FileExistsError, match=r"it holds \.my-folder"):
        fit(OPTIONS, tmp_path)
    assert (tmp_path / ".my-folder").is_dir()


def test_only_old_temporary_files_of_ours_are_swept(tmp_path):
    (tmp_path / ".hlvae-folder").mkdir()
    (tmp_path / ".hlvae-link").symlink_to(tmp_path / ".hlvae-folder")
    for name in (".hlvae-old-01234567.json", ".hlvae-new-01234567.json", ".other-old", *THEIRS):
        (tmp_path / name).write_text("")
        if name != ".hlvae-new-01234567.json":
            age(tmp_path / name)
    before = {path.name for path in tmp_path.iterdir()}
    sweep(tmp_path)
    assert before - {path.name for path in tmp_path.iterdir()} == {".hlvae-old-01234567.json"}


def test_an_empty_directory_that_was_there_stays(tmp_path):
    with pytest.raises(RuntimeError, match="early"), claimed(tmp_path, new=True):
        raise RuntimeError("early")
    assert tmp_path.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [".hlvae.lock"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "file.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.json").stat().st_mode) == 0o666 & ~umask


def test_a_file_system_that_refuses_chmod_can_be_written(tmp_path, monkeypatch):
    """As CIFS does."""

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse)
    run = fit(OPTIONS, tmp_path / "run")
    assert run.options.steps == 1
    assert read_state(tmp_path / "run") == State("finished", 1, 1)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_warns_and_trains(tmp_path, monkeypatch, caplog, number):
    """As NFS and Lustre can be."""

    def missing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    fit(OPTIONS, tmp_path / "run")
    (message,) = caplog.messages
    assert "run does not support locks" in message
    assert "do not use it from two processes" in message
    assert not (tmp_path / "run/.hlvae.lock").exists()


def test_a_lock_holds_off_a_second_process(tmp_path):
    with locked(tmp_path / "lock") as supported:
        assert supported
        with pytest.raises(BlockingIOError, match="it is held"), locked(tmp_path / "lock", "it is held"):
            pass
    with pytest.raises(BlockingIOError, match="of a pipe"), locked(tmp_path / "lock", "it is held"):
        raise BlockingIOError("of a pipe")  # what is done meanwhile can raise the same


def test_text_is_utf_8_in_every_locale(tmp_path):
    code = f"from hierarchical_lvae.files import *; write_text({str(tmp_path / 'file.txt')!r}, '\\u03b1 = 1')"
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-X", "utf8=0", "-c", code], env=environment, check=True)
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == "α = 1".encode()


def test_an_error_keeps_its_number_and_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_text(path, "first")
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\): free up space there") as error:
        write_text(path, "second")
    assert error.value.errno == errno.ENOSPC
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_paths_may_be_strings(tmp_path):
    with atomic(str(tmp_path / "a.txt")) as temporary:
        temporary.write_text("a")
    write_tensors(str(tmp_path / "b.safetensors"), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.safetensors"]


class TestState:
    """`read_state` is the one that says how far a fit came."""

    @pytest.fixture
    def run(self, tmp_path):
        fit(OPTIONS, tmp_path / "run")
        return tmp_path / "run"

    def test_of_a_finished_run(self, run):
        assert read_state(run) == read_state(str(run)) == State("finished", 1, 1)

    def test_without_its_file_it_is_that_of_the_checkpoint(self, run):
        (run / "state.json").unlink()
        assert read_state(run) == State("finished", 1, 1)

    def test_of_weights_alone_it_is_unknown(self, run):
        for name in ("state.json", "state.safetensors"):
            (run / name).unlink()
        assert read_state(run) == State("unknown")
        (run / "model.safetensors").unlink()
        assert read_state(run) == State("new")

    @pytest.mark.parametrize("content", ["{", "[]", '{"status": "finished"}', '{"status": 1, "step": "x", "steps": 2}'])
    def test_a_damaged_file_is_named_with_the_remedy(self, run, content):
        (run / "state.json").write_text(content)
        with pytest.raises(ValueError, match=r"state\.json is damaged: `hlvae fit --resume .* writes it again"):
            read_state(run)

    def test_it_is_written_as_it_is_read(self, tmp_path):
        for state in (State("running", 3, 9), State("diverged", 3, 9, "a reason")):
            write_state(tmp_path, state)
            assert read_state(tmp_path) == state
        assert read_json(tmp_path / "state.json")["why"] == "a reason"


def test_commands_are_quoted():
    assert command("resume", "runs/my first") == "hlvae fit --resume 'runs/my first'"


def test_every_reader_says_the_same_of_a_run_without_state(tmp_path, caplog):
    """The report, `load_run` and `reproduce` had three opinions."""
    from hierarchical_lvae.experiments.rows import run_table
    from hierarchical_lvae.presentation.report import _status
    from hierarchical_lvae.runs import load_run

    run = tmp_path / "run"
    fit(OPTIONS, run)
    (run / "state.json").unlink()
    load_run(run)
    assert not caplog.messages
    assert _status(run, {"steps": 1}) == "1 of 1 steps"
    (run / "state.safetensors").unlink()
    load_run(run)
    assert caplog.messages == [f"{run} may not be fully trained: it has neither state.json nor a checkpoint"]
    assert _status(run, {"steps": 1}) == "progress unknown"
    assert run_table.__module__ == "hierarchical_lvae.experiments.rows"


def test_logging_is_quiet_where_nothing_is_wrong(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        fit(OPTIONS, tmp_path / "run")
    assert not caplog.messages
