"""The paper's synthetic neighbourhood: K draws from the noise of the observation, around the image itself (§ 3.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from pyro.distributions import TorchDistribution


@dataclass(frozen=True)
class ObservationNoise:
    """K draws of the noise that the decoder assumes, with the image as its mean.

    >>> import torch
    >>> from pyro.distributions import Bernoulli
    >>> x = torch.full((2, 1, 8, 8), 0.2)
    >>> x_N = ObservationNoise(100, Bernoulli)(torch.arange(2), x)
    >>> x_N.shape, round(x_N.mean().item(), 1), x_N.unique().tolist()
    (torch.Size([2, 100, 1, 8, 8]), 0.2, [0.0, 1.0])
    """

    num_neighbours: int
    around: "Callable[[Tensor], TorchDistribution]"

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Draw neighbours (B, K, C, H, W) of x (B, C, H, W); the index is not looked at."""
        return self.around(x).sample((self.num_neighbours,)).transpose(0, 1)
