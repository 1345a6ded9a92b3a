"""Apple's GPUs, as far as a machine without one shows: nothing has been run on one."""

import types
from functools import cache

import pytest
import torch
from click.testing import CliRunner

from hierarchical_lvae.bench.step import _wait
from hierarchical_lvae.cli import main
from hierarchical_lvae.cli.app import failure
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.runs.checkpoint import pack, unpack
from hierarchical_lvae.runs.devices import resolve_device
from hierarchical_lvae.training.gradient import choose_gradient, is_capturable
from hierarchical_lvae.training.ranks import Ranks, joined
from hierarchical_lvae.types import random_state_kept

FIT = ["fit", "--dataset", "digits", "--preset", "quick", "--steps", "1", "-B", "2", "-K", "2", "--device", "mps"]


@pytest.fixture
def mps(monkeypatch):
    """PyTorch says that there is one; its random state is here."""
    state = types.SimpleNamespace(random=torch.arange(5), synchronized=0)
    monkeypatch.setattr("torch.backends.mps.is_available", cache(lambda: True))  # as torch._dynamo expects it
    monkeypatch.setattr("torch.mps.get_rng_state", lambda: state.random)
    monkeypatch.setattr("torch.mps.set_rng_state", lambda value: setattr(state, "random", value))
    monkeypatch.setattr("torch.mps.synchronize", lambda: setattr(state, "synchronized", state.synchronized + 1))
    return state


def a_run(**options):
    options = FitOptions.of("quick", dataset="digits", batch=2, num_neighbours=2, device="mps", **options)
    return types.SimpleNamespace(options=options, elbo=types.SimpleNamespace(local=None, penalty=None))


def test_it_is_used_when_named_and_only_then(mps, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_device("mps") == "mps"
    assert resolve_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("built", "why"), [(False, "this PyTorch is built without MPS"), (True, "no Apple GPU was found")]
)
def test_where_there_is_none_one_line_says_why(monkeypatch, tmp_path, built, why):
    monkeypatch.setattr("torch.backends.mps.is_available", cache(lambda: False))
    monkeypatch.setattr("torch.backends.mps.is_built", lambda: built)
    result = CliRunner().invoke(main, [*FIT, "--out", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert result.output == f"Error: device 'mps' is not available ({why}): use cpu instead\n"
    assert not (tmp_path / "run").exists()


def test_what_it_cannot_do_is_refused(mps, monkeypatch):
    assert not is_capturable(a_run(), Ranks())
    with pytest.raises(ValueError, match="cannot be compiled on mps: leave out `compiled`, or use the `device` cpu"):
        choose_gradient(a_run(compiled=True), Ranks())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="cannot share a batch on mps: train in one, or use"), joined("mps"):
        pass


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (
            NotImplementedError(
                "The operator 'aten::_linalg_eigh.eigenvalues' is not currently implemented for the MPS device. If you "
                "want this op to be considered for addition please comment on it.\nAs a temporary fix, you can "
                "set the environment variable `PYTORCH_ENABLE_MPS_FALLBACK=1` to use the CPU as a fallback for this op."
            ),
            "aten::_linalg_eigh.eigenvalues",
        ),
        (
            TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
                "Please use float32 instead."
            ),
            "float64",
        ),
    ],
)
def test_what_pytorch_cannot_compute_there_is_one_line(error, what):
    message = failure(error).message
    assert message.startswith(f"PyTorch cannot compute this on MPS ({what}): set PYTORCH_ENABLE_MPS_FALLBACK=1 to")
    assert message.endswith("or use `device` cpu")
    assert "\n" not in message


def test_as_on_this_machine(mps, tmp_path):
    """PyTorch says there is one, and has no kernels for it."""
    if torch.backends.mps.is_built():
        pytest.skip("this PyTorch is built with MPS")
    result = CliRunner().invoke(main, [*FIT, "--out", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
    assert "mps" in result.output


def test_its_memory_is_named_when_it_is_full():
    message = failure(RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB)")).message
    assert message.startswith("this needs more memory than is available (MPS backend out of memory")


def test_its_random_state_is_kept_and_resumed(mps):
    before = mps.random
    with random_state_kept():
        mps.random = torch.zeros(5)
        drawn = torch.rand(1)
    assert mps.random is before
    with random_state_kept():
        assert torch.equal(torch.rand(1), drawn)
    parameter = types.SimpleNamespace(device=torch.device("mps"))
    vae = types.SimpleNamespace(parameters=lambda: iter([parameter]), state_dict=dict, load_state_dict=dict)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    saved = pack(vae, optimizer, {}, 1, [])
    mps.random = torch.zeros(5)
    unpack(saved, vae, optimizer, {})
    assert torch.equal(mps.random, before)


def test_a_benchmark_waits_for_it(mps):
    _wait("mps")
    _wait("cpu")
    assert mps.synchronized == 1
