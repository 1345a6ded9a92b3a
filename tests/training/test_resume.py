"""A fit that is stopped, by whatever, goes on to the same bytes."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from hierarchical_lvae.files import append_json_line, write_json
from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS
from hierarchical_lvae.presentation.figures import draw_all, draw_reconstructions
from hierarchical_lvae.runs import FitOptions, load_run
from hierarchical_lvae.runs.directory import State, claimed, read_state, truncate_log
from hierarchical_lvae.training import fit, resume
from hierarchical_lvae.types import Interrupted
from tests.layers import layers_for

SMALL = {"dataset": "digits", "batch": 2, "num_neighbours": 2, "latent_dim": 3, "lr": 1e-3}


def options(steps, **changes):
    one = {"num_neighbours": 1} if changes.get("neighbourhood") == "noise-mean" else {}
    return FitOptions.of("quick", **{**SMALL, **one, "steps": steps, **changes})


def model_bytes(path):
    return (path / "model.safetensors").read_bytes()


def lines(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def stop_at(step):
    """A watcher that sends this process a signal, as Ctrl-C does, at a line of the log."""

    def watch(run, entry):
        if entry["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    return (watch,)


EACH_WITH_ONE = [*((local, "latent-knn") for local in LOCAL_INFERENCE), *(("one-step", n) for n in NEIGHBOURHOODS)]


@pytest.mark.parametrize(("local", "neighbourhood"), dict.fromkeys(EACH_WITH_ONE))
def test_a_resumed_fit_is_the_unbroken_one(tmp_path, local, neighbourhood):
    if neighbourhood == "graph":
        np.savez(tmp_path / "ring.npz", ids=(np.arange(1797)[:, None] + np.arange(1, 5)) % 1797)
        neighbourhood = f"graph:{tmp_path / 'ring.npz'}"
    refresh = 40 if neighbourhood == "latent-knn" else None
    wanted = options(110, local=local, neighbourhood=neighbourhood, refresh=refresh, **layers_for(local))
    fit(wanted, tmp_path / "unbroken")
    with pytest.raises(Interrupted, match="stopped after step 50: resume with `hlvae fit --resume"):
        fit(wanted, tmp_path / "broken", watchers=stop_at(50))
    assert json.loads((tmp_path / "broken/state.json").read_text()) == {
        "status": "interrupted",
        "step": 50,
        "steps": 110,
    }
    assert model_bytes(tmp_path / "broken") != model_bytes(tmp_path / "unbroken")
    torch.manual_seed(99)  # a new process has another random state
    resume(tmp_path / "broken")
    assert model_bytes(tmp_path / "broken") == model_bytes(tmp_path / "unbroken")
    logs = [
        [(entry["step"], entry["loss"]) for entry in lines(tmp_path / name / "log.jsonl")]
        for name in ("unbroken", "broken")
    ]
    assert logs[0] == logs[1]
    assert [step for step, _ in logs[0]] == [50, 100, 110]


def test_watching_changes_nothing(tmp_path):
    """Contact sheets are drawn by the clock: what they draw of the random state must not count."""
    fit(options(60), tmp_path / "unwatched")

    def watch(run, entry):
        torch.randn(7)
        draw_reconstructions(run)

    fit(options(60), tmp_path / "watched", watchers=(watch,))
    assert (tmp_path / "watched/figures/reconstructions.png").exists()
    assert model_bytes(tmp_path / "watched") == model_bytes(tmp_path / "unwatched")


def test_figures_leave_the_random_state(tmp_path):
    run = fit(options(2), tmp_path / "run")
    state = torch.get_rng_state()
    draw_all(run)
    assert torch.equal(state, torch.get_rng_state())


def test_losses_not_yet_logged_are_not_lost(tmp_path):
    fit(options(70), tmp_path / "unbroken")
    fit(options(30), tmp_path / "grown")
    resume(tmp_path / "grown", steps=70)
    assert model_bytes(tmp_path / "grown") == model_bytes(tmp_path / "unbroken")
    assert json.loads((tmp_path / "grown/options.json").read_text())["steps"] == 70


def test_a_finished_fit_is_left_as_it_is(tmp_path):
    fit(options(5), tmp_path / "run")
    before = model_bytes(tmp_path / "run")
    resume(tmp_path / "run")
    assert model_bytes(tmp_path / "run") == before
    assert json.loads((tmp_path / "run/state.json").read_text())["status"] == "finished"


def test_steps_cannot_shrink(tmp_path):
    fit(options(5), tmp_path / "run")
    with pytest.raises(ValueError, match="has 5 steps and cannot be shortened to 3"):
        resume(tmp_path / "run", steps=3)


def test_the_first_checkpoint_is_before_step_1(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("at once")

    monkeypatch.setattr(torch.optim.Adam, "step", fail)
    with pytest.raises(RuntimeError, match="at once"):
        fit(options(5), tmp_path / "run")
    monkeypatch.undo()
    assert json.loads((tmp_path / "run/state.json").read_text())["step"] == 0
    resume(tmp_path / "run")
    fit(options(5), tmp_path / "other")
    assert model_bytes(tmp_path / "run") == model_bytes(tmp_path / "other")


COMMAND = [sys.executable, "-m", "hierarchical_lvae", "fit"]
FIT = ["--dataset", "digits", "--preset", "quick", "-B", "2", "-K", "2", "--latent-dim", "3", "--steps", "300"]


def start(*args):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, *map(str, args)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def wait_for(path, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists(), process.communicate()


def test_kill_9_at_random_moments(tmp_path):
    """A short selection; `HLVAE_KILLS=10 pytest tests/training/test_resume.py` for more."""
    unbroken = start(*FIT, "--out", tmp_path / "unbroken")
    rng = random.Random(0)
    out = tmp_path / "killed"
    process = start(*FIT, "--out", out, "--checkpoint-every", "0")
    for _ in range(int(os.environ.get("HLVAE_KILLS", "2"))):
        wait_for(out / "state.json", process)
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.communicate()
        process = start("--resume", out, "--checkpoint-every", "0")
        time.sleep(rng.uniform(3, 6))  # it may be killed as it starts, too
    output = process.communicate()
    assert process.returncode == 0, output
    assert unbroken.wait() == 0, unbroken.communicate()
    unbroken.communicate()
    assert model_bytes(out) == model_bytes(tmp_path / "unbroken")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_a_checkpoint_and_their_exit_code(tmp_path, number, code):
    process = start(*FIT[:-1], "100000", "--out", tmp_path / "run")
    wait_for(tmp_path / "run/state.json", process)
    time.sleep(1)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    assert "resume with" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    state = json.loads((tmp_path / "run/state.json").read_text())
    assert state["status"] == "interrupted"
    assert state["step"] > 0
    assert load_run(tmp_path / "run").options.steps == 100_000


def test_a_signal_at_the_last_step_ends_a_finished_fit(tmp_path):
    with pytest.raises(Interrupted, match="stopped after step 6: the fit is finished, and `hlvae figures"):
        fit(options(6), tmp_path / "run", watchers=stop_at(6))
    fit(options(6), tmp_path / "unbroken")
    assert read_state(tmp_path / "run") == State("finished", 6, 6)
    assert model_bytes(tmp_path / "run") == model_bytes(tmp_path / "unbroken")


def test_a_full_disk_is_one_line_and_the_checkpoint_stays(tmp_path):
    fit(options(5), tmp_path / "run")
    kept = (tmp_path / "run/state.safetensors").read_bytes()
    code = (
        "import resource, sys; from hierarchical_lvae.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(kept) // 2}, {len(kept) // 2})); "
        f"main(['fit', '--resume', {str(tmp_path / 'run')!r}, '--steps', '10'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "state.safetensors cannot be written (File too large): free up space there" in line
    assert (tmp_path / "run/state.safetensors").read_bytes() == kept
    assert not [file for file in (tmp_path / "run").iterdir() if file.name.startswith(".hlvae-")]
    resume(tmp_path / "run")


def test_one_process_at_a_time(tmp_path):
    fit(options(5), tmp_path / "run")
    with (tmp_path / "run/.hlvae.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match=r"another process is training in .*: wait for it, or stop it$"):
            resume(tmp_path / "run")


def test_a_new_directory_is_removed_if_nothing_came_of_it(tmp_path):
    with pytest.raises(RuntimeError, match="early"), claimed(tmp_path / "a/run", new=True):
        raise RuntimeError("early")
    assert not (tmp_path / "a/run").exists()


def test_an_empty_directory_is_as_good_as_none(tmp_path):
    (tmp_path / "run").mkdir()
    fit(options(1), tmp_path / "run")
    assert (tmp_path / "run/model.safetensors").exists()


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run cannot be written \(Not a directory\): make .*, or choose another"):
        fit(options(1), tmp_path / "file" / "run")
    with pytest.raises(FileExistsError, match=r"file is a file, not a directory: choose another `out`$"):
        fit(options(1), tmp_path / "file")
    assert (tmp_path / "file").read_text() == ""


def test_leftovers_of_a_killed_process_are_swept_up(tmp_path):
    """Ours, in the run and among its figures, and once nobody writes them any more."""
    run = tmp_path / "run"
    run.mkdir()
    (run / ".hlvae-options-0123abcd.json").write_text("{")
    fit(options(1), run)
    (run / "figures").mkdir()
    for name in (".hlvae-state-0123abcd.safetensors", "figures/.hlvae-figure3-0123abcd.png"):
        (run / name).write_text("half")
        os.utime(run / name, (time.time() - 3601,) * 2)
    resume(run)
    assert sorted(file.name for file in run.rglob(".*")) == [".hlvae-options-0123abcd.json", ".hlvae.lock"]


def test_the_data_may_have_moved(tmp_path):
    fit(options(1), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    assert resume(tmp_path / "run", data_dir=str(tmp_path / "elsewhere")).options.data_dir
    with pytest.raises(FileNotFoundError, match="does not exist"):
        resume(tmp_path / "run", data_dir=str(tmp_path / "nowhere"))


def test_half_a_line_of_log_is_dropped(tmp_path):
    log = tmp_path / "log.jsonl"
    for step in (50, 100, 150):
        append_json_line(log, {"step": step, "loss": float("inf") if step == 50 else 1.0})
    log.write_text(log.read_text() + '{"step": 200, "lo')
    truncate_log(log.parent, 100)
    assert lines(log) == [{"step": 50, "loss": None}, {"step": 100, "loss": 1.0}]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "state.safetensors").write_bytes(b"x" * 100), "is damaged"),
        (lambda run: (run / "state.safetensors").unlink(), "has weights, but no checkpoint to resume from"),
        (lambda run: (run / "options.json").write_text("{"), "is not a JSON object"),
        (lambda run: (run / "options.json").write_text('{"steps": 2}'), "fit .no 'dataset'.:"),
        (lambda run: (run / "options.json").unlink(), "is not a run directory"),
    ],
)
def test_a_damaged_run_is_named(tmp_path, damage, message):
    fit(options(2), tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        resume(tmp_path / "run")


def test_an_unfinished_run_says_so(tmp_path, caplog):
    run = tmp_path / "run"
    fit(options(2), run)
    load_run(run)
    assert not caplog.messages
    write_json(run / "state.json", {"status": "diverged", "step": 1, "steps": 2, "why": "…"})
    load_run(run)
    assert caplog.messages == [
        f"{run} is not finished (diverged at step 1 of 2): using the weights of its last checkpoint"
    ]
    (run / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no model\.safetensors \(the file was lost\): `hlvae fit --resume"
    ):
        load_run(run)


def test_other_threads_may_fit_too(tmp_path):
    """Signal handlers belong to the main thread; a fit elsewhere goes without."""
    thread = threading.Thread(target=fit, args=(options(2), tmp_path / "run"))
    thread.start()
    thread.join()
    assert (tmp_path / "run/model.safetensors").exists()
