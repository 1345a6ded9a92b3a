"""The losses of a tiny fit, against those in `golden.json`: results do not change unseen.

Where they are to change, `python -m tests.training.test_golden` rewrites them; explain why in the commit. Over so few
steps rounding is hardly amplified: other instruction sets and threads move the losses by a relative 2e-7 at most, and
so does a relative change of all initial weights by one rounding error, 1e-7. The tolerance of 1e-4 is 500 times that.
"""

import json
import tempfile
from pathlib import Path

import pytest

from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit, loop

GOLDEN = Path(__file__).with_name("golden.json")
LOCAL = ("shared", "one-step", "multi-step", "laplace")
SMALL = {"dataset": "digits", "neighbourhood": "noise", "batch": 4, "num_neighbours": 3, "latent_dim": 4, "lr": 1e-3}


def losses(local, place):
    """Mean losses of each two of ten steps, in nats an image."""
    alpha = 0.0 if local == "shared" else 1.0
    options = FitOptions.of("quick", local=local, alpha=alpha, steps=10, **SMALL)
    fit(options, place / local)
    return [json.loads(line)["loss"] for line in (place / local / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("local", LOCAL)
def test_losses_are_those_of_before(local, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    assert losses(local, tmp_path) == pytest.approx(json.loads(GOLDEN.read_text())[local], rel=1e-4)


if __name__ == "__main__":
    loop.LOG_EVERY = 2
    with tempfile.TemporaryDirectory() as somewhere:
        found = {local: [float(f"{x:.7g}") for x in losses(local, Path(somewhere))] for local in LOCAL}
    GOLDEN.write_text(json.dumps(found, indent=2) + "\n")
