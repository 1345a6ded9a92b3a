"""A penalty by its name and weight, NAME[:WEIGHT].

The methods are those of the study of Locatello et al. (2019, "Challenging Common Assumptions in the Unsupervised
Learning of Disentangled Representations"), with its settings; a weight that is left out is the third of the six that it
tried. All but the first compare the codes of a batch with each other, and want a larger one than ours (B): its has 64.

| name | weight | the term | default | the study's |
|---|---|---|---|---|
| `annealed` | c_max | 1000 · abs(mean KL − c), in place of β KL; c rises to c_max in 100,000 steps | 25 | 5 to 100 |
| `factor` | γ | γ · total correlation, by a discriminator | 30 | 10 to 100 |
| `dip-i` | λ_od | of the covariance of the means, λ_d = 10 λ_od | 5 | 1 to 50 |
| `dip-ii` | λ_od | of the covariance of the codes, λ_d = λ_od | 5 | 1 to 50 |
| `tc` | β | (β − 1) · total correlation, by the batch | 4 | 1 to 10 |
"""

import math
from inspect import signature

from hierarchical_lvae.penalties import PENALTIES
from hierarchical_lvae.types import Penalty, accepted, lookup


def with_weight(text: str) -> str:
    """Complete NAME[:WEIGHT] by the default weight.

    >>> with_weight("tc"), with_weight("tc:6")
    ('tc:4.0', 'tc:6.0')

    Raises:
        ValueError: there is no such penalty (the nearest is suggested), or its weight is not finite, or negative.
    """
    name, colon, given = text.partition(":")
    default = signature(lookup(PENALTIES, name, "penalty")).parameters["weight"].default
    try:
        weight = float(given) if colon else default
    except ValueError:
        weight = math.nan
    if not (weight >= 0 and math.isfinite(weight)):
        raise ValueError(
            f"the weight of the penalty {name} is {given!r}: a number is needed, finite and not negative, "
            f"such as {name}:{default:g}"
        )
    return f"{name}:{weight}"


def build_penalty(text: str, latent_dim: int, device: str = "cpu") -> Penalty:
    """Build the penalty NAME[:WEIGHT] for codes of D = `latent_dim` numbers on a device; errors as `with_weight`."""
    name, _, weight = with_weight(text).partition(":")
    make = lookup(PENALTIES, name, "penalty")
    return make(float(weight), **accepted(make, latent_dim=latent_dim, device=device))
