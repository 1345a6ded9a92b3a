"""The codes of a batch, extracted from the bound: the input of a penalty."""

from collections.abc import Mapping

import pyro.distributions as dist

from hierarchical_lvae.inference.sites import base
from hierarchical_lvae.types import Codes, Latent


def codes_of(latent: Mapping[str, Latent]) -> Codes:
    """Collect the codes of all n = B·K points from the program's single latent site, whatever its name.

    All points have the same weight: masks and scales of the site are ignored.

    Raises:
        ValueError: there is not exactly one latent site, or its posterior is not Normal with independent dimensions.
    """
    if len(latent) != 1:
        found = " and ".join(sorted(latent)) or "none"
        raise ValueError(
            f"a penalty needs exactly one latent site, the codes, but the program has {found}: leave the penalty out"
        )
    ((name, site),) = latent.items()
    q = base(site.posterior)
    if not isinstance(q, dist.Normal):
        raise ValueError(
            f"the codes {name!r} are {type(q).__name__} in the guide: a penalty needs a Normal with independent "
            "dimensions"
        )
    points = site.kl.numel()
    mean, scale, value = (part.reshape(points, -1) for part in (q.mean, q.scale, site.value))
    return Codes(mean, scale, value, site.kl.reshape(points))
