"""β-TCVAE: penalises dependence between the dimensions of the aggregate posterior (Chen et al., 2018).

    (β − 1) · KL( q(z) ‖ Π_j q(z_j) ),        q(z) ≈ 1/n Σ_i q(z | x_i, φ_N)

is added to the KL, which already has weight 1. The aggregate posterior is that of the batch: the mixture of its n
posteriors, evaluated at its n draws. Locatello et al. (2019) leave out the factors 1/n, which adds the constant
−(D − 1) log n and changes no gradient; with them, the total correlation of identical codes is 0.
"""

import math

from torch import Tensor
from torch.distributions import Normal

from hierarchical_lvae.types import Codes, Penalty


class TotalCorrelation(Penalty):
    """The total correlation of the aggregate posterior of a batch.

    Args:
        weight: β. 1 is the plain VAE; smaller values reward dependence.
    """

    def __init__(self, weight: float = 4.0) -> None:
        self.weight = weight

    def __call__(self, codes: Codes) -> Tensor:
        """(β − 1) times the total correlation: a scalar, in nats per image."""
        return (self.weight - 1) * total_correlation(codes)


def total_correlation(codes: Codes) -> Tensor:
    """Mean over the draws of log q(z) − Σ_j log q(z_j): a scalar, in nats.

    >>> import torch
    >>> mean = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])  # two points, far apart compared with σ
    >>> round(total_correlation(Codes(mean, torch.full((2, 2), 0.01), mean, torch.zeros(2))).exp().item(), 4)
    2.0
    """
    each = Normal(codes.mean, codes.scale).log_prob(codes.value.unsqueeze(1))  # (draw, point, D)
    joint, marginals = each.sum(-1).logsumexp(1), each.logsumexp(1).sum(-1)
    n, dimensions = codes.value.shape
    return (joint - marginals).mean() + (dimensions - 1) * math.log(n)
