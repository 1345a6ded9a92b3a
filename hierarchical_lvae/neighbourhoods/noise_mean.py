r"""The limit of many noisy copies: one neighbour, the mean of the observation noise around the image.

`noise` draws K copies x_k of an image from noise with mean x. At given codes and weights, the log likelihood of a
Bernoulli or a Gaussian is linear in the observed image, up to a term that does not depend on the parameters. As K → ∞
the average over the copies is therefore the log likelihood of their mean,

    1/K Σ_k log p(x_k | z, θ_N)  →  E log p(x_k | z, θ_N) = log p(E x_k | z, θ_N) + constant,

and one point without noise can replace the copies. Consequences:

- *Exact*: the reconstruction term of the loss averaged over neighbours, and its gradient with respect to θ_N, at given
  codes. (With a learned Gaussian scale, this term includes the variance of the copies, which the mean lacks: σ is then
  underestimated.)
- *Not exact*: the codes. The encoder sees a clean image instead of noisy ones, and q(z | x_k, φ_N) is not linear in
  x_k; this affects the KL of the codes and the gradient with respect to φ_N.
- *τ, evidence and Laplace count K points, and here K = 1*: τ² = α / (C·H·W), so α is still the step size on the loss
  averaged over neighbours. The mean carries the information of one image, not of many: log p(N) and the width of a
  Laplace posterior are those of one observed image.

When to use it: an estimate of a constant colour channel of a region from K Bernoulli copies has a small error, which
increases the query's loss. For n pixels of true intensity p, the estimate has variance p(1 − p) / (nK), and the query's
negative log likelihood has curvature n / (p(1 − p)), so the expected increase is

    ½ · n / (p(1 − p)) · p(1 − p) / (nK) = 1 / (2K)   nats per parameter,

for a region of any size: 4.5 nats for three regions of three channels at K = 1, 0.45 at K = 10, 0 for the mean.
"""

from torch import Tensor

from hierarchical_lvae.neighbourhoods.build import Neighbourhood, Surroundings

HELD_OUT = 5
"""The number of noisy copies held out to compare local posteriors."""


class NoiseMean(Neighbourhood):
    """The mean of the decoder's noise model around the image: K = 1, without random draws.

    >>> import torch
    >>> from pyro.distributions import Bernoulli
    >>> x = torch.full((2, 1, 8, 8), 0.2)
    >>> NoiseMean(Surroundings(1, data=None, around=Bernoulli, encode=None))(torch.arange(2), x).unique().tolist()
    [0.20000000298023224]

    Raises:
        ValueError: K is not 1.
    """

    of_data = False
    capturable = True

    def __init__(self, surroundings: Surroundings) -> None:
        if surroundings.num_neighbours != 1:
            raise ValueError(
                f"K is {surroundings.num_neighbours}, but noise-mean has one neighbour, the mean: give K = 1, or noise"
            )
        self.surroundings = surroundings

    def __call__(self, index: Tensor, x: Tensor) -> Tensor:
        """The mean (B, 1, C, H, W) of the noise around x (B, C, H, W); the index is not used."""
        return self.surroundings.around(x).mean.unsqueeze(1)

    def held_out(self, index: Tensor, x: Tensor) -> Tensor:
        """Draws (B, K', C, H, W) from the noise whose mean is the neighbour."""
        return self.surroundings.around(x).sample((HELD_OUT,)).transpose(0, 1)
