r"""The limit of many noisy copies: one neighbour, the mean of the observation noise around the image.

K copies x_k of an image are drawn from noise with mean x (`noise`). For given codes and weights a Bernoulli's, and a
Gaussian's, log likelihood is linear in the observed image, up to a term without parameters, so as K → ∞ the average
over the copies is the log likelihood of their mean,

    1/K Σ_k log p(x_k | z, θ_N)  →  E log p(x_k | z, θ_N) = log p(E x_k | z, θ_N) + constant,

and the copies are replaced by one point without noise. What this means:

- *Exact*: the reconstruction term of ℓ_N and its gradient in θ_N, at given codes. (A Gaussian with a learned scale
  keeps the variance of the copies in that term, and a mean does not: there, σ is estimated too small.)
- *Not exact*: the codes. The encoder sees a clean image where it saw noisy ones, q(z | x_k, φ_N) is not linear in x_k,
  and the KL of the codes, and the gradient in φ_N, follow that.
- *τ, evidence and Laplace count K points, and here K is 1*: τ² = α / (C·H·W), so α keeps its meaning as the step on
  the loss averaged over neighbours. The mean has the information of one image, and not of many: log p(N), and the width
  of a Laplace posterior, are those of one observed image.

When to use it: a constant colour channel of a region, estimated from K Bernoulli copies, is off by a little, which
increases the query's loss. With n pixels and a true intensity p the estimate has variance p(1 − p) / (nK); the query's
log likelihood has curvature n / (p(1 − p)); so the expected loss is

    ½ · n / (p(1 − p)) · p(1 − p) / (nK) = 1 / (2K)   nats per parameter,

whatever the size of the region: 4.5 nats for three regions of three channels at K = 1, 0.45 at K = 10, 0 for the mean.
"""

from torch import Tensor

from hierarchical_lvae.neighbourhoods.build import Neighbourhood, Surroundings

HELD_OUT = 5
"""Noisy copies that are held out where local posteriors are compared."""


class NoiseMean(Neighbourhood):
    """The mean of the noise that the decoder assumes around the image: K = 1, and nothing is drawn.

    >>> import torch
    >>> from pyro.distributions import Bernoulli
    >>> x = torch.full((2, 1, 8, 8), 0.2)
    >>> NoiseMean(Surroundings(1, data=None, around=Bernoulli, encode=None))(torch.arange(2), x).unique().tolist()
    [0.20000000298023224]

    Raises:
        ValueError: K is not 1.
    """

    of_data = False

    def __init__(self, surroundings: Surroundings) -> None:
        if surroundings.num_neighbours != 1:
            raise ValueError(
                f"K is {surroundings.num_neighbours}, and noise-mean has one neighbour, the mean: give K = 1, or noise"
            )
        self.surroundings = surroundings

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """The mean (B, 1, C, H, W) of the noise around x (B, C, H, W); the index is not used."""
        return self.surroundings.around(x).mean.unsqueeze(1)

    def held_out(self, index: Tensor, x: Tensor) -> Tensor:
        """Draws (B, K', C, H, W) of the noise whose mean is the neighbour."""
        return self.surroundings.around(x).sample((HELD_OUT,)).transpose(0, 1)
