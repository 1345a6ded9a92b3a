"""AnnealedVAE: the KL of the codes is held at a target capacity that grows during training (Burgess et al., 2018).

    γ · | mean_i KL(q(z | x_i, φ_N) ‖ p(z)) − c |        c = c_max · min(step / 100,000, 1),   γ = 1000

replaces β KL. Locatello et al. (2019) use 100,000 steps, a third of their training. We use the same number whatever the
length of a fit, so a fit that is extended later equals one of that length from the start. A fit of S < 100,000 steps
ends at c = c_max · S / 100,000: multiply the weight by 100,000 / S to reach c_max.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hierarchical_lvae.types import Codes, Penalty

GAMMA, STEPS = 1000.0, 100_000


class Annealed(Penalty):
    """The AnnealedVAE term, with its growing capacity.

    Args:
        weight: c_max, in nats per image.
        device: the device of the codes.

    >>> Annealed(50.0).capacity()
    tensor(0.)
    """

    replaces_kl, kept = True, ("steps",)

    def __init__(self, weight: float = 25.0, device: str = "cpu") -> None:
        self.weight = weight
        self.steps = torch.zeros((), dtype=torch.int64, device=device)  # a CUDA graph reads it where it is

    def capacity(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The capacity c of the next step: a scalar, in nats per image."""
        return self.weight * (self.steps.to(dtype) / STEPS).clamp(max=1.0)

    def __call__(self, codes: Codes) -> Tensor:
        """γ times the distance of the mean KL from the capacity: a scalar, in nats per image."""
        return GAMMA * (codes.kl.mean() - self.capacity(codes.kl.dtype)).abs()

    def update(self) -> None:
        """Increase the capacity by one step."""
        self.steps += 1

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.steps.copy_(state_dict["steps"])
