"""Likelihoods p(x | z, θ_N) of an image given the decoder's output; pixels in [0, 1].

Each is a module with two methods. Calling it on the decoder's output returns the distribution of the pixels, batch
(..., C, H, W): one independent factor per pixel and channel. `around` returns the same noise with a given image as its
mean: the observation process from which the paper draws neighbours.
"""

import math
from functools import cache

import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from hierarchical_lvae.models.continuous_bernoulli import LogitContinuousBernoulli

ROUNDING = 1e-3
"""How far pixels may be outside [0, 1], as they can be after an interpolation."""


class Bernoulli(PyroModule):
    """The paper's likelihood: the output is logits; a grey pixel x counts as x ones and 1 − x zeros (cross-entropy)."""

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        """Bernoulli with these logits (..., C, H, W). Not validated, because pixels need not be 0 or 1."""
        return dist.Bernoulli(logits=output, validate_args=False)

    def around(self, x: Tensor) -> dist.TorchDistribution:
        """Each pixel is 1 with probability x (..., C, H, W), and 0 otherwise."""
        return dist.Bernoulli(probs=x)


class Gaussian(PyroModule):
    """The output is the mean. The scale σ, in pixel units, is one number, fixed or learned.

    Args:
        scale: σ, or its initial value if it is learned; positive.
        learned: whether log σ is a meta-parameter (shared by all neighbourhoods).

    Raises:
        ValueError: `scale` is not positive.
    """

    def __init__(self, scale: float = 0.1, learned: bool = False) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale is {scale}: it must be positive")
        log_scale = torch.tensor(scale).log()
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        """Normal(output, σ): batch (..., C, H, W)."""
        return dist.Normal(output, self.log_scale.exp())

    def around(self, x: Tensor) -> dist.TorchDistribution:
        """Normal(x, σ), batch (..., C, H, W): samples may lie outside [0, 1]."""
        return dist.Normal(x, self.log_scale.detach().exp())


class ContinuousBernoulli(PyroModule):
    """The Bernoulli cross-entropy, normalised to a density on [0, 1] (Loaiza-Ganem and Cunningham, 2019)."""

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        """Continuous Bernoulli with these logits (..., C, H, W); its mean is *not* their sigmoid."""
        return LogitContinuousBernoulli(output)

    def around(self, x: Tensor) -> dist.TorchDistribution:
        """Continuous Bernoulli with mean x (..., C, H, W), rounded to 256 levels; 0 and 1 are off by half a level."""
        levels = (x * 255).round().long()
        return LogitContinuousBernoulli(_continuous_bernoulli_logits(x.device, x.dtype)[levels])


def learned_gaussian() -> Gaussian:
    """Build a Gaussian with a learned scale."""
    return Gaussian(learned=True)


def check_pixels(name: str, images: Tensor) -> None:
    """Check that all pixels are in [0, 1]; this reads two numbers on the host.

    Raises:
        ValueError: they are not.
    """
    if not images.numel():
        return
    least, most = torch.stack([images.min(), images.max()]).tolist()
    if not (least >= -ROUNDING and most <= 1 + ROUNDING):  # nor is NaN
        is_finite = math.isfinite(least) and math.isfinite(most)
        remedy = f"rescale {name}" if is_finite else f"replace what is not finite in {name}"
        if least >= 0 and 1 < most <= 255:
            remedy = f"give {name} / 255"
        raise ValueError(f"{name} has pixels from {least:g} to {most:g}, but they must be in [0, 1]: {remedy}")


@cache
def _continuous_bernoulli_logits(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The logits of 256 means from 0 to 1, by bisection: the mean increases with the logit."""
    mean = torch.linspace(0, 1, 256, dtype=torch.float64).clamp(1 / 510, 1 - 1 / 510)
    low, high = torch.full_like(mean, -1e3), torch.full_like(mean, 1e3)
    for _ in range(60):
        middle = (low + high) / 2
        below = LogitContinuousBernoulli(middle).mean < mean
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return ((low + high) / 2).to(dtype).to(device)  # MPS has no float64
