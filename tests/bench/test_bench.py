"""`hlvae bench`, on images small enough for a test."""

import json
from importlib.util import find_spec

import pytest
import torch
from click.testing import CliRunner

from hierarchical_lvae.bench import step as benchmark
from hierarchical_lvae.cli import main  # noqa: F401
from hierarchical_lvae.cli.app import hlvae
from hierarchical_lvae.data import load_dataset
from hierarchical_lvae.models import LocalVAE


def test_bench_writes_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    file = tmp_path / "bench.json"
    command = ["bench", "-B", "2", "-K", "2", "--image-size", "9", "--rounds", "1", "--json", str(file)]
    result = CliRunner().invoke(hlvae, command)
    assert result.exit_code == 0, result.output
    numbers = json.loads(file.read_text())
    assert tuple(numbers) == benchmark.METHODS
    assert numbers["plain"]["ratio"] == 1
    assert numbers["higher"] is None
    assert numbers["torchopt"] is None
    for name in ("local-second-order", "local-first-order", "laplace", "loop"):
        seconds = numbers[name]["seconds"]
        assert seconds > 0
        assert numbers[name]["ratio"] == pytest.approx(seconds / numbers["plain"]["seconds"])
    assert "not installed" in result.output


def test_scaling_and_parts_come_on_top(tmp_path, monkeypatch):
    monkeypatch.setattr("hierarchical_lvae.bench.parts.POINTS", 1_000)
    monkeypatch.setattr("hierarchical_lvae.bench.parts.load_dataset", lambda *_: load_dataset("digits"))
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    file = tmp_path / "bench.json"
    command = ["bench", "-B", "2", "-K", "2", "--image-size", "16", "--rounds", "1", "--json", str(file)]
    result = CliRunner().invoke(hlvae, [*command, "--scaling", "--parts"])
    assert result.exit_code == 0, result.output
    numbers = json.loads(file.read_text())
    assert len(numbers["scaling"]) == 6
    assert {"B = 1, K = 2, 3×16×16", "B = 2, K = 4, 3×16×16", "B = 2, K = 2, 3×32×32"} <= set(numbers["scaling"])
    assert len(numbers["parts"]) == 4
    assert all(seconds > 0 for seconds in numbers["parts"].values())


@pytest.mark.parametrize("name", benchmark.PEERS)
def test_the_peers_take_the_same_step(name, double):
    if name != "loop" and find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    vae = LocalVAE(1.0, 2, (3, 9, 10))
    module = benchmark.PlainVAE(vae)
    query, support = torch.rand(3, 3, 9, 10), torch.rand(3, 2, 3, 9, 10)
    with torch.no_grad():
        module.encoder[-1].weight[10:] = 0
        module.encoder[-1].bias[10:] = -30.0  # σ of the codes ≈ 1e-13: the noise does not matter
    gradients = []
    for peer in (benchmark.PEERS["loop"], benchmark.PEERS[name]):
        module.zero_grad()
        peer(module, query, support, 1e-3).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    torch.testing.assert_close(*gradients)
