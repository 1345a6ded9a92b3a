import json
import math

import pyro
import pytest
import torch

from hierarchical_lvae import __version__
from hierarchical_lvae.data import load_dataset
from hierarchical_lvae.files import atomic, read_tensors
from hierarchical_lvae.inference import LOCAL_INFERENCE, LocalELBO, OneStepMAP
from hierarchical_lvae.inference.diagnostics import AdaptationInfo
from hierarchical_lvae.runs import PRESETS, FitOptions, load_run, prepare
from hierarchical_lvae.training import estimate_seconds, fit, loop, resume, step
from hierarchical_lvae.types import Diverged
from tests.layers import layers_for

SMALL = {"dataset": "digits", "batch": 4, "num_neighbours": 3, "latent_dim": 4, "lr": 1e-3}


def options(steps=5, **changes):
    return FitOptions.of("quick", **{**SMALL, "steps": steps, **changes})


def test_presets_are_the_papers_table_4_and_a_quick_one():
    paper = FitOptions.of("paper", dataset="3dshapes")
    assert (paper.batch, paper.num_neighbours, paper.lr, paper.steps) == (25, 10, 1e-4, 300_000)
    assert (paper.latent_dim, paper.likelihood, paper.clip, paper.image_size) == (10, "bernoulli", None, None)
    assert (paper.alpha, paper.local, paper.first_order) == (1.0, "one-step", False)
    assert set(PRESETS) == {"paper", "quick", "night"}
    assert paper.neighbourhood == FitOptions.of("quick", dataset="photos/").neighbourhood == "noise"
    for dataset in ("digits", "carsnorb"):
        assert FitOptions.of("quick", dataset=dataset).neighbourhood == "latent-knn"


def test_quick_is_tuned_on_3d_shapes():
    quick = FitOptions.of("quick", dataset="3dshapes")
    assert (quick.neighbourhood, quick.num_neighbours, quick.preset) == ("noise", 1, "quick")
    assert quick.beta == (quick.image_size / 64) ** 2  # the balance of the paper's β against the pixels
    assert FitOptions.of("quick", dataset="3dshapes", image_size=64).beta == 1.0
    assert FitOptions.of("quick", dataset="3dshapes", penalty="tc").beta == 1.0
    paper = quick.under("paper")
    assert (paper.neighbourhood, paper.num_neighbours, paper.alpha) == ("noise", 10, quick.alpha)
    other = FitOptions.of("quick", dataset="3dshapes", neighbourhood="input-knn", alpha=0.0, beta=1.0)
    assert (other.local, other.num_neighbours, other.preset) == ("shared", 1, "quick")
    assert FitOptions.of("quick", dataset="3dshapes", num_neighbours=4, neighbourhood="noise").num_neighbours == 4
    assert FitOptions.of("quick", dataset="digits").lr == 6e-4
    assert FitOptions.of("quick", dataset="digits", lr=0.1).lr == 0.1
    assert FitOptions.of("paper", dataset="digits").lr == 1e-4


def test_alpha_per_sum_is_alpha_per_pixel_times_the_pixels():
    sums = prepare(options(alpha=1e-3, alpha_unit="sum"))
    pixels = prepare(options(alpha=1e-3 * 64))
    assert sums.vae.tau == pytest.approx(pixels.vae.tau)
    with pytest.raises(ValueError, match="no unit of alpha is called 'pixels': did you mean 'pixel'"):
        options(alpha_unit="pixels")


def test_estimates_leave_the_random_state(tmp_path):
    run = prepare(options())
    state = torch.get_rng_state()
    assert 0 < estimate_seconds(run, run.options) < estimate_seconds(run, run.options.under("paper"))
    assert torch.equal(state, torch.get_rng_state())


def test_options_override_presets_and_alpha_zero_is_shared():
    assert FitOptions.of("paper", dataset="digits", batch=3, lr=None).batch == 3
    assert FitOptions.of("paper", dataset="digits", alpha=0.0, local="one-step").local == "shared"


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", 0), ("num_neighbours", 0), ("latent_dim", 0), ("steps", 0), ("alpha", -1.0), ("alpha", math.nan),
     ("lr", math.inf), ("clip", math.nan), ("beta", -0.1), ("clip", 0.0), ("clip", math.inf),
     ("image_size", 7), ("micro_batch", 0), ("micro_batch", 2**31), ("steps", 2**31)],
)  # fmt: skip
def test_impossible_options_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name.replace('_', ' ')} is "):
        options(**{name: value})


