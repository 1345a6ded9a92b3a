"""A neighbourhood by its name."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS
from hierarchical_lvae.types import lookup

if TYPE_CHECKING:
    from pyro.distributions import TorchDistribution


class Neighbourhood(Protocol):
    """Draws neighbours: K points near each query, by the global random state."""

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Neighbours (B, K, C, H, W) of the images x (B, C, H, W) that stand at `index` (B,) in the data set."""
        ...


def build_neighbourhood(
    name: str, num_neighbours: int, around: Callable[[Tensor], "TorchDistribution"]
) -> Neighbourhood:
    """Build a neighbourhood by its name in `NEIGHBOURHOODS`.

    Args:
        name: a key of `NEIGHBOURHOODS`.
        num_neighbours: K.
        around: the observation noise of an image, such as `vae.likelihood.around`.
    """
    if num_neighbours < 1:
        raise ValueError(f"K is {num_neighbours}: a neighbourhood has at least one point")
    return lookup(NEIGHBOURHOODS, name, "neighbourhood")(num_neighbours, around)
