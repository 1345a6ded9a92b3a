"""The compiled gradient: what is traced is the gradient, and what cannot be traced is refused."""

from functools import partial

import pyro
import pytest
import torch

from hierarchical_lvae.models import LIKELIHOODS
from hierarchical_lvae.runs import FitOptions, prepare
from hierarchical_lvae.training import fit
from hierarchical_lvae.training.compiled import Compiled
from hierarchical_lvae.training.gradient import Whole


def quick(**changes):
    return FitOptions("digits", **{"neighbourhood": "noise", "batch": 4, "num_neighbours": 2, "lr": 1e-3, **changes})


@pytest.fixture
def interpreted(monkeypatch):
    """What would be compiled is run operator by operator: Inductor takes minutes on a CPU."""
    monkeypatch.setattr(torch, "compile", lambda traced, **options: traced)


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_what_is_compiled_is_the_gradient(likelihood, neighbours, interpreted):
    """Also at other weights, another α and another β than those that were traced."""
    options = quick(likelihood=likelihood, alpha=1e-3, num_neighbours=neighbours)
    run = prepare(options)
    compiled, whole = Compiled(run), Whole(run)
    x = torch.rand(4, 1, 8, 8)
    x_N = torch.rand(4, neighbours, 1, 8, 8)
    with pyro.validation_enabled(False), pyro.get_param_store().scope():
        compiled(x, x_N)
        with torch.no_grad():
            run.vae.theta.mul_(1.5)
        run.vae.alpha, run.elbo.beta = 2e-3, 0.5
        found = []
        for gradient in (compiled, whole):
            torch.manual_seed(3)
            found.append([gradient(2 * x / 3, x_N), *(p.grad.clone() for p in run.vae.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_a_fit_can_be_compiled(interpreted, tmp_path):
    files = []
    for compiled in (False, True):
        fit(quick(steps=3, compiled=compiled), tmp_path / str(compiled))
        files.append((tmp_path / str(compiled) / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_the_compiler_accepts_the_graph_of_small_images(monkeypatch):
    """For 8×8 images it expects another layout than the traced convolutions returned, and rejects views of it."""
    compile_ = partial(torch.compile, dynamic=False, fullgraph=True, backend="eager")  # Inductor takes minutes on a CPU
    monkeypatch.setattr(torch, "compile", lambda traced, **options: compile_(traced))
    run = prepare(quick(num_neighbours=5, batch=8))
    x, x_N = torch.rand(8, 1, 8, 8), torch.rand(8, 5, 1, 8, 8)
    found = []
    with pyro.validation_enabled(False), pyro.get_param_store().scope():
        for gradient in (Compiled(run), Whole(run)):
            torch.manual_seed(3)
            gradient(x, x_N)
            torch.manual_seed(3)
            found.append([gradient(x, x_N), *(p.grad.clone() for p in run.vae.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_compiled_is_refused(tmp_path):
    for changes in ({"micro_batch": 2}, {"penalty": "dip-i"}):
        with pytest.raises(ValueError, match="`compiled` needs the whole batch"):
            quick(compiled=True, **changes)
    with pytest.raises(ValueError, match="laplace-low-rank reads values on the host"):
        fit(quick(compiled=True, local="laplace-low-rank", steps=1), tmp_path / "run")
