"""Notebooks run from top to bottom, at smoke size, and were committed with what they showed."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, monkeypatch):
    monkeypatch.setenv("HLVAE_SMOKE", "1")
    namespace = {}
    try:
        for i, cell in enumerate(cells(path, "code")):
            exec(compile("".join(cell["source"]), f"{path.name}, code cell {i}", "exec"), namespace)
    finally:
        torch.set_default_dtype(torch.float32)
        plt.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_was_committed_as_run(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert len(cells(path, "markdown")) * 2 > len(code)  # prose first


def test_there_are_notebooks():
    assert NOTEBOOKS
