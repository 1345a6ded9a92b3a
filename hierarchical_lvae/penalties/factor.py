"""FactorVAE: the same total correlation as β-TCVAE's, as a discriminator sees it (Kim and Mnih, 2018).

    γ · KL( q(z) ‖ Π_j q(z_j) ) ≈ γ · mean_i log [ q(z_i) / Π_j q(z_ij) ]

where the log ratio is the logit of a network that tells codes from codes whose dimensions are permuted over the batch,
each by itself. As in the study, both are of one batch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hierarchical_lvae.penalties.discriminator import Discriminator
from hierarchical_lvae.types import Codes, Penalty


class Factor(Penalty):
    """The total correlation by a discriminator, which is trained a step after each step of the codes.

    It draws by a random state of its own, which begins at the seed of the global one and does not move that.

    Args:
        weight: γ.
        latent_dim: D.
        device: of the codes.
    """

    def __init__(self, weight: float = 30.0, latent_dim: int = 10, device: str = "cpu") -> None:
        self.weight = weight
        self.random = torch.Generator().manual_seed(torch.initial_seed())
        self.discriminator = Discriminator(latent_dim, self.random, device)
        self.last: Tensor | None = None

    def __call__(self, codes: Codes) -> Tensor:
        """γ times the total correlation, a scalar in nats an image; the discriminator gets no gradient."""
        self.last = codes.value.detach()
        return self.weight * self.discriminator(codes.value).mean()

    def update(self) -> None:
        """Train the discriminator on the last codes."""
        if self.last is not None:
            self.discriminator.learn(self.last, permuted(self.last, self.random))

    def state_dict(self) -> dict[str, Tensor]:
        """The discriminator, its optimizer, and the random state."""
        return {**self.discriminator.state_dict(), "random": self.random.get_state()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        self.random.set_state(state_dict["random"])
        self.discriminator.load_state_dict(state_dict)


def permuted(z: Tensor, random: torch.Generator) -> Tensor:
    """Permute each dimension of codes (n, D) over the batch by itself.

    >>> z = torch.arange(6.0).view(3, 2)
    >>> permuted(z, torch.Generator()).sort(0).values.equal(z)
    True
    """
    order = torch.rand(z.shape, generator=random).argsort(0)
    return z.gather(0, order.to(z.device))
