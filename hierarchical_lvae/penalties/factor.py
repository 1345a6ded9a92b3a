"""FactorVAE: the same total correlation as in β-TCVAE, estimated by a discriminator (Kim and Mnih, 2018).

    γ · KL( q(z) ‖ Π_j q(z_j) ) ≈ γ · mean_i log [ q(z_i) / Π_j q(z_ij) ]

The log ratio is the logit of a network that distinguishes codes from permuted codes, each of whose dimensions is
permuted independently over the batch. As in Locatello et al. (2019), both come from the same batch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hierarchical_lvae.penalties.discriminator import Discriminator
from hierarchical_lvae.types import Codes, Penalty


class Factor(Penalty):
    """The total correlation by a discriminator, which takes one step after each training step.

    Its random generator starts at the seed of the global one and leaves the global state unchanged.

    Args:
        weight: γ.
        latent_dim: D, the size of a code.
        device: the device of the codes.
    """

    def __init__(self, weight: float = 30.0, latent_dim: int = 10, device: str = "cpu") -> None:
        self.weight = weight
        self.random = torch.Generator().manual_seed(torch.initial_seed())
        self.discriminator = Discriminator(latent_dim, self.random, device)
        self.last: Tensor | None = None

    def __call__(self, codes: Codes) -> Tensor:
        """γ times the total correlation: a scalar, in nats per image. The discriminator gets no gradient."""
        if self.last is None or self.last.shape != codes.value.shape:
            self.last = torch.empty_like(codes.value, requires_grad=False)
        self.last.copy_(codes.value.detach())  # in place: a CUDA graph writes where it wrote when it was captured
        return self.weight * self.discriminator(codes.value).mean()

    def update(self) -> None:
        """Train the discriminator on the last codes."""
        if self.last is not None:
            self.discriminator.learn(self.last, permuted(self.last, self.random))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the discriminator, its optimizer and the random generator."""
        return {**self.discriminator.state_dict(), "random": self.random.get_state()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.random.set_state(state_dict["random"])
        self.discriminator.load_state_dict(state_dict)


def permuted(z: Tensor, random: torch.Generator) -> Tensor:
    """Permute each dimension of codes (n, D) independently over the batch: (n, D).

    >>> z = torch.arange(6.0).view(3, 2)
    >>> permuted(z, torch.Generator()).sort(0).values.equal(z)
    True
    """
    order = torch.rand(z.shape, generator=random).argsort(0)
    return z.gather(0, order.to(z.device))
