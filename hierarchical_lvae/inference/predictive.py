"""The predictive density log p(x | N) of held-out points under a local posterior, by importance sampling of the codes:

    log p(x | N) = log E_{q(θ_N | N)} E_{q(z | x, φ_N)} [ p(x | z, θ_N) p(z) / q(z | x, φ_N) ].

It treats points, Gaussians and NUTS draws in the same way, because it only needs local values drawn from the posterior.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from hierarchical_lvae.inference.bound import PyroProgram, log_weights
from hierarchical_lvae.types import random_state_kept

Values = Mapping[str, Tensor]


def draws(posterior: Mapping[str, dist.TorchDistribution], number: int) -> Iterator[dict[str, Tensor]]:
    """Draw local values (B, 1, P) by site, `number` times; a point yields the same values each time."""
    for _ in range(number):
        yield {name: q.sample() for name, q in posterior.items()}


@torch.no_grad()
def log_likelihoods(
    model: PyroProgram,
    guide: PyroProgram,
    data: Any,
    values: Iterable[Values],
    num_codes: int,
    sites: Collection[str] = ("theta_N", "phi_N"),
    common: bool = False,
) -> Tensor:
    """log p(x | θ_N) of each point at each of S local values, by importance sampling of the codes: (S, B, K), nats.

    Args:
        model, guide: the Pyro programs.
        data: their argument.
        values: S local values by site.
        num_codes: draws of the codes per local value. The estimate is biased low; the bias shrinks with more draws.
        sites: names of the local sites.
        common: use the same draws of the codes for all S values. Differences between the values are then free of code
            noise, but averaging over the S values does not reduce that noise.

    Raises:
        ValueError: as in `log_weights`.
    """
    seed = int(torch.randint(2**31, ()))
    results = []
    for i, value in enumerate(values):
        with random_state_kept():
            torch.manual_seed(seed if common else seed + i)
            weights = [log_weights(model, guide, data, sites, value) for _ in range(num_codes)]
        results.append(torch.stack(weights).logsumexp(0) - math.log(num_codes))
    return torch.stack(results)


def log_predictive(
    model: PyroProgram,
    guide: PyroProgram,
    query: Any,
    values: Iterable[Values],
    num_codes: int = 20,
    sites: Collection[str] = ("theta_N", "phi_N"),
) -> Tensor:
    """log p(x | N) of each held-out point: the log of the mean of p(x | θ_N) over S local values, (B, K), nats.

    The arguments and errors are those of `log_likelihoods`.
    """
    results = log_likelihoods(model, guide, query, values, num_codes, sites)
    return results.logsumexp(0) - math.log(len(results))
