"""What a one-step estimate of the local weights throws away, and what a Gaussian around it gives back.

Of R neighbourhoods of a run, each with support points, which are adapted on, and held-out points, which are not:

- *all weights*: methods that infer all of θ_N, by held-out density, evidence, calibration and cost;
- *a block*: a few dozen of them, the rest held at the one-step estimate (`block`), with NUTS for the truth.

Gains over one-step are on the same neighbourhoods and points.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.analysis import BLOCK_METHODS, DEFAULT_METHODS
from hierarchical_lvae.analysis.block import Block, find_block, last_biases
from hierarchical_lvae.analysis.measure import Measured, Points, draw_points, measure
from hierarchical_lvae.analysis.settings import ComparisonSettings
from hierarchical_lvae.evaluation import calibration_error, coverage
from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import random_state_kept, reason, single_precision, suggestion

BASELINE, OF_BLOCK = "one-step", "one-step (block)"

log = logging.getLogger(__name__)


class ComparisonRow(NamedTuple):
    """One method of a table; what does not apply is None."""

    method: str
    random_parameters: int
    """Local parameters of a neighbourhood that have a distribution, and are no point."""
    held_out: float
    """log p(x | N) of held-out points: nats an image."""
    gain: float
    """Of that over one-step: nats an image."""
    gain_error: float | None
    """Standard error of the gain, over neighbourhoods."""
    evidence: float | None
    """log p(N) by Laplace's formula, of a block given the rest: nats a neighbourhood. Structures differ in what they
    leave out, so it is to be compared within one."""
    calibration: float
    """Expected calibration error of held-out points' pixel means at their own codes' means, in units of pixels."""
    coverage: float | None
    """Share of the references' pixels within the 90 % interval of their means over the local weights."""
    k_hat: float | None
    """Pareto k̂ of the draws against the posterior: the median over neighbourhoods."""
    loo: float | None
    """Leave-one-out density of the support points under the block's draws: nats an image. The rest of the weights is
    held where *all* of them put it, so it is no estimate of `held_out`."""
    cost: float
    """Time of the inference in multiples of a one-step estimate."""


class Comparison(NamedTuple):
    """What `compare` finds."""

    all_weights: list[ComparisonRow]
    block: list[ComparisonRow]
    patterns: tuple[str, ...]
    """Names of the block's parameters."""
    posteriors: dict[str, Any]
    """ArviZ objects of the block's methods."""
    references: Tensor
    """(R, C, H, W)."""
    means: dict[str, Tensor]
    """Predicted pixel means of the references by method of all weights: (R, C, H, W)."""
    deviations: dict[str, Tensor]
    """Their standard deviations over the local posterior, of methods that have one: (R, C, H, W)."""
    samples: dict[str, Tensor]
    """Predicted pixel means of the first reference at single draws of the weights: (S, C, H, W)."""
    failed: dict[str, str]
    """The methods that failed, and why: they have no row."""


@torch.no_grad()
@single_precision()
def compare(
    run: Run,
    methods: Sequence[str] = DEFAULT_METHODS,
    settings: ComparisonSettings | None = None,
    block: tuple[str, ...] = (),
) -> Comparison:
    """Compare local posteriors of a trained run. The random state is left as it was.

    A method that fails leaves the others, unless it is the one-step estimate, which all are compared with.

    Args:
        run: with α > 0.
        methods: keys of `LOCAL_INFERENCE`, "laplace-block" and "nuts".
        settings: how much to compute.
        block: patterns of names of decoder parameters; the biases of its last layers, up to 50 of them, when empty.

    Raises:
        ValueError: the run has no local parameters, there is no such method, or the block is too large.
    """
    settings = settings or ComparisonSettings()
    if run.options.alpha == 0:
        raise ValueError("this run has α = 0: its weights are not local, so there are no local posteriors to compare")
    known = [*LOCAL_INFERENCE, *BLOCK_METHODS]
    if unknown := [method for method in methods if method not in known]:
        raise ValueError(f"no local inference is called {unknown[0]!r}: {suggestion(unknown[0], known)}")
    with random_state_kept(), pyro.get_param_store().scope(), pyro.validation_enabled(False):
        torch.manual_seed(settings.seed)
        points = draw_points(run, settings.neighbourhoods)
        few = Points(*(t[: settings.reference_neighbourhoods] for t in points))
        everything = [m for m in dict.fromkeys([BASELINE, *methods]) if m not in BLOCK_METHODS]
        patterns = block or last_biases(run)
        tasks: dict[str, Any] = {m: lambda m=m: measure(run, m, points, settings) for m in everything}
        measured, rows, failed = dict[str, Measured](), dict[str, ComparisonRow](), dict[str, str]()
        if narrow := [m for m in dict.fromkeys(methods) if m in BLOCK_METHODS]:
            find_block(run, patterns)  # refuses a wrong one before anything is computed
            try:
                reference = Block(run, patterns, few, settings)
            except Exception as error:
                log.debug("the block failed", exc_info=True)
                failed |= dict.fromkeys((OF_BLOCK, *narrow), reason(error))
            else:
                of_block = {"laplace-block": reference.laplace, "nuts": reference.nuts}
                tasks |= {OF_BLOCK: reference.one_step, **{m: of_block[m] for m in BLOCK_METHODS if m in narrow}}
        for name, task in _with_bar(tasks):
            baseline, on = (BASELINE, points) if name in everything else (OF_BLOCK, few)
            torch.manual_seed(settings.seed)  # no method's figures depend on which others are compared
            try:
                if baseline in failed:
                    raise ValueError(f"{baseline} failed: {failed[baseline]}")
                measured[name] = task()
                rows[name] = _row(name, measured[name], measured[baseline], on)
            except Exception as error:
                if name == BASELINE:
                    raise
                log.debug("%s failed", name, exc_info=True)
                failed[name] = reason(error)
    pixels = {name: measured[name].pixels for name in rows if name in everything and name in methods}
    return Comparison(
        [row for name, row in rows.items() if name in everything and name in methods],
        [row for name, row in rows.items() if name not in everything],
        patterns,
        {name: measured[name].arviz for name in rows if name not in everything},
        points.x,
        {name: p.mean(0) for name, p in pixels.items()},
        {name: p.std(0) for name, p in pixels.items() if len(p) > 1},
        {name: p[:, 0] for name, p in pixels.items() if len(p) > 1},
        failed,
    )


def _with_bar(tasks: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    with progress.bar(tasks.items(), desc="compare", unit="method") as bar:
        for name, task in bar:
            bar.set_postfix_str(name)
            yield name, task


def _row(method: str, result: Measured, baseline: Measured, points: Points) -> ComparisonRow:
    gains = (result.held_out - baseline.held_out).mean(1)
    return ComparisonRow(
        method,
        result.random_parameters,
        result.held_out.mean().item(),
        gains.mean().item(),
        gains.std().item() / len(gains) ** 0.5 if len(gains) > 1 else None,
        result.evidence,
        calibration_error(result.predicted.cpu(), points.held_out.cpu()),
        coverage(result.pixels.cpu(), points.x.cpu()) if len(result.pixels) > 1 else None,
        result.k_hat,
        result.loo,
        result.seconds / baseline.seconds,
    )
