"""Equal fits leave equal bytes: in one process and in two, for every neighbourhood and every local inference."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.training import fit
from tests.layers import layers_for

SMALL = {"dataset": "digits", "batch": 2, "num_neighbours": 2, "latent_dim": 3, "steps": 2}
CASES = dict.fromkeys([*((name, "latent-knn") for name in LOCAL_INFERENCE), *(("one-step", n) for n in NEIGHBOURHOODS)])


def fits(place):
    """A hash of what each fit leaves in a directory, by local inference and neighbourhood."""
    place.mkdir()
    np.savez(place / "ring.npz", ids=(np.arange(1797)[:, None] + np.arange(1, 5)) % 1797)
    found = {}
    for local, name in CASES:
        torch.randn(len(found))  # what was drawn before must not matter
        out = place / f"{local}-{name}"
        neighbourhood = f"graph:{place / 'ring.npz'}" if name == "graph" else name
        own = {"noise-mean": {"num_neighbours": 1}, "latent-knn": {"refresh": 2}}
        given = {**SMALL, **own.get(name, {})}
        options = FitOptions.of(
            "quick", data_dir=str(place), local=local, neighbourhood=neighbourhood, **given, **layers_for(local)
        )
        fit(options, out)
        found[out.name] = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    return found


def test_equal_fits_leave_equal_bytes(tmp_path):
    first = fits(tmp_path / "first")
    assert len(set(first.values())) == len(CASES)  # each case is another fit
    assert fits(tmp_path / "second") == first
    words = ["-m", "tests.training.test_determinism", str(tmp_path / "third"), str(torch.get_num_threads())]
    found = subprocess.run(
        [sys.executable, *words], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == first


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print(json.dumps(fits(Path(sys.argv[1]))))
