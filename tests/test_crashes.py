"""A short selection of the crash matrix (`python -m tests.crashes` runs all of it), and places that refuse writes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hierarchical_lvae.cli import main
from hierarchical_lvae.files import read_tensors
from hierarchical_lvae.runs import FitOptions, load_run
from hierarchical_lvae.training import fit

ROOT = Path(__file__).parent.parent


def run(*words):
    """Run a script of this folder in a process of its own: it forks, and so wants no threads beside it."""
    found = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_what_is_ended_anywhere_goes_on_to_the_same_bytes():
    told = run("tests.crashes", "--only", "fit,reproduce", "--every", "47")
    count = re.search(r"^(\d+) points, 0 lost$", told, re.MULTILINE)
    assert count
    assert int(count[1]) >= 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    fit(FitOptions.of("quick", dataset="digits", batch=2, num_neighbours=2, steps=1), path)
    return path


@pytest.mark.parametrize("words", [["figures"], ["evaluate", "--metrics", "mig", "--points", "20", "10"]])
def test_a_place_that_cannot_be_written_is_one_line(trained, words):
    """A file where a directory should be: as root, there is no directory that is not writable."""
    blocked = trained / ("figures" if words == ["figures"] else "metrics.json")
    kept = read_tensors(trained / "state.safetensors")
    if words == ["figures"]:
        blocked.write_text("in the way")
    else:
        blocked.mkdir()
    result = CliRunner().invoke(main, [words[0], str(trained), *words[1:]])
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error")]
    assert "cannot be written" in line
    assert str(blocked) in line
    assert load_run(trained).options.steps == 1
    assert read_tensors(trained / "state.safetensors").keys() == kept.keys()
