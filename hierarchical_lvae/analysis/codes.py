"""Scores of the codes: how well they separate the data's factors.

Codes are means of the encoder, local (adapted on fresh, seeded neighbours of each point) or meta. Points are drawn from
the data that the run was trained on: there is no split. From large data sets they are drawn with replacement, as is
usual in the literature; from small ones without, so that classifiers are not tested on points they were fitted on.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hierarchical_lvae import progress
from hierarchical_lvae.analysis.settings import ScoreSettings
from hierarchical_lvae.data import Part
from hierarchical_lvae.data.factor_images import is_colour
from hierarchical_lvae.evaluation import METRICS, Dci
from hierarchical_lvae.evaluation.arrays import unsuitable
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import accepted, lookup, seeded

BATCH, LARGE = 50, 10


class Encoded(NamedTuple):
    """Points of the data, encoded by a run."""

    codes: NDArray[np.float32]
    """(n, D)."""
    factors: NDArray[np.int64]
    """(n, F)."""


def encode(run: Run, number: int, codes: str = "local", seed: int = 0, part: Part | None = None) -> Encoded:
    """Encode random points of the run's data, or of one part of them. The random state is restored."""
    found = []
    part = part or run.dataset.sub_sets[0]
    what = " ".join(["encode", *part.name.split(), f"({codes})"])
    size = part.stop - part.start
    with seeded(seed), progress.bar(desc=what, total=min(number, size), unit="image") as bar:
        rows = torch.randint(size, (number,)) if size >= LARGE * number else torch.randperm(size)[:number]
        for index in (part.start + rows).split(BATCH):
            index = index.to(run.options.device)
            x = run.dataset.batch(index)
            found.append(run.encode(x, run.neighbourhood(index, x) if codes == "local" else None).cpu())
            bar.update(len(index))
    return Encoded(torch.cat(found).numpy(), part.factors[rows.numpy()])


def disentanglement(name: str, points: Encoded, factor_names: Sequence[str], settings: ScoreSettings) -> dict[str, Any]:
    """Compute a measure of `METRICS` on the first `settings.train` points; measures with a test set use the others.

    Factors that cannot be scored (see `unsuitable`) are left out, the same ones for each measure, and listed in
    `left_out`. DCI is also given without the colours and for the colours alone, from the same classifiers.
    """
    n, (codes, factors) = settings.train, points
    reasons = unsuitable(factors[:n], factors[n:])
    scored = [k for k in range(len(factor_names)) if k not in reasons]
    left_out = {factor_names[k]: why for k, why in reasons.items()}
    if not scored:
        listed = ", ".join(f"{factor} ({why})" for factor, why in left_out.items())
        return {"not_available": f"no factor can be scored: {listed}" if left_out else "no factors"}
    values = _measured(name, codes, factors[:, scored], [factor_names[k] for k in scored], settings)
    return values | ({"left_out": left_out} if left_out else {})


def _measured(
    name: str, codes: NDArray, factors: NDArray, factor_names: Sequence[str], settings: ScoreSettings
) -> dict[str, Any]:
    metric, n = lookup(METRICS, name, "metric"), settings.train
    if len(factor_names) == 1 and getattr(metric, "compares_factors", False):
        return {"not_available": "there is only one factor, and this score compares several"}
    more = accepted(metric, codes_test=codes[n:], factors_test=factors[n:], seed=settings.seed)
    result = metric(codes[:n], factors[:n], **more)
    values = _plain(result)
    if len(factor_names) == 1:
        values.pop("disentanglement", None)  # with a single factor it is 1, whatever the codes
    if isinstance(result, Dci):
        values["factors"] = list(factor_names)
        kept = geometry(factor_names)
        colours = [k for k in range(len(factor_names)) if k not in kept]
        if kept and colours:
            values["without_colour"] = _floats(result.of_factors(kept))
            values["of_colour"] = _floats(result.of_factors(colours))
    return values


def geometry(factor_names: Sequence[str]) -> list[int]:
    """The indices of the factors that are not colours ("without colour")."""
    return [k for k, name in enumerate(factor_names) if not is_colour(name)]


def _floats(result: Any) -> dict[str, float]:
    return {key: value for key, value in _plain(result).items() if isinstance(value, float)}


def _plain(result: Any) -> dict[str, Any]:
    return {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in result._asdict().items()}
