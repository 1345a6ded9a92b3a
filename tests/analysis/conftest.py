"""A run on digits, and little work for each of its scores."""

import pytest

from hierarchical_lvae.runs import FitOptions, prepare


@pytest.fixture(scope="package")
def run():
    return prepare(FitOptions.of("quick", dataset="digits", num_neighbours=2, latent_dim=3, alpha=0.1))


@pytest.fixture(autouse=True)
def _less_work(monkeypatch, tmp_path):
    monkeypatch.setenv("HLVAE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("hierarchical_lvae.evaluation.factor_classifier.STEPS", 20)
    monkeypatch.setattr("hierarchical_lvae.analysis.bounds.UNITS_OF", 100)
    for name, number in (("VOTES_TRAIN", 60), ("VOTES_TEST", 30)):
        monkeypatch.setattr(f"hierarchical_lvae.evaluation.fixed_factor.{name}", number)
