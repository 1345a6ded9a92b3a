"""DIP-VAE: pushes the covariance C of the aggregate posterior towards the identity (Kumar et al., 2018).

    λ_od Σ_{i≠j} C_ij² + λ_d Σ_i (C_ii − 1)²

    I:    C = Cov_x[μ(x)]                   covariance of the means
    II:   C = Cov_x[μ(x)] + E_x[diag σ²(x)] covariance of the codes themselves

estimated over the batch. The covariance is normalised by n, not n − 1.
"""

import torch
from torch import Tensor

from hierarchical_lvae.types import Codes, Penalty


class DIP(Penalty):
    """The weighted squared distance of a covariance from the identity.

    Args:
        off_diagonal, diagonal: λ_od and λ_d.
        of_draws: use the covariance of the codes (II) instead of that of their means (I).
    """

    def __init__(self, off_diagonal: float, diagonal: float, of_draws: bool) -> None:
        self.off_diagonal, self.diagonal, self.of_draws = off_diagonal, diagonal, of_draws

    def __call__(self, codes: Codes) -> Tensor:
        """The penalty of a batch: a scalar, in nats per image."""
        centred = codes.mean - codes.mean.mean(0)
        covariance = centred.mT @ centred / len(centred)
        if self.of_draws:
            covariance = covariance + codes.scale.square().mean(0).diag()
        variances = covariance.diagonal()
        off_diagonal = (covariance - torch.diag(variances)).square().sum()
        return self.off_diagonal * off_diagonal + self.diagonal * (variances - 1).square().sum()


def dip_i(weight: float = 5.0) -> DIP:
    """DIP-VAE-I: λ_od is the weight, and λ_d is ten times the weight."""
    return DIP(weight, 10 * weight, of_draws=False)


def dip_ii(weight: float = 5.0) -> DIP:
    """DIP-VAE-II: λ_od and λ_d both equal the weight."""
    return DIP(weight, weight, of_draws=True)
