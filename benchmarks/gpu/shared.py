"""What all parts use: the settings, the report, a run's step."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyro
import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.runs import FitOptions, Run
from hierarchical_lvae.runs.directory import MODEL
from hierarchical_lvae.training import fit, resume
from hierarchical_lvae.training.compiled import Compiled
from hierarchical_lvae.training.ranks import Ranks
from hierarchical_lvae.training.step import Step

SETTINGS = {
    "quick": {"preset": "quick"},
    "noise-mean, 64×64": {"preset": "paper", "neighbourhood": "noise-mean"},
    "Table 4": {"preset": "paper"},
    "plain, Table 4": {"preset": "paper", "alpha": 0.0},
}
SMALL = {"dataset": "digits", "batch": 2, "num_neighbours": 1}
"""What a rehearsal changes."""


class Report:
    """The results of a part, by name. Each is written at once, so that a part that is stopped keeps its results."""

    def __init__(self, out: Path, part: str) -> None:
        self.path, self.part = out / f"{part}.jsonl", part

    def __call__(self, name: str, value: object) -> None:
        """Write one result."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": self.part, "name": name, "value": value}) + "\n")

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Report a failure as a result; raise it again if it is a CUDA error, which leaves the process unusable."""
        try:
            yield
        except Exception as error:
            self(name, f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            if "CUDA error" in str(error):
                raise


def options(name: str, args: argparse.Namespace, **changes: object) -> FitOptions:
    """The options of a setting, for the device in `args`."""
    given = {"dataset": "3dshapes"} | SETTINGS[name] | (SMALL if args.small else {}) | changes
    built = FitOptions.of(str(given.pop("preset")), **given)
    return replace(built, device=args.device)


@contextmanager
def as_in_a_fit() -> Iterator[None]:
    """As in a fit: without Pyro's validation, and with a parameter store of its own."""
    with pyro.validation_enabled(False), pyro.get_param_store().scope():
        yield


def wait(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def errors(found: list[Tensor], truth: list[Tensor]) -> list[float]:
    """Relative errors, by norm."""
    return [float(f"{((a - b).norm() / b.norm()).item():.1e}") for a, b in zip(found, truth, strict=True)]


def weights(run: Run) -> list[Tensor]:
    """Copies of the meta-parameters, in float64, on the CPU."""
    return [p.detach().double().cpu().clone() for p in run.vae.parameters()]


def stepper(run: Run, compiled: bool = False, replayed: bool = True) -> Step:
    """The step of a run, as a graph or not, compiled or not."""
    one = Step(run, Ranks())
    one.is_replayed &= replayed
    if compiled:
        one.gradient = Compiled(run)
    return one


def half(args: argparse.Namespace) -> int:
    """The number of steps before a fit is resumed."""
    return 4 if args.small else 300


def is_resumed_alike(name: str, args: argparse.Namespace, **changes: object) -> bool:
    """Whether a fit of `quick` that stops half-way and is resumed ends with the same bytes as one that does not."""
    steps, whole, part = half(args), args.out / f"{name}-whole", args.out / f"{name}-part"
    with progress.hidden():
        fit(options("quick", args, **{"steps": 2 * steps} | changes), whole)
        fit(options("quick", args, **{"steps": steps} | changes), part)
        resume(part, steps=2 * steps)
    return (whole / MODEL).read_bytes() == (part / MODEL).read_bytes()
