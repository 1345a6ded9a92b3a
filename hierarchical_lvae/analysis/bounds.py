"""Likelihood scores: ELBO and IWAE bounds under local weights, reconstruction errors and active units."""

import math
from typing import Any

import numpy as np
import pyro

from hierarchical_lvae import progress
from hierarchical_lvae.analysis.codes import encode
from hierarchical_lvae.analysis.measure import draw_points
from hierarchical_lvae.analysis.settings import IWAE_DRAWS
from hierarchical_lvae.evaluation import active_units, bits_per_dimension, iwae
from hierarchical_lvae.inference.bound import log_weights
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import seeded

UNITS_OF = 1_000
"""Number of points on which active units are counted."""


def likelihood(run: Run, seed: int, neighbourhoods: int, draws: int) -> dict[str, Any]:
    """ELBO and IWAE bounds under local weights, for points that were adapted on and for points that were not.

    Their difference is the gain from having seen the points. Bounds are in nats per image and in bits per dimension.
    Squared errors of reconstructions (per pixel) and the number of active units are returned, too.
    """
    vae = run.vae
    values: dict[str, Any] = {}
    with seeded(seed), pyro.get_param_store().scope():
        try:
            points = draw_points(run, neighbourhoods)
        except ValueError as error:
            return {"not_available": str(error)}
        local = {name: q.mean for name, q in run.adapt(points.x, points.support).items()}
        parts = {"adapted_on": points.support, "held_out": points.held_out, "reference": points.x.unsqueeze(1)}
        for part, x in parts.items():
            bar = progress.bar(range(draws), desc=f"IWAE ({part})", unit="draw")
            weights = np.stack([log_weights(vae.model, vae.guide, x, run.elbo.sites, local).cpu().numpy() for _ in bar])
            bounds = {k: iwae(weights, k) for k in IWAE_DRAWS if k <= draws}
            largest = bounds[max(bounds)]
            values[part] = {
                "nats": {f"k={k}": float(bound.mean()) for k, bound in bounds.items()},
                "standard_error": float(largest.mean(1).std(ddof=1) / math.sqrt(len(largest)))
                if len(largest) > 1
                else None,
                "bits_per_dimension": bits_per_dimension(float(largest.mean()), math.prod(x.shape[2:])),
            }
        pairs = (("local", points.support), ("meta", None))
        z = {name: run.encode(points.x, x_N) for name, x_N in pairs}
        values["squared_error"] = {
            name: float((run.decode(z[name].unsqueeze(1), x_N).squeeze(1) - points.x).square().mean())
            for name, x_N in pairs
        }
    sample = encode(run, UNITS_OF, "local", seed)
    values["active_units"] = active_units(sample.codes)
    return values