@pytest.mark.parametrize("local", LOCAL_INFERENCE)
def test_a_fit_lowers_the_loss_and_leaves_a_run(local, tmp_path):
    slow = local in ("laplace-low-rank", "laplace-last-layer", "laplace-exact")
    run = fit(options(2 if slow else 60, local=local, alpha=1.0, **layers_for(local)), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == ([2] if slow else [50, 60])
    assert slow or log[1]["loss"] < log[0]["loss"]
    saved = json.loads((tmp_path / "run/options.json").read_text())
    assert saved["local"] == local
    assert saved["data"]["fingerprint"] == load_dataset("digits").fingerprint
    assert set(saved["versions"]) >= {"torch", "pyro-ppl"}
    assert saved["versions"]["hierarchical-lvae"] == __version__  # of this source, not of an earlier installation
    assert read_tensors(tmp_path / "run/model.safetensors").keys() == run.vae.state_dict().keys()
    assert [file.name for file in (tmp_path / "run").glob(".*")] == [".hlvae.lock"]
    assert not dict(pyro.get_param_store().items())  # the caller's parameters are left alone


def test_alpha_can_follow_the_evidence_and_a_resumed_fit_follows_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.training.loop.REESTIMATE_EVERY", 3)
    monkeypatch.setattr("hierarchical_lvae.training.loop.REESTIMATE_ON", 1)
    run = fit(options(6, alpha="auto"), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[-1]["alpha"] == pytest.approx(run.vae.alpha)
    assert run.vae.alpha != 1
    assert 1 / 4 <= run.vae.alpha <= 4  # twice by two at most
    assert load_run(tmp_path / "run").vae.alpha == run.vae.alpha
    fit(options(4, alpha="auto"), tmp_path / "resumed")
    resume(tmp_path / "resumed", 6)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "resumed"))
    assert first == second


def test_alpha_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="alpha is 'automatic': it must be a number or 'auto'"):
        options(alpha="automatic")
    with pytest.raises(ValueError, match="alpha 'auto' needs local weights"):
        options(alpha="auto", local="shared")
    with pytest.raises(ValueError, match="laplace needs local weights, but with alpha 0 there are none"):
        options(alpha=0.0, local="laplace")


@pytest.mark.parametrize(
    "changes", [{}, {"alpha": 0.0}, {"first_order": True}, {"likelihood": "gaussian-learned", "alpha": 1e-3}]
)
def test_equal_runs_are_equal_byte_for_byte(tmp_path, changes):
    for name in ("a", "b"):
        fit(options(5, **changes), tmp_path / name)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second
    fit(options(5, seed=1, **changes), tmp_path / "c")
    assert (tmp_path / "c/model.safetensors").read_bytes() != first


CHANGES = [
    {"clip": 1.0},
    {"lr": 2e-3},
    {"beta": 2.0},
    {"penalty": "dip-i"},
    {"penalty": "annealed"},
    {"activation": "silu"},
    {"first_order": True},
    {"alpha": 0.5},
    {"alpha_unit": "sum", "alpha": 1e-3},
    {"local": "multi-step"},
    {"likelihood": "continuous-bernoulli"},
    {"latent_dim": 5},
    {"num_neighbours": 2},
    {"batch": 5},
    {"steps": 4},
    {"seed": 1},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_every_option_matters(tmp_path, changes):
    for name, change in {"a": {}, "b": changes}.items():
        fit(options(**{"steps": 3, "clip": None, **change}), tmp_path / name)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert first != second


@pytest.mark.parametrize("local", LOCAL_INFERENCE)
def test_first_order_goes_with_every_local(tmp_path, local):
    fit(options(2, local=local, first_order=True, **layers_for(local)), tmp_path / "run")


def test_the_adaptation_is_diagnosed_every_500_steps(tmp_path):
    fit(options(500, batch=1, num_neighbours=2), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {"loss_before", "loss_after", "distance", "sharpness"} <= log[-1].keys()
    assert "loss_before" not in log[0]
    assert log[-1]["loss_after"] < log[-1]["loss_before"]


def local_values(run, site, x_N, seed=1):
    torch.manual_seed(seed)
    return LocalELBO(OneStepMAP()).local_posterior(run.vae.model, run.vae.guide, x_N)[site].mean.detach()


def test_a_run_is_read_back_and_used(tmp_path):
    trained = fit(options(20), tmp_path / "run")
    state = torch.get_rng_state()
    run = load_run(tmp_path / "run")
    assert torch.equal(state, torch.get_rng_state())
    assert run.options == trained.options
    for name, value in run.vae.state_dict().items():
        assert torch.equal(value, trained.vae.state_dict()[name])
    x = run.dataset.batch(torch.arange(6))
    x_N = run.neighbourhood(torch.arange(6), x)
    assert run.adapt(x, x_N)["theta_N"].batch_shape == (6, 1)
    assert run.sample(x, x_N, 3).shape == (6, 3, 1, 8, 8)
    assert not dict(pyro.get_param_store().items())

    # codes and images are those of the *local* encoder and decoder
    phi_N = local_values(run, "phi_N", x_N)
    torch.manual_seed(1)
    torch.testing.assert_close(run.encode(x, x_N), run.vae.encode(x.unsqueeze(1), phi_N).mean.squeeze(1))
    z, theta_N = torch.randn(6, 2, 4), local_values(run, "theta_N", x_N)
    torch.manual_seed(1)
    images = run.decode(z, x_N)
    torch.testing.assert_close(images, run.vae.decode(z, theta_N).mean)
    meta = run.vae.decode(z, run.vae.theta.expand(6, 1, -1)).mean
    assert (images - meta).abs().max() > 1e-3
    assert 0 <= images.min() <= images.max() <= 1


def test_a_run_with_shared_weights_is_used_alike(tmp_path):
    run = fit(options(3, alpha=0.0), tmp_path / "run")
    x = run.dataset.batch(torch.arange(2))
    x_N = run.neighbourhood(torch.arange(2), x)
    assert run.adapt(x, x_N) == {}
    torch.testing.assert_close(run.encode(x, x_N), run.vae.encode(x[:, None], run.vae.phi.expand(2, 1, -1)).mean[:, 0])
    assert run.sample(x, x_N, 3).shape == (2, 3, 1, 8, 8)


def test_a_run_needs_the_data_it_was_trained_on(tmp_path):
    fit(options(1), tmp_path / "run")
    path = tmp_path / "run/options.json"
    path.write_text(path.read_text().replace(load_dataset("digits").fingerprint, "0" * 16))
    with pytest.raises(ValueError, match="was trained on"):
        load_run(tmp_path / "run")


def test_a_divergence_is_named_with_its_step(tmp_path):
    with pytest.raises(
        Diverged, match=r"the loss is \S+ nats and its gradient \S+ at step \d+, as in the 9 .+\): lower `alpha`"
    ) as error:
        fit(options(200, alpha=1e6, lr=0.1), tmp_path / "run")
    state = json.loads((tmp_path / "run/state.json").read_text())
    assert (state["status"], state["step"]) == ("diverged", 0)  # the last good checkpoint, here the first
    assert state["why"] == str(error.value)
    assert read_tensors(tmp_path / "run/state.safetensors")["vae.theta"].isfinite().all()


def test_a_gradient_that_is_not_finite_stops_the_fit_before_it_does_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.nan))
    with pytest.raises(Diverged, match="its gradient nan at step 5, as in the 4 steps before it"):
        fit(options(), tmp_path / "run")


