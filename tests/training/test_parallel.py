"""Several processes, and batches in parts: the numbers of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hierarchical_lvae.files import read_tensors
from hierarchical_lvae.inference import AdaptationInfo, LocalELBO
from hierarchical_lvae.runs import FitOptions, prepare
from hierarchical_lvae.training import estimate_seconds, fit, resume
from hierarchical_lvae.training.gradient import InParts, Whole, choose_gradient, shared
from hierarchical_lvae.training.ranks import Ranks
from hierarchical_lvae.training.step import Step

SMALL = {"dataset": "digits", "batch": 4, "num_neighbours": 2, "latent_dim": 3, "lr": 1e-3}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python"]
FIT = [sys.executable, "-m", "hierarchical_lvae", "fit", "--dataset", "digits", "--preset", "quick", "--device", "cpu"]
FEW = ["-B", "4", "-K", "2", "--latent-dim", "3", "--lr", "1e-3"]


def options(**changes):
    return FitOptions.of("quick", **{**SMALL, "steps": 30, **changes})


def start(*args):
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # it decides how sums are rounded
    return subprocess.Popen(
        list(map(str, args)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_gradient_in_parts_is_the_gradient(size, double):
    run = prepare(options(micro_batch=size, alpha=3.0))
    vae = run.vae.double()
    vae.phi.data.view(-1)[-3:] = -30.0  # σ of the codes ≈ 1e-13: the noise does not matter
    x, x_N = torch.rand(4, 1, 8, 8), torch.rand(4, 2, 1, 8, 8)
    gradients = []
    for gradient in (Whole(run), InParts(run, Ranks())):
        loss = gradient(x, x_N)
        gradients.append([loss, vae.theta.grad.clone(), vae.phi.grad.clone()])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    assert isinstance(choose_gradient(run, Ranks()), InParts)
    assert isinstance(choose_gradient(prepare(options()), Ranks()), Whole)


def test_what_is_for_less_memory_is_never_of_more_than_a_part(tmp_path, monkeypatch):
    """Neither the diagnosis nor the estimate of the time, which would not fit into memory where a step does."""
    sizes, usual = set(), LocalELBO.local_posterior

    def noted(self, model, guide, support):
        sizes.add(len(support))
        return usual(self, model, guide, support)

    def diagnosed(elbo, model, guide, support):
        sizes.add(len(support))
        return AdaptationInfo(*torch.full((4, len(support)), 90.0))

    monkeypatch.setattr(LocalELBO, "local_posterior", noted)
    monkeypatch.setattr("hierarchical_lvae.training.step.diagnose", diagnosed)
    monkeypatch.setattr("hierarchical_lvae.training.loop.DIAGNOSE_EVERY", 2)
    fit(options(micro_batch=3, steps=2), tmp_path / "run", ready=lambda run: estimate_seconds(run, run.options))
    assert sizes == {1, 3}
    assert json.loads((tmp_path / "run/log.jsonl").read_text())["sharpness"] == 90


def test_the_diagnosis_in_parts_is_that_of_each_neighbourhood(double):
    runs = [prepare(options(micro_batch=size)) for size in (None, 3)]
    steps = []
    for run in runs:
        run.vae.double()
        run.vae.phi.data.view(-1)[-3:] = -30.0  # σ of the codes ≈ 1e-13: the noise does not matter
        steps.append(Step(run, Ranks()))
        steps[-1].x_N = torch.linspace(0, 1, 4 * 2 * 64).view(4, 2, 1, 8, 8).sin().abs()
    whole, parts = (step.diagnose() for step in steps)
    for name in ("loss_before", "loss_after", "distance"):  # the sharpness starts from random directions
        assert parts[name] == pytest.approx(whole[name], rel=1e-9)


def test_parts_draw_by_seeds_of_their_own():
    """So that it does not matter who computes which."""
    run = prepare(options(micro_batch=2))
    x, x_N = torch.rand(4, 1, 8, 8), torch.rand(4, 2, 1, 8, 8)
    total = torch.zeros(())
    for rank in (1, 0):
        torch.manual_seed(5)
        other = Ranks()
        other.rank, other.world, other.sum = rank, 2, lambda tensors: None
        total += InParts(run, other)(x, x_N)
        state = torch.get_rng_state()
    torch.manual_seed(5)
    torch.testing.assert_close(total, InParts(run, Ranks())(x, x_N))
    assert torch.equal(state, torch.get_rng_state())  # one number was drawn, by everyone


def test_a_part_without_a_curvature_makes_all_processes_skip_the_step(monkeypatch):
    """A process that raised alone would leave the others in the sum, which would then be of different steps."""
    run = prepare(options(micro_batch=2))

    def fails(*args):
        raise torch.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(run.elbo, "differentiable_loss", fails)
    x, x_N = torch.rand(4, 1, 8, 8), torch.rand(4, 2, 1, 8, 8)
    ranks, sums = Ranks(), []
    ranks.world, ranks.sum = 2, sums.append
    assert InParts(run, ranks)(x, x_N).isnan()
    assert len(sums) == 1
    with pytest.raises(torch.linalg.LinAlgError):  # alone, so that the reason can be named
        InParts(run, Ranks())(x, x_N)


def test_two_processes_give_what_one_gives(tmp_path):
    process = start(*TORCHRUN, *FIT, *FEW, "--steps", "30", "--out", tmp_path / "two")
    one = fit(options(micro_batch=2), tmp_path / "one")
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert output.count("trained on") == 1
    assert json.loads((tmp_path / "two/options.json").read_text())["micro_batch"] == 2
    two = read_tensors(tmp_path / "two/model.safetensors")
    for name, value in one.vae.state_dict().items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-6)
    logs = [json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("one", "two")]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-6)
    assert logs[0]["step"] == logs[1]["step"] == 30


def test_processes_share_the_work_of_a_run_that_one_began(tmp_path):
    """Each of two takes half of a batch of four, and does not repeat the work of the other."""
    fit(options(), tmp_path / "run")
    process = start(*TORCHRUN, *FIT[:4], "--resume", tmp_path / "run", "--steps", "32", "--device", "cpu")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "from now on 2 processes share each batch" in errors
    assert json.loads((tmp_path / "run/options.json").read_text())["micro_batch"] == 2


def test_what_is_shared_already_stays_as_it_is():
    two = Ranks()
    two.world = 2
    assert shared(options(micro_batch=1), two).micro_batch == 1
    assert shared(options(batch=5), two).micro_batch == 3
    assert shared(options(), Ranks()).micro_batch is None
    with pytest.raises(ValueError, match="train in one process"):
        shared(options(penalty="tc"), two)


def ranked(parent, rank):
    """The process of a rank, among the descendants of torchrun."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")
            status = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment and int(status[1]) == parent:
            return int(directory.name)
    raise AssertionError("no such process")


def test_a_lost_process_ends_the_fit_with_one_line_and_a_good_checkpoint(tmp_path):
    out = tmp_path / "run"
    process = start(*TORCHRUN, *FIT, *FEW, "--steps", "100000", "--checkpoint-every", "0.2", "--out", out)
    deadline = time.monotonic() + 120
    while not (out / "state.json").exists() or json.loads((out / "state.json").read_text())["step"] < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(ranked(process.pid, 1), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    reported = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert reported, errors
    assert all("one of the 2 processes was lost" in line or "resume with" in line for line in reported)
    step = json.loads((out / "state.json").read_text())["step"]
    (out / "options.json").write_text((out / "options.json").read_text().replace("100000", str(step + 2)))
    assert resume(out).options.steps == step + 2
