import json
import math

import pyro
import pytest
import torch

from hierarchical_lvae.checkpoints import atomic, read_tensors
from hierarchical_lvae.data import load_dataset
from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.training import PRESETS, Diverged, FitOptions, fit, load_run

SMALL = {"dataset": "digits", "batch": 4, "num_neighbours": 3, "latent_dim": 4, "lr": 1e-3}


def options(steps=5, **changes):
    return FitOptions.of("quick", **{**SMALL, "steps": steps, **changes})


def test_presets_are_the_papers_table_4_and_a_quick_one():
    paper = FitOptions.of("paper", dataset="3dshapes")
    assert (paper.batch, paper.num_neighbours, paper.lr, paper.steps) == (25, 10, 1e-4, 300_000)
    assert (paper.latent_dim, paper.likelihood, paper.clip, paper.image_size) == (10, "bernoulli", None, None)
    assert (paper.alpha, paper.local, paper.first_order) == (1.0, "one-step", False)
    assert set(PRESETS) == {"paper", "quick"}


def test_options_override_presets_and_alpha_zero_is_shared():
    assert FitOptions.of("paper", dataset="digits", batch=3, lr=None).batch == 3
    assert FitOptions.of("paper", dataset="digits", alpha=0.0, local="one-step").local == "shared"


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", 0), ("num_neighbours", 0), ("latent_dim", 0), ("steps", 0), ("alpha", -1.0), ("alpha", math.nan),
     ("lr", math.inf), ("beta", -0.1), ("clip", 0.0)],
)  # fmt: skip
def test_impossible_options_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name.replace('_', ' ')} is "):
        options(**{name: value})


@pytest.mark.parametrize("local", LOCAL_INFERENCE)
def test_a_fit_lowers_the_loss_and_leaves_a_run(local, tmp_path):
    run = fit(options(60, local=local, alpha=1.0), tmp_path / "run", progress=False)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [50, 60]
    assert log[1]["loss"] < log[0]["loss"]
    saved = json.loads((tmp_path / "run/options.json").read_text())
    assert saved["local"] == local
    assert saved["data"]["fingerprint"] == load_dataset("digits").fingerprint
    assert set(saved["versions"]) >= {"torch", "pyro-ppl"}
    assert read_tensors(tmp_path / "run/model.safetensors").keys() == run.vae.state_dict().keys()
    assert not list((tmp_path / "run").glob(".*"))
    assert not dict(pyro.get_param_store().items())  # the caller's parameters are left alone


@pytest.mark.parametrize(
    "changes", [{}, {"alpha": 0.0}, {"first_order": True}, {"likelihood": "gaussian-learned", "alpha": 1e-3}]
)
def test_equal_runs_are_equal_byte_for_byte(tmp_path, changes):
    for name in ("a", "b"):
        fit(options(5, **changes), tmp_path / name, progress=False)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second
    fit(options(5, seed=1, **changes), tmp_path / "c", progress=False)
    assert (tmp_path / "c/model.safetensors").read_bytes() != first


def test_a_run_is_read_back_and_used(tmp_path):
    trained = fit(options(20), tmp_path / "run", progress=False)
    run = load_run(tmp_path / "run")
    assert run.options == trained.options
    x = run.dataset.batch(torch.arange(6))
    x_N = run.neighbourhood(torch.arange(6), x)
    for site in ("theta_N", "phi_N"):
        torch.manual_seed(1)
        mine = run.adapt(x, x_N)[site]
        torch.manual_seed(1)
        assert torch.equal(mine.mean, trained.adapt(x, x_N)[site].mean)
        assert mine.batch_shape == (6, 1)
    assert run.encode(x, x_N).shape == run.encode(x).shape == (6, 4)
    assert run.sample(x, 3).shape == (6, 3, 1, 8, 8)
    images = run.decode(torch.randn(6, 2, 4), x, x_N)
    assert images.shape == (6, 2, 1, 8, 8)
    assert 0 <= images.min() <= images.max() <= 1


def test_a_run_with_shared_weights_is_used_alike(tmp_path):
    run = fit(options(3, alpha=0.0), tmp_path / "run", progress=False)
    x = run.dataset.batch(torch.arange(2))
    assert run.adapt(x) == {}
    assert run.encode(x).shape == (2, 4)
    assert run.sample(x, 3).shape == (2, 3, 1, 8, 8)


def test_a_divergence_is_named_with_its_step(tmp_path):
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step \d+: lower --alpha"):
        fit(options(200, alpha=1e6, lr=0.1), tmp_path / "run", progress=False)
    assert not (tmp_path / "run/model.safetensors").exists()


def test_an_existing_directory_is_not_written_to(tmp_path):
    (tmp_path / "kept").write_text("precious")
    with pytest.raises(FileExistsError, match="choose another --out"):
        fit(options(), tmp_path, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no options\.json"):
        load_run(tmp_path)


def test_atomic_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "file.txt"
    with atomic(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(FileNotFoundError), atomic(path) as temporary:
        temporary.write_text((tmp_path / "missing").read_text())
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
