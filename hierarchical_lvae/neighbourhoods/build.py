"""Build a neighbourhood by name; the inputs that neighbourhoods use."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

from hierarchical_lvae.data.factor_images import FactorImages
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS
from hierarchical_lvae.types import Stateful, accepted, lookup

if TYPE_CHECKING:
    from pyro.distributions import TorchDistribution


@dataclass(frozen=True)
class Surroundings:
    """The inputs of neighbourhoods; each neighbourhood uses what it needs."""

    num_neighbours: int
    """K."""
    data: FactorImages
    around: "Callable[[Tensor], TorchDistribution]"
    """The observation noise around an image, such as `vae.likelihood.around`."""
    encode: Callable[[Tensor], Tensor]
    """Codes (B, D) of images (B, C, H, W), under the current weights."""
    index: str | None = None
    """The index for nearest pixels: a string for Faiss's `index_factory` ("Flat" is exact); None chooses by size."""
    refresh: int = 0
    """Recompute all codes after this many steps; 0 is never."""
    cache: Path | None = None
    """A directory in which to cache expensive tables by fingerprint; None caches nothing."""


class Neighbourhood(Stateful, Protocol):
    """Draws K distinct neighbours of each query, using the global random state."""

    of_data: ClassVar[bool] = True
    """Whether neighbours are other points of the data set, never the query itself."""
    capturable: ClassVar[bool] = False
    """Whether `update` does nothing, and a call, after `prepare`, computes only on the device of x. A CUDA graph may
    then contain the call. (Random numbers drawn on the host would be the same in each of its steps.)"""

    def prepare(self) -> None:
        """Compute what is needed before the first step, unless it was restored; this may take minutes.

        A neighbourhood that is called before `prepare` calls it itself.
        """

    def check(self) -> None:
        """Raise, without computing anything that takes long, if `prepare` would fail; called before a new fit."""

    def held_out(self, index: Tensor, x: Tensor) -> Tensor | None:
        """Further neighbours (B, K', C, H, W), independent of any other draw; None if the neighbourhood has none."""
        return None

    def update(self, index: Tensor, x: Tensor) -> None:
        """Called after each training step, with its images x (B, C, H, W) at `index` (B,)."""

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Neighbours (B, K, C, H, W) of the images x (B, C, H, W) at `index` (B,) in the data set."""
        ...


def build_neighbourhood(name: str, surroundings: Surroundings) -> Neighbourhood:
    """Build a neighbourhood by its name in `NEIGHBOURHOODS`, followed by a colon and an argument if it takes one.

    Raises:
        ValueError: there is no such name, the argument is invalid, or K is below 1 or not below the number of images.
    """
    if surroundings.num_neighbours < 1:
        raise ValueError(f"K is {surroundings.num_neighbours}: it must be at least 1")
    name, _, argument = name.partition(":")
    make = lookup(NEIGHBOURHOODS, name, "neighbourhood")
    if argument and not accepted(make, argument=argument):
        able = " and ".join(sorted(n for n, e in NEIGHBOURHOODS.items() if accepted(resolve_name(e), argument="")))
        raise ValueError(f"{name} takes no argument but got {argument!r}: only {able} take one")
    number = len(surroundings.data)
    if getattr(make, "of_data", True) and number == 1:
        raise ValueError(f"there is only one image, and {name} needs at least two: choose another `neighbourhood`")
    if getattr(make, "of_data", True) and surroundings.num_neighbours >= number:
        raise ValueError(
            f"K is {surroundings.num_neighbours} but there are {number} images, so {name} has at most {number - 1} "
            "neighbours: lower `num_neighbours`"
        )
    return make(surroundings, **accepted(make, argument=argument))


def gather(data: FactorImages, ids: Tensor, x: Tensor) -> Tensor:
    """The images at ids (B, K), with the dtype and device of the queries x: (B, K, C, H, W)."""
    return data.batch(ids.flatten()).to(x).unflatten(0, ids.shape)


def distinct(below: Tensor, number: int) -> Tensor:
    """Draw `number` distinct integers from 0 … n - 1 for each n in `below` (B,), on its device: (B, number).

    Floyd's algorithm (Bentley and Floyd, 1987) draws each subset with equal probability; then its order is shuffled.

    >>> import torch
    >>> distinct(torch.tensor([3, 1_000]), 3).sort().values[0]
    tensor([0, 1, 2])
    """
    drawn = below.new_empty(len(below), 0)
    random = torch.randint(2**62, (number, len(below)), device=below.device)
    for last, one in enumerate(random, start=-number):
        new = one % (below + last + 1)
        taken = (drawn == new[:, None]).any(1)
        drawn = torch.cat([drawn, torch.where(taken, below + last, new)[:, None]], 1)
    return drawn.gather(1, torch.rand_like(drawn, dtype=torch.float32).argsort(1))


def without_self(ids: Tensor, own: Tensor, number: int) -> Tensor:
    """The first `number` of the neighbours (B, M), nearest first, without the query's own id (B,): (B, number).

    >>> import torch
    >>> without_self(torch.tensor([[3, 7, 1], [5, 4, 2]]), torch.tensor([7, 9]), 2).tolist()
    [[3, 1], [5, 4]]
    """
    order = (ids == own[:, None]).long().argsort(dim=1, stable=True)
    return ids.gather(1, order)[:, :number]