def test_a_step_that_overshoots_is_a_divergence_even_if_clipping_keeps_it_finite(tmp_path):
    with pytest.raises(Diverged, match=r"at step 500 the loss is .* with the local step and .* without: lower"):
        fit(options(600, alpha=200.0, clip=1.0, lr=1e-5, batch=1, num_neighbours=1), tmp_path / "run")


def test_a_density_whose_loss_passes_zero_has_not_overshot(tmp_path, monkeypatch):
    """The plain VAE cannot overshoot, and a Local VAE does not because its loss is above ten times next to nothing."""
    fit(options(500, alpha=0.0, likelihood="gaussian", seed=1), tmp_path / "plain")  # −0.05 nats at step 500
    monkeypatch.setattr(loop, "DIAGNOSE_EVERY", 5)
    monkeypatch.setattr(step, "diagnose", lambda *_: AdaptationInfo(*torch.full((4, 4), -0.05)))
    fit(options(5, alpha=0.01, likelihood="gaussian"), tmp_path / "gaussian")
    with pytest.raises(Diverged, match=r"at step 5 the loss is .* with the local step and -0 without"):
        fit(options(5, alpha=0.01), tmp_path / "bernoulli")


def test_a_fit_that_cannot_start_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no local inference is called 'one-stop': did you mean 'one-step'"):
        fit(options(local="one-stop"), tmp_path / "run")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no preset is called 'quik': did you mean 'quick'"):
        FitOptions.of("quik", dataset="digits")


def test_an_existing_directory_is_not_written_to(tmp_path):
    (tmp_path / "kept").write_text("precious")
    with pytest.raises(FileExistsError, match=r"is not empty .it holds kept.: choose another `out`$"):
        fit(options(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    (tmp_path / "options.json").write_text("{}")
    with pytest.raises(FileExistsError, match="choose another `out`, or continue that run with `hlvae fit --resume"):
        fit(options(), tmp_path)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run directory \(it has no options\.json\): give"):
        load_run(tmp_path)


def test_atomic_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "file.txt"
    with atomic(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(TypeError), atomic(path) as temporary:
        temporary.write_text(None)
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_the_first_of_ten_steps_of_warm_up_is_a_tenth_as_long(tmp_path):
    warm = fit(options(steps=1, lr=0.01, warm_up=10), tmp_path / "warm")
    short = fit(options(steps=1, lr=0.001), tmp_path / "short")
    assert torch.equal(warm.vae.theta, short.vae.theta)


def test_a_resumed_warm_up_goes_on_where_it_was(tmp_path):
    fit(options(steps=2, lr=0.01, warm_up=4), tmp_path / "broken")
    resumed = resume(tmp_path / "broken", steps=5)
    whole = fit(options(steps=5, lr=0.01, warm_up=4), tmp_path / "whole")
    assert torch.equal(resumed.vae.theta, whole.vae.theta)
