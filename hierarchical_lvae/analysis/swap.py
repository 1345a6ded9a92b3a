"""The swap score of a run: codes of some images, decoded with the local weights of others (see `evaluation.swap`)."""

from typing import Any

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.analysis.classifier import classified_factors, factor_classifier
from hierarchical_lvae.analysis.codes import geometry
from hierarchical_lvae.evaluation import swap_score
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import seeded

BATCH = 50


def swap(run: Run, seed: int = 0, test: int = 5_000) -> dict[str, Any]:
    """Score whether each factor follows the code or the local weights, on `test` pairs of images.

    Each image gives its code to one decoded image and its weights to another. The result also has `ceiling`, the share
    of images whose own reconstruction shows their value, and `accuracy`, that of the classifier on the images
    themselves. `of_ceiling` is the share that follows the code, divided by the ceiling.

    Raises:
        ValueError: a decoded pixel is not finite.
    """
    factors, which = run.dataset.factors, classified_factors(run)
    with seeded(seed):
        rows = torch.randperm(len(run.dataset))[:test]
    others = rows.roll(1)
    true, of_weights = factors[rows.numpy()], factors[others.numpy()]
    differ = (true != of_weights).any(0)
    scored = [k for k in which if differ[k]]
    if not scored:
        return {"not_available": "the data as a whole have no factors that can be scored"}
    names, sizes = [run.dataset.factor_names[k] for k in scored], [run.dataset.factor_sizes[k] for k in scored]
    seen = []
    with seeded(seed):
        classifier = factor_classifier(run)
        parts = zip(rows.split(BATCH), others.split(BATCH), strict=True)
        for part in progress.bar([*parts], "swap codes and weights", unit="batch"):
            index, other = (i.to(run.options.device) for i in part)
            x, y = run.dataset.batch(index), run.dataset.batch(other)
            x_N, y_N = run.neighbourhood(index, x), run.neighbourhood(other, y)
            z = run.encode(x, x_N).unsqueeze(1)
            images = torch.stack([x, run.decode(z, x_N).squeeze(1), run.decode(z, y_N).squeeze(1)])
            if not images.isfinite().all():
                raise ValueError("decoded images have pixels that are not finite: has the fit diverged?")
            seen.append(torch.stack([f.argmax(1) for f in classifier(images.flatten(0, 1))], 1).unflatten(0, (3, -1)))
    itself, own, shown = torch.cat(seen, 1).cpu().numpy()[..., [which.index(k) for k in scored]]
    true = true[:, scored]
    found = swap_score(shown, true, of_weights[:, scored], sizes)
    values = {
        **{key: value.tolist() for key, value in found._asdict().items()},
        "ceiling": (own == true).mean(0).tolist(),
        "accuracy": (itself == true).mean(0).tolist(),
        "chance": (1 / np.array(sizes)).tolist(),
    }
    values |= {key: [None if np.isnan(v) else v for v in values[key]] for key in ("in_code", "error")}
    values["factors"] = names
    kept = geometry(names)
    for key, some in (("without_colour", kept), ("of_colour", [k for k in range(len(names)) if k not in kept])):
        if some:
            means = {name: float(np.mean([values[name][k] for k in some])) for name in ("code", "weights", "ceiling")}
            values[key] = {**means, "of_ceiling": means["code"] / means["ceiling"] if means["ceiling"] else 0.0}
    return values
