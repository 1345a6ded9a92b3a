"""The paper's synthetic neighbourhood: K draws from the observation noise around the image itself (§ 3.1)."""

from torch import Tensor

from hierarchical_lvae.neighbourhoods.build import Neighbourhood, Surroundings


class ObservationNoise(Neighbourhood):
    """K draws from the decoder's noise model, with the image as the mean.

    >>> import torch
    >>> from pyro.distributions import Bernoulli
    >>> x = torch.full((2, 1, 8, 8), 0.2)
    >>> noise = ObservationNoise(Surroundings(100, data=None, around=Bernoulli, encode=None))
    >>> x_N = noise(torch.arange(2), x)
    >>> x_N.shape, round(x_N.mean().item(), 1), x_N.unique().tolist()
    (torch.Size([2, 100, 1, 8, 8]), 0.2, [0.0, 1.0])
    """

    of_data = False
    capturable = True

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """Draw neighbours (B, K, C, H, W) of x (B, C, H, W); the index is not used."""
        return self.surroundings.around(x).sample((self.surroundings.num_neighbours,)).transpose(0, 1)

    def held_out(self, index: Tensor, x: Tensor) -> Tensor:
        """Further draws (B, K, C, H, W)."""
        return self(index, x)
