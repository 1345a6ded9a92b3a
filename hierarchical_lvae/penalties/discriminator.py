"""A network that tells codes from permuted ones, and so knows their density ratio; with an optimizer of its own.

Trained to optimality, the logit of "not permuted" against "permuted" is log q(z) − Σ_j log q(z_j).

Six layers of 1000 with leaky ReLUs of slope 0.2, two logits; Glorot-uniform weights and zero biases; Adam with 1e-4,
0.5, 0.9: the study's. (It clips probabilities at 1e-6; ours are taken from the logits, which needs no clipping.)
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hierarchical_lvae.files import moments, named, restore_moments

DEPTH, WIDTH, SLOPE = 6, 1000, 0.2
LR, BETAS = 1e-4, (0.5, 0.9)


class Discriminator:
    """The log ratio log q(z) − Σ_j log q(z_j), learnt.

    Args:
        latent_dim: D.
        random: where the first weights are drawn from: the global random state stays as it is.
        device: of the codes.
    """

    def __init__(self, latent_dim: int, random: torch.Generator, device: str = "cpu") -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([latent_dim, *[WIDTH] * DEPTH, 2]):
            linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
            nn.init.xavier_uniform_(linear.weight, generator=random)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.LeakyReLU(SLOPE)]
        self.network = nn.Sequential(*layers[:-1]).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LR, betas=BETAS)

    def __call__(self, z: Tensor) -> Tensor:
        """The log ratio at codes (n, D), to be differentiated in z alone: (n,), in nats."""
        weights = {name: weight.detach() for name, weight in self.network.named_parameters()}
        logits = torch.func.functional_call(self.network, weights, (z,))
        return logits[:, 0] - logits[:, 1]

    def learn(self, z: Tensor, permuted: Tensor) -> None:
        """Take a step towards telling codes z (n, D) from permuted ones (n, D)."""
        labels = torch.arange(2, device=z.device).repeat_interleave(len(z))
        with torch.enable_grad():
            loss = F.cross_entropy(self.network(torch.cat([z, permuted])), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and moments by name."""
        weights = {f"network.{name}": weight for name, weight in self.network.state_dict().items()}
        return {**weights, **moments(self.optimizer)}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        self.network.load_state_dict(named(state_dict, "network."))
        restore_moments(self.optimizer, state_dict)
