"""A neighbourhood by its name, and what it is made from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from torch import Tensor

from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS
from hierarchical_lvae.types import Stateful, accepted, lookup

if TYPE_CHECKING:
    from pyro.distributions import TorchDistribution


class Data(Protocol):
    """n images, as `FactorImages` has them."""

    @property
    def factors(self) -> np.ndarray:
        """(n, F) whole numbers."""
        ...

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Of the F factors."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of the data."""
        ...

    def __len__(self) -> int:
        """Count the images."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        ...

    def batch(self, index: Tensor) -> Tensor:
        """Images (B, C, H, W) at `index` (B,), pixels in [0, 1]."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What neighbourhoods are made from; each takes what it needs."""

    num_neighbours: int
    """K."""
    data: Data
    around: "Callable[[Tensor], TorchDistribution]"
    """The observation noise of an image, such as `vae.likelihood.around`."""
    encode: Callable[[Tensor], Tensor]
    """Codes (B, D) of images (B, C, H, W), by the weights of the moment."""
    index: str | None = None
    """How nearest pixels are searched: a string for Faiss's `index_factory`, or "Flat" for exactly; by size if None."""
    refresh: int = 0
    """After how many steps all codes are computed anew; never if 0."""
    cache: Path | None = None
    """A directory where tables that take long are kept, by fingerprint."""


class Neighbourhood(Stateful, Protocol):
    """Draws neighbours: K points near each query, distinct, by the global random state."""

    of_data: ClassVar[bool] = True
    """Whether neighbours are other points of the data, and never the query itself."""

    def prepare(self) -> None:
        """Find out what must be known before the first step, if it was not restored; it may take minutes.

        A neighbourhood that is asked before that prepares itself.
        """

    def held_out(self, index: Tensor, x: Tensor) -> Tensor | None:
        """Further neighbours (B, K', C, H, W), distinct from those of any other draw, if there are such."""
        return None

    def update(self, index: Tensor, x: Tensor) -> None:
        """Take note of a step of the training on the images x (B, C, H, W) at `index` (B,)."""

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Neighbours (B, K, C, H, W) of the images x (B, C, H, W) that stand at `index` (B,) in the data set."""
        ...


def build_neighbourhood(name: str, surroundings: Surroundings) -> Neighbourhood:
    """Build a neighbourhood by its name in `NEIGHBOURHOODS`, with its argument behind a colon if it takes one.

    Raises:
        ValueError: there is no such name, the argument is not what it should be, or K is not below the data's size.
    """
    if surroundings.num_neighbours < 1:
        raise ValueError(f"K is {surroundings.num_neighbours}: a neighbourhood has at least one point")
    name, _, argument = name.partition(":")
    make = lookup(NEIGHBOURHOODS, name, "neighbourhood")
    if argument and not accepted(make, argument=argument):
        able = " and ".join(sorted(n for n, e in NEIGHBOURHOODS.items() if accepted(resolve_name(e), argument="")))
        raise ValueError(f"{name} takes no argument, and {argument!r} was given: only {able} do")
    number = len(surroundings.data)
    if getattr(make, "of_data", True) and surroundings.num_neighbours >= number:
        raise ValueError(
            f"K is {surroundings.num_neighbours} and there are {number} images: {name} gives {number - 1} at most, "
            "lower `num_neighbours`"
        )
    return make(surroundings, **accepted(make, argument=argument))


def gather(data: Data, ids: Tensor, x: Tensor) -> Tensor:
    """The images at ids (B, K), as the queries x are: (B, K, C, H, W)."""
    return data.batch(ids.flatten()).to(x).unflatten(0, ids.shape)


def without_self(ids: Tensor, own: Tensor, number: int) -> Tensor:
    """Of neighbours (B, M), nearest first, the first `number` that are not the query's own id (B,): (B, number).

    >>> import torch
    >>> without_self(torch.tensor([[3, 7, 1], [5, 4, 2]]), torch.tensor([7, 9]), 2).tolist()
    [[3, 1], [5, 4]]
    """
    order = (ids == own[:, None]).to(int).argsort(dim=1, stable=True)
    return ids.gather(1, order)[:, :number]
