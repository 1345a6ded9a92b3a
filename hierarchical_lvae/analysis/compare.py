"""What a one-step estimate of the local weights loses, and what a Gaussian around it recovers.

Methods are compared on R neighbourhoods of a run. Each has support points, which are adapted on, and held-out points,
which are not. There are two tables:

- *all weights*: methods that infer all of θ_N, by held-out density, evidence, calibration and cost;
- *a block*: some of the weights, with the others held at a point estimate (`block`), and NUTS as ground truth.

Gains and costs are relative to the point estimate of the table: the one step or, for a block of a local head, the exact
mode. Gains are computed on the same neighbourhoods and points.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.analysis import BLOCK_METHODS, DEFAULT_METHODS
from hierarchical_lvae.analysis.block import Block, default_block, find_block, has_exact_mode
from hierarchical_lvae.analysis.measure import Measured, Points, draw_points, measure
from hierarchical_lvae.analysis.settings import ComparisonSettings
from hierarchical_lvae.evaluation import calibration_error, coverage
from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import random_state_kept, reason, single_precision, suggestion

BASELINE = "one-step"

log = logging.getLogger(__name__)


class ComparisonRow(NamedTuple):
    """One method of a table; values that do not apply are None."""

    method: str
    random_parameters: int
    """Number of local parameters per neighbourhood that have a distribution instead of a point estimate."""
    held_out: float
    """log p(x | N) of held-out points, in nats per image."""
    gain: float
    """Gain in `held_out` over the table's point estimate (one-step; exact for a block of a head), in nats per image."""
    gain_error: float | None
    """Standard error of the gain, over neighbourhoods."""
    evidence: float | None
    """log p(N) by Laplace's formula, in nats per neighbourhood; for a block, given the other weights. Covariance
    structures differ in what they ignore, so it is comparable only within one."""
    calibration: float
    """Expected calibration error of the held-out points' pixel means, decoded from their mean codes, in pixel units."""
    coverage: float | None
    """Share of the references' pixels inside the 90 % interval of their predicted means over the local weights."""
    k_hat: float | None
    """Pareto k̂ of the draws as a proposal for the posterior: the median over neighbourhoods."""
    loo: float | None
    """Leave-one-out density of the support points under the draws of the block, in nats per image. The other weights
    are held at an estimate from *all* support points, so this does not estimate `held_out`."""
    cost: float
    """Time of the inference, in multiples of that estimate's."""


class Comparison(NamedTuple):
    """The result of `compare`."""

    all_weights: list[ComparisonRow]
    block: list[ComparisonRow]
    patterns: tuple[str, ...]
    """Patterns of the names of the block's parameters."""
    posteriors: dict[str, Any]
    """ArviZ objects of the block's methods."""
    references: Tensor
    """(R, C, H, W)."""
    means: dict[str, Tensor]
    """Predicted pixel means of the references, for each method on all weights: (R, C, H, W)."""
    deviations: dict[str, Tensor]
    """Their standard deviations over the local posterior, for methods that are not point estimates: (R, C, H, W)."""
    samples: dict[str, Tensor]
    """Predicted pixel means of the first reference with single draws of the weights: (S, C, H, W)."""
    failed: dict[str, str]
    """The methods that failed, with the reason; they have no row."""


@torch.no_grad()
@single_precision()
def compare(
    run: Run,
    methods: Sequence[str] = DEFAULT_METHODS,
    settings: ComparisonSettings | None = None,
    block: tuple[str, ...] = (),
) -> Comparison:
    """Compare local posteriors of a trained run. The random state is restored.

    If a method fails, the others still run, unless it is the one-step estimate, with which all are compared.

    Args:
        run: a run with α > 0.
        methods: keys of `LOCAL_INFERENCE`, "laplace-block" and "nuts".
        settings: how much to compute.
        block: patterns of decoder parameter names; if empty, the first channel of a local head (if NUTS can sample as
            many weights), and otherwise the biases of the last layers, up to 50 in all.

    Raises:
        ValueError: the run has no local parameters, a method does not exist, or the block is too large.
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
        narrow = [m for m in dict.fromkeys(methods) if m in BLOCK_METHODS]
        patterns = block or (default_block(run) if narrow else ())
        point = f"{'exact' if has_exact_mode(run) else BASELINE} (block)"
        tasks: dict[str, Any] = {m: lambda m=m: measure(run, m, points, settings) for m in everything}
        measured, rows, failed = dict[str, Measured](), dict[str, ComparisonRow](), dict[str, str]()
        if narrow:
            find_block(run, patterns)  # raises on a wrong block before anything is computed
            try:
                reference = Block(run, patterns, few, settings)
            except Exception as error:
                log.debug("the block failed", exc_info=True)
                failed |= dict.fromkeys((point, *narrow), reason(error))
            else:
                of_block = {"laplace-block": reference.laplace, "nuts": reference.nuts}
                tasks |= {point: reference.centre, **{m: of_block[m] for m in BLOCK_METHODS if m in narrow}}
        for name, task in _with_bar(tasks):
            baseline, on = (BASELINE, points) if name in everything else (point, few)
            torch.manual_seed(settings.seed)  # a method's results do not depend on which others are compared
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
