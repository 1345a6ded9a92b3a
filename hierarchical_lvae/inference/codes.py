"""The codes of a batch, read off the bound: what a penalty is a function of."""

from collections.abc import Mapping

import pyro.distributions as dist

from hierarchical_lvae.inference.sites import base
from hierarchical_lvae.types import Codes, Latent


def codes_of(latent: Mapping[str, Latent]) -> Codes:
    """The codes of all n = B·K points together, from the one latent site of a program, whatever its name.

    Points count alike: masks and scales of the site are not looked at.

    Raises:
        ValueError: there are several such sites, or none; or its posterior is not Normal with independent dimensions.
    """
    if len(latent) != 1:
        found = " and ".join(sorted(latent)) or "none"
        raise ValueError(f"a penalty needs one latent site, the codes, and the program has {found}: leave it out")
    ((name, site),) = latent.items()
    q = base(site.posterior)
    if not isinstance(q, dist.Normal):
        raise ValueError(
            f"the codes {name!r} are {type(q).__name__} in the guide: a penalty needs Normal, of independent dimensions"
        )
    points = site.kl.numel()
    mean, scale, value = (part.reshape(points, -1) for part in (q.mean, q.scale, site.value))
    return Codes(mean, scale, value, site.kl.reshape(points))
