"""AnnealedVAE: the codes may hold so many nats and no more, a capacity that grows (Burgess et al., 2018).

    γ · | mean_i KL(q(z | x_i, φ_N) ‖ p(z)) − c |        c = c_max · min(step / 100,000, 1),   γ = 1000

in place of β KL. The 100,000 steps are the study's, a third of its fits. They do not depend on the length of ours, so
that a fit which is extended later is the same as one that was that long from the start. A fit of S < 100,000 steps
sees only the beginning and ends at c = c_max · S / 100,000: multiply the weight by 100,000 / S to end at the same c.
"""

import torch
from torch import Tensor

from hierarchical_lvae.types import Codes, Penalty

GAMMA, STEPS = 1000.0, 100_000


class Annealed(Penalty):
    """A growing capacity.

    Args:
        weight: c_max, in nats an image.

    >>> Annealed(50.0).capacity
    0.0
    """

    replaces_kl, kept = True, ("steps",)

    def __init__(self, weight: float = 25.0) -> None:
        self.weight = weight
        self.steps = torch.tensor(0)

    @property
    def capacity(self) -> float:
        """The nats c of the step to come."""
        return self.weight * min(self.steps.item() / STEPS, 1.0)

    def __call__(self, codes: Codes) -> Tensor:
        """γ times the distance of the mean KL from the capacity: a scalar, in nats an image."""
        return GAMMA * (codes.kl.mean() - self.capacity).abs()

    def update(self) -> None:
        """Let the capacity grow."""
        self.steps += 1
