"""The precision and the determinism of a fit are PyTorch's settings, and only while it runs."""

import os

import pytest
import torch

from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit, loop
from hierarchical_lvae.training.numerics import CUBLAS, deterministic, numerics


def settings():
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def options(**changes):
    return FitOptions.of("quick", dataset="digits", **changes)


@pytest.fixture
def no_variable(monkeypatch):
    monkeypatch.setenv(CUBLAS, "")  # so that it is removed again afterwards
    monkeypatch.delenv(CUBLAS)


@pytest.mark.parametrize("fails", [False, True])
def test_a_deterministic_fit_on_a_gpu_sets_what_pytorch_needs_and_restores_it(no_variable, fails):
    before = settings()
    try:
        with numerics(options(device="cuda", deterministic=True, precision="high")):
            assert settings() == ("high", True, True, False, False)
            assert os.environ[CUBLAS] == ":4096:8"
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert settings() == before


@pytest.mark.parametrize("given", [{"device": "cuda"}, {"device": "cpu", "deterministic": True}])
def test_otherwise_determinism_is_left_alone(no_variable, given):
    before = settings()
    with numerics(options(**given)):
        assert settings()[2:] == before[2:]
    assert CUBLAS not in os.environ


def test_the_callers_settings_return(no_variable):
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic():
            assert settings()[2:4] == (True, False)
        assert settings()[2:4] == (True, True)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_gpu_that_has_been_used_without_the_variable_is_refused(no_variable, monkeypatch):
    """PyTorch has read it by then."""
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    with pytest.raises(ValueError, match=f"needs the environment variable {CUBLAS}=:4096:8"), deterministic():
        pass
    monkeypatch.setenv(CUBLAS, ":16:8")
    with deterministic():
        assert os.environ[CUBLAS] == ":16:8"


def test_they_are_set_before_the_run_is_built(no_variable, monkeypatch, tmp_path):
    """A weight that is moved to the GPU uses it."""

    class Built(Exception):
        pass

    def prepare(options):
        assert torch.are_deterministic_algorithms_enabled()
        raise Built

    monkeypatch.setattr(loop, "prepare", prepare)
    with pytest.raises(Built):
        fit(options(device="cuda", deterministic=True), tmp_path / "run")
