"""What a one-step estimate of the local weights loses, and what a Gaussian around it recovers.

Methods are compared on R neighbourhoods of a run. Each has support points, which are adapted on, and held-out points,
which are not. There are two tables:

- *all weights*: methods that infer all of θ_N, by held-out density, evidence, calibration and cost;
- *a block*: some of the weights, with the others held at a point estimate (`block`), and NUTS as ground truth.

Gains and costs are relative to the point estimate of the table: the one step or, for a block of a local head, the exact
mode. Gains are computed on the same neighbourhoods and points.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pyro
import torch
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.analysis import BLOCK_METHODS, DEFAULT_METHODS
from hierarchical_lvae.analysis.block import Block, centre_name, default_block, find_block
from hierarchical_lvae.analysis.measure import Measured, Points, draw_points, measure
from hierarchical_lvae.analysis.settings import ComparisonSettings
from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import check_name, reason, seeded

BASELINE = "one-step"
Tasks = dict[str, Callable[[], Measured]]

log = logging.getLogger(__name__)


class Comparison(NamedTuple):
    """The result of `compare`."""

    all_weights: list[Measured]
    block: list[Measured]
    patterns: tuple[str, ...]
    """Patterns of the names of the block's parameters."""
    references: Tensor
    """(R, C, H, W)."""
    failed: dict[str, str]
    """The methods that failed, with the reason; they are in no list."""


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
    for method in methods:
        check_name("local inference", method, (*LOCAL_INFERENCE, *BLOCK_METHODS))
    with seeded(settings.seed), pyro.get_param_store().scope():
        points = draw_points(run, settings.neighbourhoods)
        few = Points(*(t[: settings.reference_neighbourhoods] for t in points))
        all_weights: Tasks = {
            m: partial(measure, run, m, points, settings) for m in (BASELINE, *methods) if m not in BLOCK_METHODS
        }
        narrow = [m for m in BLOCK_METHODS if m in methods]
        patterns = block or (default_block(run) if narrow else ())
        of_block, failed = _tasks(run, narrow, patterns, few, settings) if narrow else ({}, {})
        rows = dict[str, Measured]()
        with progress.bar((all_weights | of_block).items(), desc="compare", unit="method") as bar:
            for name, task in bar:
                bar.set_postfix_str(name)
                point = BASELINE if name in all_weights else next(iter(of_block))
                torch.manual_seed(settings.seed)  # a method's results do not depend on which others are compared
                try:
                    if point in failed:
                        raise ValueError(f"{point} failed: {failed[point]}")
                    found = task()
                    rows[name] = found.relative_to(rows.get(point, found))
                except Exception as error:
                    if name == BASELINE:
                        raise
                    log.debug("%s failed", name, exc_info=True)
                    failed[name] = reason(error)
    return Comparison(
        [row for name, row in rows.items() if name in all_weights and name in methods],
        [row for name, row in rows.items() if name in of_block],
        patterns,
        points.x,
        failed,
    )


def _tasks(
    run: Run, methods: Sequence[str], patterns: tuple[str, ...], points: Points, settings: ComparisonSettings
) -> tuple[Tasks, dict[str, str]]:
    """How to measure the block's point estimate and its methods, or why none of them can be."""
    find_block(run, patterns)  # raises on a wrong block before anything is computed
    point = f"{centre_name(run)} (block)"
    try:
        block = Block(run, patterns, points, settings)
    except Exception as error:
        log.debug("the block failed", exc_info=True)
        return {}, dict.fromkeys((point, *methods), reason(error))
    tasks = {point: block.centre, "laplace-block": block.laplace, "nuts": block.nuts}
    return {name: task for name, task in tasks.items() if name in (point, *methods)}, {}
