"""A step of Algorithm 1: images, their neighbours, the meta-gradient, Adam. On a GPU, a CUDA graph is replayed.

A graph can contain operations that never read values on the host and always have the same shapes: drawing images and
noisy neighbours, both gradients, clipping, Adam. Such a step costs one launch. Python runs only for the capture and for
a few trial steps before it.

A step whose loss or gradient is not finite must not change the weights: it is skipped. On a CPU, both are checked
before Adam's update; in a graph, a flag on the device makes Adam skip the update. After `TOLERATED` such steps in a
row, a graph changes nothing any more, and the fit stops.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hierarchical_lvae.inference import AdaptationInfo, diagnose
from hierarchical_lvae.runs import Run
from hierarchical_lvae.runs.options import FitOptions
from hierarchical_lvae.training.gradient import choose_gradient, first_not_finite, is_capturable
from hierarchical_lvae.training.ranks import Ranks
from hierarchical_lvae.types import Penalty, random_state_kept

AT_ONCE = 50
"""The largest number of replayed steps before their losses are read."""

TOLERATED = 10
"""After so many non-finite steps in a row, a fit has diverged. One batch can overshoot although the next does not. But
skipped steps change no weights, so a long row is unlikely to end."""

TRIALS = 3
"""Trial steps before a capture, in which libraries choose their kernels and caches fill."""


class Outcome(NamedTuple):
    """Loss, gradient norm and penalty of a step."""

    loss: float
    """Nats per image."""
    norm: float
    """The norm of the meta-gradient before clipping, in nats per image."""
    penalty: float | None = None
    """The value of the penalty, in nats per image; None if there is none."""

    @property
    def is_finite(self) -> bool:
        """Whether loss and norm are finite. If not, Adam skipped this step."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class Step:
    """The training step and its state: Adam, the graph, the last batch.

    Args:
        run: the run to train, in place.
        ranks: the processes that share each batch.
    """

    x: Tensor
    """The images of the last step: (B, C, H, W)."""
    x_N: Tensor
    """Their neighbours: (B, K, C, H, W)."""
    random_state: tuple[Tensor, Tensor | None]
    """The states of CPU and GPU before the codes were drawn or, if a graph draws the batch, before `take` began."""

    def __init__(self, run: Run, ranks: Ranks) -> None:
        self.run, self.ranks, self.gradient = run, ranks, choose_gradient(run, ranks)
        self.is_replayed = is_capturable(run, ranks)
        """Whether the step is a CUDA graph."""
        self.draws_inside = self.is_replayed and getattr(run.neighbourhood, "capturable", False)
        """Whether the graph also draws images and neighbours."""
        penalty = run.elbo.penalty
        is_updated = penalty is not None and type(penalty).update is not Penalty.update
        self.at_once = AT_ONCE if self.draws_inside and not is_updated else 1
        """How many steps may be taken before their losses are read. A penalty is updated after each step."""
        if self.is_replayed:
            rate = torch.tensor(run.options.lr, device=run.options.device)
            self.optimizer = torch.optim.Adam(run.vae.parameters(), rate, fused=True, capturable=True)
        else:
            self.optimizer = torch.optim.Adam(run.vae.parameters(), run.options.lr)
        self.graph: torch.cuda.CUDAGraph | None = None

    def take(self, done: int, number: int) -> list[Outcome]:
        """Take the steps `done` + 1 to `done` + `number`; return their outcomes."""
        outcomes = list[Tensor]()
        for step in range(done + 1, done + number + 1):
            self._set_rate(learning_rate(self.run.options, step))
            if not self.draws_inside:
                self._put(*self._draw())
            if not self.draws_inside or not outcomes:
                self.random_state = torch.get_rng_state(), _gpu_state(self.run.options.device)
            if self.is_replayed and self.graph is None:
                self._capture()
            if self.graph is None:
                self._take()
            else:
                self.graph.replay()
            outcomes.append(self.outcome.clone())
        return [Outcome(*pair) for pair in torch.stack(outcomes).tolist()]

    def why(self, failed: int, number: int) -> str:
        """Name the first non-finite quantity in step `failed` (from 0) of the `number` last steps."""
        with random_state_kept():
            cpu, gpu = self.random_state
            torch.set_rng_state(cpu)
            if gpu is not None:  # each step of a graph draws equally many numbers
                share = failed / number if self.draws_inside else 0.0
                torch.cuda.set_rng_state(_between(gpu, torch.cuda.get_rng_state(), share))
            x, x_N = self._draw() if self.draws_inside else (self.x, self.x_N)
            return first_not_finite(self.run, self.ranks, x, x_N)

    def diagnose(self) -> dict[str, float]:
        """Diagnose the local step on the last batch, one part at a time: the means of what `diagnose` returns.

        Empty if the local posterior could not be computed.
        """
        run, size = self.run, self.run.options.micro_batch or len(self.x_N)
        try:
            parts = [diagnose(run.elbo, run.vae.model, run.vae.guide, x_N) for x_N in self.x_N.split(size)]
        except torch.linalg.LinAlgError:
            return {}
        means = [torch.cat(values).mean().item() for values in zip(*parts, strict=True)]
        return dict(zip(AdaptationInfo._fields, means, strict=True))

    def _put(self, x: Tensor, x_N: Tensor) -> None:
        """Set the batch; if there is a graph, copy it to where the graph reads it."""
        if self.graph is None:
            self.x, self.x_N = x, x_N
        else:
            self.x.copy_(x)
            self.x_N.copy_(x_N)

    def _draw(self) -> tuple[Tensor, Tensor]:
        run, device = self.run, self.run.options.device
        index = torch.randint(len(run.dataset), (run.options.batch,), device=device if self.draws_inside else "cpu")
        x = run.dataset.batch(index := index.to(device))
        run.neighbourhood.update(index, x)
        return x, run.neighbourhood(index, x)

    def _update(self) -> None:
        """Compute the gradient and, if it is finite, update the weights with Adam."""
        options, parameters = self.run.options, [*self.run.vae.parameters()]
        try:
            loss = self.gradient(self.x, self.x_N)
        except torch.linalg.LinAlgError:  # the curvature is not finite, or no mode was found
            loss = self.x.new_tensor(math.nan)
        norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if options.clip is None else options.clip)
        penalty = self.run.elbo.last_penalty
        self.outcome = torch.stack([loss, norm] if penalty is None else [loss, norm, penalty])
        if self.is_replayed:
            bad = 1 - self.outcome[:2].isfinite().all().float()
            stopped = (self.in_a_row >= TOLERATED).float()
            self.in_a_row.copy_(torch.maximum(stopped * self.in_a_row, bad * (self.in_a_row + 1)))
            self.optimizer.found_inf = torch.maximum(bad, stopped)  # type: ignore[attr-defined]  # as GradScaler does
            self.optimizer.step()
        elif Outcome(*self.outcome.tolist()).is_finite:
            self.optimizer.step()

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _take(self) -> None:
        if self.draws_inside:
            self.x, self.x_N = self._draw()
        self._update()

    def _capture(self) -> None:
        """Capture a step, then restore weights, moments and random state."""
        self.in_a_row = torch.zeros((), device=self.run.options.device)
        parameters = [*self.run.vae.parameters()]
        before = [p.detach().clone() for p in parameters]
        moments = {p: {k: v.clone() for k, v in slots.items()} for p, slots in self.optimizer.state.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with random_state_kept():
            with torch.cuda.stream(stream):
                for _ in range(TRIALS):
                    self._take()
            torch.cuda.current_stream().wait_stream(stream)
            self.run.vae.zero_grad()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._take()
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
                for name, value in self.optimizer.state[p].items():
                    value.copy_(moments[p][name]) if p in moments else value.zero_()
            self.in_a_row.zero_()
        self.graph = graph


def learning_rate(options: FitOptions, step: int) -> float:
    """Adam's learning rate at a step, counted from 1: it rises linearly over the first `warm_up` steps.

    >>> [learning_rate(FitOptions("digits", lr=0.5, warm_up=5), step) for step in (1, 5, 9)]
    [0.1, 0.5, 0.5]
    """
    return options.lr * min(1.0, step / options.warm_up) if options.warm_up else options.lr


def _gpu_state(device: str) -> Tensor | None:
    return torch.cuda.get_rng_state() if device.startswith("cuda") else None


def _between(before: Tensor, after: Tensor, share: float) -> Tensor:
    """A GPU generator's state part of the way between two others: eight bytes of seed, eight of offset."""
    state, end = before.clone(), after.view(torch.int64)[1]
    offset = state.view(torch.int64)
    offset[1] += round(float(end - offset[1]) * share)
    return state
