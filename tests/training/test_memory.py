"""Freed memory is kept, where the C library knows how to."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from hierarchical_lvae.bench.step import bench
from hierarchical_lvae.cli import main
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit

CODE = """
import resource, torch
from hierarchical_lvae.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
kept = keep_freed_memory()
faults()
print(kept, first, faults())
"""


def test_blocks_are_used_again():
    output = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
    kept, before, after = output.split()
    if kept == "False":
        pytest.skip("no glibc")
    assert int(after) < int(before) / 5


def test_only_the_command_line_does_that_to_a_process(monkeypatch, tmp_path):
    """A library leaves its caller's process as it is."""
    calls = []
    monkeypatch.setattr("hierarchical_lvae.training.memory.keep_freed_memory", lambda: calls.append(1))
    monkeypatch.setattr("hierarchical_lvae.experiments.workers.keep_freed_memory", lambda: calls.append(1))
    options = FitOptions.of("quick", dataset="digits", batch=2, num_neighbours=2, latent_dim=3, steps=1)
    fit(options, tmp_path / "run")
    bench(1, 1, (1, 8, 8), 1, methods=("plain",))
    assert not calls
    assert CliRunner().invoke(main, ["fit", "--resume", str(tmp_path / "run")]).exit_code == 0
    assert calls == [1]
