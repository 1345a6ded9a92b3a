"""An oracle, for analysis only: neighbours that share labels with the query. Unlike all others, it needs labels."""

import logging

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae.data.factor_images import is_colour
from hierarchical_lvae.neighbourhoods.build import Neighbourhood, Surroundings, distinct, gather
from hierarchical_lvae.types import separated, suggestion

log = logging.getLogger(__name__)


class SharedLabels(Neighbourhood):
    """K distinct random points that share the query's values of some factors; the other factors vary freely.

    Args:
        surroundings: with data whose factors are known.
        argument: the names of the shared factors, separated by commas. If empty, the colours, or the first factor if
            there are no colours.

    Raises:
        ValueError: the data have no labels, a factor is empty or unknown, or a point shares its values with fewer
            than K others.
    """

    capturable = True

    def __init__(self, surroundings: Surroundings, argument: str = "") -> None:
        names = surroundings.data.factor_names
        if not names:
            raise ValueError("the data have no labels: choose another `neighbourhood`")
        usual = [name for name in names if is_colour(name)] or names[:1]
        shared = separated(argument, "the list of factors") if argument else usual
        if unknown := [name for name in shared if name not in names]:
            raise ValueError(f"no factor is called {unknown[0]!r}: {suggestion(unknown[0], names)}")
        self.surroundings = surroundings
        columns = surroundings.data.factors[:, [names.index(name) for name in shared]]
        _, groups, sizes = np.unique(columns, axis=0, return_inverse=True, return_counts=True)
        groups = groups.reshape(-1)
        order = np.argsort(groups, kind="stable")
        starts = np.cumsum(sizes) - sizes
        self.table = torch.from_numpy(np.stack([order, np.argsort(order), starts[groups], sizes[groups]]))
        """(4, n): all points, sorted by group; and for each point its place there, its group's start and its size."""
        wanted, least = surroundings.num_neighbours, int(sizes.min())
        if least <= wanted:
            raise ValueError(
                f"K is {wanted}, but some points share {', '.join(shared)} with only {least - 1} others: "
                "lower `num_neighbours`, or name fewer factors"
            )
        log.warning("neighbours share their %s: an oracle, for analysis only", ", ".join(shared))

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Draw neighbours (B, K, C, H, W)."""
        self.table = self.table.to(x.device)
        points = self.table[0]
        place, start, size = self.table[1:, index]
        chosen = start[:, None] + distinct(size - 1, self.surroundings.num_neighbours)
        chosen += chosen >= place[:, None]  # skips the query itself
        return gather(self.surroundings.data, points[chosen], x)
