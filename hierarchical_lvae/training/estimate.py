"""How long a fit would take here, from a few steps."""

import time
from dataclasses import replace

import pyro
import torch

from hierarchical_lvae.runs.options import FitOptions
from hierarchical_lvae.runs.run import Run, prepare
from hierarchical_lvae.training.gradient import is_capturable
from hierarchical_lvae.training.numerics import numerics
from hierarchical_lvae.training.ranks import Ranks
from hierarchical_lvae.training.step import Step
from hierarchical_lvae.types import random_state_kept, single_precision

TRIED = 10  # steps timed on a GPU
ENOUGH = 0.3  # seconds of timed steps on a CPU


@single_precision()
def estimate_seconds(run: Run, options: FitOptions) -> float:
    """Estimate how many seconds a fit with these options would take here, on the data of `run`.

    On a CPU it times steps with at most 8 queries, at most one part of a batch in parts, and takes the fastest: the
    first ones are slower than a fit. On a GPU it times ten replays of an uncompiled step.

    Raises:
        MemoryError: a step does not fit into the memory of the GPU.
    """
    with (
        random_state_kept(),
        numerics(options),
        pyro.validation_enabled(False),
        pyro.get_param_store().scope(),
    ):
        trial = prepare(replace(options, neighbourhood="noise", compiled=False), run.dataset)
        if is_capturable(trial, Ranks()):
            try:
                return _replay_seconds(trial) * options.steps
            except torch.cuda.OutOfMemoryError as error:
                raise MemoryError("a step does not fit into the memory of the GPU") from error
        number = min(options.batch, options.micro_batch or options.batch, 8)
        index = torch.randint(len(run.dataset), (number,)).to(trial.options.device)
        timings = list[float]()
        while sum(timings[1:]) < ENOUGH:
            start = time.perf_counter()
            x = trial.dataset.batch(index)
            trial.elbo.loss_and_grads(trial.vae.model, trial.vae.guide, x, trial.neighbourhood(index, x))
            timings.append(time.perf_counter() - start)
    return min(timings) * options.batch / len(index) * options.steps


def _replay_seconds(trial: Run) -> float:
    step = Step(trial, Ranks())
    step.take(0, 1)
    start = time.perf_counter()
    step.take(1, TRIED)
    return (time.perf_counter() - start) / TRIED
