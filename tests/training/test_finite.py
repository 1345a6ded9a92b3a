"""What is not finite is named: the step, and the site where it arises."""

import json
import math

import pyro.distributions as dist
import pytest
import torch

from hierarchical_lvae.data import FactorImages
from hierarchical_lvae.files import read_tensors
from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.neighbourhoods.noise import ObservationNoise
from hierarchical_lvae.penalties.factor import Factor
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit, resume, step
from hierarchical_lvae.types import Diverged

SMALL = {"dataset": "digits", "neighbourhood": "noise", "batch": 4, "num_neighbours": 3, "latent_dim": 4, "lr": 1e-3}


def diverge(out, spoil=lambda run: None, **changes):
    """The message of a fit that must fail, on one line."""
    options = FitOptions.of("quick", **{**SMALL, "steps": 3, **changes})
    with pytest.raises(Diverged) as caught:
        fit(options, out, ready=spoil)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_step_that_is_too_long_is_named_by_what_it_moves(tmp_path, micro_batch):
    message = diverge(tmp_path / "run", alpha=1e30, clip=None, micro_batch=micro_batch)
    assert "at step 3, as in the 2 steps before it" in message
    assert "of the queries, in the" in message
    assert read_tensors(tmp_path / "run/state.safetensors")["vae.theta"].isfinite().all()
    assert json.loads((tmp_path / "run/state.json").read_text())["step"] == 0


@pytest.mark.parametrize(
    ("name", "number", "local"),
    [("phi", math.nan, "one-step"), ("theta", math.inf, "one-step"), ("theta", math.nan, "laplace-low-rank")],
)
def test_a_meta_parameter_that_is_not_finite_is_named(tmp_path, monkeypatch, name, number, local):
    usual = torch.optim.Adam.step

    def spoiled(self, *args):
        usual(self, *args)
        (group,) = self.param_groups
        group["params"][name == "phi"].data[7] = number

    monkeypatch.setattr(torch.optim.Adam, "step", spoiled)
    assert f"at step 2 (first non-finite quantity: the meta-parameter {name})" in diverge(tmp_path / "run", local=local)


def test_it_is_never_saved(tmp_path, monkeypatch):
    fit(FitOptions.of("quick", **SMALL, steps=2), tmp_path / "run")
    kept = (tmp_path / "run/state.safetensors").read_bytes()
    usual = torch.optim.Adam.step

    def spoiled(self, *args):
        usual(self, *args)
        self.param_groups[0]["params"][0].data[0] = math.nan

    monkeypatch.setattr(torch.optim.Adam, "step", spoiled)
    with pytest.raises(Diverged, match="theta is not finite after step 3") as error:
        resume(tmp_path / "run", steps=3)
    assert (tmp_path / "run/state.safetensors").read_bytes() == kept
    state = json.loads((tmp_path / "run/state.json").read_text())
    assert (state["status"], state["step"], state["why"]) == ("diverged", 2, str(error.value))


def test_data_that_are_not_finite_are_named(tmp_path, monkeypatch):
    batch = FactorImages.batch
    monkeypatch.setattr(FactorImages, "batch", lambda self, index: batch(self, index) / 0)
    monkeypatch.setattr(ObservationNoise, "__call__", lambda self, index, x: torch.rand(len(x), 3, *x.shape[1:]))
    assert "(first non-finite quantity: the data of the queries)" in diverge(tmp_path / "run")


@pytest.mark.parametrize("local", ["one-step", "shared"])
def test_a_site_of_the_programs_is_named(tmp_path, monkeypatch, local):
    encode = LocalVAE.encode

    def wide(self, x, phi_N):
        z = encode(self, x, phi_N)
        return dist.Normal(z.mean, z.scale * math.inf, validate_args=False)

    monkeypatch.setattr(LocalVAE, "encode", wide)
    changes = {"alpha": 0.0} if local == "shared" else {}
    whose = "queries" if local == "shared" else "neighbours"
    assert f"scale of z (of the {whose}, in the guide)" in diverge(tmp_path / "run", local=local, **changes)


def test_a_gradient_that_is_not_finite_is_named(tmp_path, monkeypatch):
    """The square root has an infinite slope at 0."""
    decode = LocalVAE.decode

    def rooted(self, z, theta_N):
        image = decode(self, z, theta_N)
        zero = (theta_N - theta_N.detach()).abs().sqrt().sum(-1)[..., None, None, None]
        return dist.Bernoulli(logits=image.logits + zero, validate_args=False)

    monkeypatch.setattr(LocalVAE, "decode", rooted)
    assert "the gradient of theta)" in diverge(tmp_path / "run", local="shared", alpha=0.0)


