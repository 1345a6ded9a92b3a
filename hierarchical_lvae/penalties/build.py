"""Build a penalty from its name and weight, NAME[:WEIGHT].

Methods and settings are those of Locatello et al. (2019), "Challenging Common Assumptions in the Unsupervised Learning
of Disentangled Representations". The default weight is the third of the six that they tried. All penalties except
`annealed` compare the codes of a batch with each other and work better with a larger batch than our B: the study's has
64 images.

| name | weight | the term | default | in the study |
|---|---|---|---|---|
| `annealed` | c_max | 1000 · abs(mean KL − c), replaces β KL; c rises to c_max in 100,000 steps | 25 | 5 to 100 |
| `factor` | γ | γ · total correlation, estimated by a discriminator | 30 | 10 to 100 |
| `dip-i` | λ_od | on the covariance of the means, λ_d = 10 λ_od | 5 | 1 to 50 |
| `dip-ii` | λ_od | on the covariance of the codes, λ_d = λ_od | 5 | 1 to 50 |
| `tc` | β | (β − 1) · total correlation, estimated from the batch | 4 | 1 to 10 |
"""

import math
from inspect import signature

from hierarchical_lvae.penalties import PENALTIES
from hierarchical_lvae.types import Penalty, accepted, lookup


def with_weight(text: str) -> str:
    """Add the default weight to NAME[:WEIGHT] if the weight is missing.

    >>> with_weight("tc"), with_weight("tc:6")
    ('tc:4.0', 'tc:6.0')

    Raises:
        ValueError: there is no such penalty (the nearest is suggested), or its weight is negative or not finite.
    """
    name, colon, given = text.partition(":")
    default = signature(lookup(PENALTIES, name, "penalty")).parameters["weight"].default
    try:
        weight = float(given) if colon else default
    except ValueError:
        weight = math.nan
    if not (weight >= 0 and math.isfinite(weight)):
        raise ValueError(
            f"the weight of the penalty {name} is {given!r}: give a finite number that is not negative, "
            f"such as {name}:{default:g}"
        )
    return f"{name}:{weight}"


def build_penalty(text: str, latent_dim: int, device: str = "cpu") -> Penalty:
    """Build the penalty NAME[:WEIGHT] for codes of size D = `latent_dim` on a device.

    Raises:
        ValueError: as in `with_weight`.
    """
    name, _, weight = with_weight(text).partition(":")
    make = lookup(PENALTIES, name, "penalty")
    return make(float(weight), **accepted(make, latent_dim=latent_dim, device=device))
