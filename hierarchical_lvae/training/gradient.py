"""The meta-gradient, of Equation 6 over a batch: at once, in parts, or over several processes.

Each part draws its codes from its own seed, which is drawn from the common random state. The draws are therefore the
same whichever process computes which part, and also if one process computes them all. In a CUDA graph, which cannot
set a seed, one process computes all parts, and they draw one after the other.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from hierarchical_lvae.inference.finite import NotFinite, Watched
from hierarchical_lvae.runs import Run
from hierarchical_lvae.runs.options import FitOptions
from hierarchical_lvae.training.ranks import Ranks
from hierarchical_lvae.types import random_state_kept

Gradient = Callable[[Tensor, Tensor], Tensor]
"""Takes queries x (B, C, H, W) and neighbours x_N (B, K, C, H, W), sets the `grad` of the parameters to the gradient of
the mean loss per image, and returns that loss as a detached scalar."""


def choose_gradient(run: Run, ranks: Ranks) -> Gradient:
    """Choose the gradient: in parts if requested or shared among processes, compiled if requested, else at once.

    Raises:
        ValueError: as for `check_compiled`.
    """
    if run.options.micro_batch is not None:
        return InParts(run, ranks, seeded=not is_capturable(run, ranks))
    if not run.options.compiled:
        return Whole(run)
    check_compiled(run)
    from hierarchical_lvae.training.compiled import Compiled

    return Compiled(run)


def check_compiled(run: Run) -> None:
    """Check that the gradient can be compiled, if that is requested.

    Raises:
        ValueError: the local inference cannot be compiled, or cannot be on this device.
    """
    if not run.options.compiled:
        return
    if run.options.device == "mps":
        raise ValueError("the gradient cannot be compiled on mps: leave out `compiled`, or use the `device` cpu")
    if not getattr(run.elbo.local, "capturable", True):
        raise ValueError(f"{run.options.local} reads values on the host and cannot be compiled: leave out `compiled`")


def is_capturable(run: Run, ranks: Ranks) -> bool:
    """Whether the step can be a CUDA graph: on a GPU, and without anything that `needs_host` names."""
    return run.options.device.startswith("cuda") and not needs_host(run, ranks)


def needs_host(run: Run, ranks: Ranks) -> str:
    """What keeps the step of a run from being a CUDA graph on a GPU; empty if nothing does."""
    if ranks.world > 1:
        return "several processes share its batch"
    if not getattr(run.elbo.penalty, "capturable", True):
        return f"the penalty {run.options.penalty} reads values on the host"
    return "" if getattr(run.elbo.local, "capturable", True) else f"{run.options.local} reads values on the host"


def shared(options: FitOptions, ranks: Ranks) -> FitOptions:
    """Set `micro_batch` so that several processes share each batch; one process can use the same options alone.

    Raises:
        ValueError: there is a penalty, which needs the whole batch.
    """
    if ranks.world == 1 or options.micro_batch is not None:
        return options
    return replace(options, micro_batch=math.ceil(options.batch / ranks.world))


def first_not_finite(run: Run, ranks: Ranks, x: Tensor, x_N: Tensor) -> str:
    """Name the first non-finite quantity (meta-parameter, site or gradient) of a step.

    This process runs the step alone, on x (B, C, H, W), x_N (B, K, C, H, W), from the current random state.
    """
    names = dict(run.vae.named_parameters())
    for name, parameter in names.items():
        if not parameter.isfinite().all():
            return f"the meta-parameter {name}"
    watched = replace(run, elbo=Watched(run.elbo))  # type: ignore[arg-type]  # it has what a gradient needs
    gradient: Gradient = Whole(watched)
    if run.options.micro_batch is not None:
        alone = Ranks()
        alone.rank, alone.world = 0, 1
        gradient = InParts(watched, alone, seeded=not is_capturable(run, ranks))
    try:
        loss = gradient(x, x_N)
    except NotFinite as found:
        return str(found)
    except torch.linalg.LinAlgError as error:
        return f"the local inference, although every site is finite; {str(error).partition('.')[0]}"
    if not loss.isfinite():
        return "the loss, although every site is finite"
    for name, parameter in names.items():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of {name}"
    return "the norm of the gradient, although every part of it is finite"


class Whole:
    """The gradient of all neighbourhoods at once."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self, x: Tensor, x_N: Tensor) -> Tensor:
        """One backward pass: x (B, C, H, W), x_N (B, K, C, H, W) ↦ the loss, a scalar."""
        vae = self.run.vae
        vae.zero_grad()
        loss = self.run.elbo.differentiable_loss(vae.model, vae.guide, x, x_N) / len(x)
        loss.backward()
        return loss.detach()


class InParts:
    """The gradient of a few neighbourhoods at a time, divided among the processes: the same sum, in less memory.

    Args:
        run: its option `micro_batch` is the size of a part.
        ranks: the processes.
        seeded: draw the codes of each part from a seed of its own.
    """

    def __init__(self, run: Run, ranks: Ranks, seeded: bool = True) -> None:
        self.run, self.ranks, self.seeded = run, ranks, seeded
        self.size = run.options.micro_batch or run.options.batch

    def __call__(self, x: Tensor, x_N: Tensor) -> Tensor:
        """One backward pass for each of this process's parts of x (B, …), x_N (B, K, …) ↦ the whole loss, a scalar."""
        vae, batch = self.run.vae, len(x)
        seed = int(torch.randint(2**31, ())) if self.seeded else None
        for parameter in vae.parameters():
            parameter.grad = torch.zeros_like(parameter)
        total = x.new_zeros(())
        for i, (query, support) in enumerate(zip(x.split(self.size), x_N.split(self.size), strict=True)):
            if i % self.ranks.world == self.ranks.rank:
                with _seeded(None if seed is None else seed + i):
                    try:
                        loss = self.run.elbo.differentiable_loss(vae.model, vae.guide, query, support) / batch
                    except torch.linalg.LinAlgError:
                        if self.ranks.world == 1:
                            raise
                        total += math.nan  # the other processes wait for the sum, and must skip this step, too
                        continue
                loss.backward()
                total += loss.detach()
        self.ranks.sum([total, *(p.grad for p in vae.parameters() if p.grad is not None)])
        return total


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Set a seed, and restore the random state afterwards; leave both alone without a seed."""
    if seed is None:
        yield
        return
    with random_state_kept():
        torch.manual_seed(seed)
        yield