@pytest.fixture
def spoiled(monkeypatch):
    """A function that makes the gradient non-finite at some calls, counted from 1."""
    usual, calls = torch.nn.utils.clip_grad_norm_, []

    def spoil(at):
        def clipped(parameters, *args):
            calls.append(None)
            if len(calls) in at:
                parameters[0].grad[3] = math.nan
            return usual(parameters, *args)

        calls.clear()
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clipped)

    return spoil


def read_log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_step_that_is_not_finite_is_skipped(tmp_path, spoiled, caplog):
    spoiled({2})
    fit(FitOptions.of("quick", **SMALL, steps=4), tmp_path / "run")
    checkpoint = read_tensors(tmp_path / "run/state.safetensors")
    assert checkpoint["vae.theta"].isfinite().all()
    assert {int(value) for name, value in checkpoint.items() if name.endswith(".step")} == {3}
    (entry,) = read_log(tmp_path / "run")
    assert (entry["step"], entry["skipped"]) == (4, 1)
    assert math.isfinite(entry["loss"])
    assert "skipped 1 of 4 steps" in caplog.text
    assert json.loads((tmp_path / "run/state.json").read_text())["status"] == "finished"


def test_it_changes_no_weight_and_no_mean(tmp_path, spoiled):
    """After a last step that is skipped, everything but the random state is as before it."""
    fit(FitOptions.of("quick", **SMALL, steps=3), tmp_path / "three")
    spoiled({4})
    fit(FitOptions.of("quick", **SMALL, steps=4), tmp_path / "four")
    three, four = (tmp_path / name / "model.safetensors" for name in ("three", "four"))
    assert three.read_bytes() == four.read_bytes()
    assert read_log(tmp_path / "three")[0]["loss"] == read_log(tmp_path / "four")[0]["loss"]
    assert read_log(tmp_path / "four")[0]["gradient_norm"] is None


def test_a_fit_resumes_after_a_skipped_step_to_the_same_bytes(tmp_path, spoiled):
    spoiled({2, 5})
    fit(FitOptions.of("quick", **SMALL, steps=60), tmp_path / "whole")
    spoiled({2, 5})
    fit(FitOptions.of("quick", **SMALL, steps=3), tmp_path / "part")
    resume(tmp_path / "part", steps=60)
    for name in ("model.safetensors", "state.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "part" / name).read_bytes()
    assert [entry.get("skipped") for entry in read_log(tmp_path / "whole")] == [2, None]


def test_ten_in_a_row_are_a_divergence(tmp_path, spoiled):
    spoiled({*range(3, 12), *range(14, 24)})  # nine, then ten
    message = diverge(tmp_path / "run", steps=40)
    assert "and its gradient nan at step 23, as in the 9 steps before it" in message


@pytest.mark.parametrize("changes", [{"local": "laplace-low-rank"}, {"alpha": "auto"}])
def test_a_fit_passes_a_skipped_step_where_it_diagnoses_and_estimates(tmp_path, monkeypatch, changes):
    """The curvature of neighbours that are not finite has no eigenvalues; a resumed fit would stop there again."""
    for name, number in (("LOG_EVERY", 2), ("DIAGNOSE_EVERY", 4), ("REESTIMATE_EVERY", 4)):
        monkeypatch.setattr(f"hierarchical_lvae.training.loop.{name}", number)
    usual, calls = ObservationNoise.__call__, []

    def spoiled(self, index, x):
        calls.append(None)
        return usual(self, index, x) * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(ObservationNoise, "__call__", spoiled)
    fit(FitOptions.of("quick", **{**SMALL, "batch": 1, "num_neighbours": 1, **changes}, steps=6), tmp_path / "run")
    _, bad, last = read_log(tmp_path / "run")
    assert (bad["skipped"], bad["gradient_norm"], bad.get("sharpness")) == (1, None, None)
    assert math.isfinite(last["loss"])
    if changes.get("alpha") == "auto":
        assert bad["alpha"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"alpha": 0.0}, "): lower `lr` (here 0.001)"),
        ({"alpha": 1.0, "alpha_unit": "sum"}, "): lower `alpha` (here 1) or `lr` (here 0.001)"),
    ],
)
def test_the_advice_names_the_alpha_that_was_given_and_none_if_nothing_is_local(tmp_path, spoiled, changes, advice):
    spoiled({1, 2, 3})
    assert advice in diverge(tmp_path / "run", **changes)


def test_a_skipped_step_does_not_train_a_discriminator(tmp_path, spoiled, monkeypatch):
    updates = []
    monkeypatch.setattr(Factor, "update", lambda self: updates.append(None))
    spoiled({2})
    fit(FitOptions.of("quick", **SMALL, steps=4, penalty="factor", alpha=0.0), tmp_path / "run")
    assert len(updates) == 3


def test_looking_costs_a_step_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "first_not_finite", lambda *_: pytest.fail("it was looked for"))
    fit(FitOptions.of("quick", **SMALL, steps=2), tmp_path / "run")
