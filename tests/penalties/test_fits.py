"""Fits with a penalty: to the same bytes when resumed, and refused where there is no whole batch."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from hierarchical_lvae.penalties import PENALTIES
from hierarchical_lvae.runs import FitOptions, load_run, prepare
from hierarchical_lvae.training import fit, resume
from hierarchical_lvae.training.gradient import is_capturable, needs_host
from hierarchical_lvae.training.ranks import Ranks
from hierarchical_lvae.types import Interrupted

SMALL = {"dataset": "digits", "batch": 3, "num_neighbours": 2, "latent_dim": 3, "lr": 1e-3, "neighbourhood": "noise"}


@pytest.fixture(autouse=True)
def short_and_small(monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.penalties.discriminator.WIDTH", 12)
    monkeypatch.setattr("hierarchical_lvae.training.loop.LOG_EVERY", 4)


def options(steps=10, **changes):
    return FitOptions.of("quick", **{**SMALL, "steps": steps, **changes})


def kept(path):
    return [(path / f"{name}.safetensors").read_bytes() for name in ("model", "state")]


def stop(run, entry):
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_resumed_fit_is_the_unbroken_one(tmp_path, penalty, alpha):
    wanted = options(penalty=penalty, alpha=alpha)
    fit(wanted, tmp_path / "unbroken")
    with pytest.raises(Interrupted, match="stopped after step 4"):
        fit(wanted, tmp_path / "broken", watchers=(stop,))
    torch.manual_seed(99)
    resume(tmp_path / "broken")
    assert kept(tmp_path / "broken") == kept(tmp_path / "unbroken")


def test_a_fit_that_grows_keeps_its_schedule(tmp_path):
    fit(options(8, penalty="annealed"), tmp_path / "whole")
    fit(options(5, penalty="annealed"), tmp_path / "grown")
    resume(tmp_path / "grown", 8)
    assert kept(tmp_path / "grown") == kept(tmp_path / "whole")
    assert load_run(tmp_path / "grown").elbo.penalty.steps == 8


@pytest.mark.parametrize("penalty", ["factor:0", "dip-i:0", "dip-ii:0", "tc:1"])
def test_a_penalty_without_weight_changes_no_byte(tmp_path, penalty):
    """So it disturbs neither the draws of the fit nor its inner step."""
    for name, given in (("without", None), ("with", penalty)):
        fit(options(4, penalty=given), tmp_path / name)
    assert kept(tmp_path / "with")[0] == kept(tmp_path / "without")[0]


def test_the_log_tells_it_and_a_large_one_is_no_divergence(tmp_path, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.training.loop.DIAGNOSE_EVERY", 4)
    fit(options(4, penalty="annealed:2e6"), tmp_path / "run")
    (entry,) = map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
    assert entry["penalty"] == pytest.approx(1000 * 60, rel=0.2)  # the capacity of step 4 is 60 nats
    assert entry["loss"] > 10 * entry["loss_before"] / 2
    assert load_run(tmp_path / "run").options.penalty == "annealed:2000000.0"


def test_it_needs_the_whole_batch(tmp_path, monkeypatch):
    for changes in ({"micro_batch": 2}, {"batch": 1}):
        with pytest.raises(
            ValueError, match=r"the penalty tc:4.0 needs the codes of a whole batch: give `batch` 2 or more"
        ):
            options(penalty="tc", **changes)
    ranks = Ranks()
    ranks.world = 2
    monkeypatch.setattr("hierarchical_lvae.training.loop.Ranks", lambda: ranks)
    with pytest.raises(ValueError, match="and train in one process"):
        fit(options(penalty="tc"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="no penalty is called 'tcc': did you mean 'tc'"):
        options(penalty="tcc")


@pytest.mark.parametrize("reads", [False, True])
def test_a_penalty_that_reads_values_keeps_a_step_from_being_a_graph(reads, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.penalties.total_correlation.TotalCorrelation.capturable", not reads)
    run = prepare(options(penalty="tc"))
    on_gpu = replace(run, options=replace(run.options, device="cuda"))
    assert needs_host(on_gpu, Ranks()) == ("the penalty tc:4.0 reads values on the host" if reads else "")
    assert is_capturable(on_gpu, Ranks()) == (not reads)
    assert not is_capturable(run, Ranks())
