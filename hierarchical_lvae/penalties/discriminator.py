"""A network that estimates a density ratio by distinguishing codes from permuted codes; it has its own optimizer.

When trained to optimality, the logit of "not permuted" minus that of "permuted" is log q(z) − Σ_j log q(z_j).

The settings are those of Locatello et al. (2019): six layers of 1000 units with leaky ReLUs of slope 0.2, two logits;
Glorot-uniform weights and zero biases; Adam with learning rate 1e-4 and β = (0.5, 0.9). (They clip probabilities at
1e-6; we compute with logits, which need no clipping.)
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
    """A learned estimate of the log ratio log q(z) − Σ_j log q(z_j).

    Args:
        latent_dim: D, the size of a code.
        random: the generator for the initial weights; the global random state is not used.
        device: the device of the codes.
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
        """The log ratio at codes (n, D), differentiable only with respect to z: (n,), in nats."""
        weights = {name: weight.detach() for name, weight in self.network.named_parameters()}
        logits = torch.func.functional_call(self.network, weights, (z,))
        return logits[:, 0] - logits[:, 1]

    def learn(self, z: Tensor, permuted: Tensor) -> None:
        """Take one optimizer step on the classification of codes z (n, D) against permuted codes (n, D)."""
        labels = torch.arange(2, device=z.device).repeat_interleave(len(z))
        with torch.enable_grad():
            loss = F.cross_entropy(self.network(torch.cat([z, permuted])), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights and the optimizer's moments, by name."""
        weights = {f"network.{name}": weight for name, weight in self.network.state_dict().items()}
        return {**weights, **moments(self.optimizer)}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(named(state_dict, "network."))
        restore_moments(self.optimizer, state_dict)
