"""Likelihoods p(x | z, θ_N) of an image, given what the decoder puts out for it; pixels in [0, 1].

Each is a module with two methods: called on the decoder's output it is the distribution of the pixels, and `around`
is the same noise with a given image as its mean: the observation process that the paper's neighbours are drawn from.
"""

from functools import cache
from typing import Protocol

import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from hierarchical_lvae.models.continuous_bernoulli import LogitContinuousBernoulli


class Likelihood(Protocol):
    """The noise of an image, one factor a pixel."""

    def __call__(self, output: Tensor) -> dist.TorchDistribution:
        """The distribution of the pixels, from the decoder's output: batch (..., C, H, W)."""
        ...

    def around(self, x: Tensor) -> dist.TorchDistribution:
        """The same noise with mean x, an image with pixels in [0, 1]: batch (..., C, H, W)."""
        ...


class Bernoulli(PyroModule):
    """The paper's: the output is logits, and a grey pixel x counts as x ones and 1 − x zeros (cross-entropy)."""

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        """Bernoulli of these logits (..., C, H, W). Not validated, for data need not be 0 or 1."""
        return dist.Bernoulli(logits=output, validate_args=False)

    def around(self, x: Tensor) -> dist.TorchDistribution:
        """Each pixel is 1 with probability x (..., C, H, W), else 0."""
        return dist.Bernoulli(probs=x)


class Gaussian(PyroModule):
    """The output is the mean. The scale σ, in units of pixels, is one number: fixed, or learnt with the rest.

    Args:
        scale: σ, where it starts if it is learnt.
        learned: whether log σ is a meta-parameter (shared by all neighbourhoods).
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
        """Normal(x, σ), batch (..., C, H, W): neighbours can leave [0, 1]."""
        return dist.Normal(x, self.log_scale.detach().exp())


class ContinuousBernoulli(PyroModule):
    """The Bernoulli's cross-entropy, normalised to a density on [0, 1] (Loaiza-Ganem and Cunningham, 2019)."""

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        """Continuous Bernoulli of these logits (..., C, H, W); its mean is *not* their sigmoid."""
        return LogitContinuousBernoulli(output)

    def around(self, x: Tensor) -> dist.TorchDistribution:
        """Continuous Bernoulli of mean x (..., C, H, W), to the nearest of 256 levels; 0 and 1 are half a level off."""
        levels = (x * 255).round().long()
        return LogitContinuousBernoulli(_continuous_bernoulli_logits(x.device, x.dtype)[levels])


def learned_gaussian() -> Gaussian:
    """Gaussian whose scale is learnt."""
    return Gaussian(learned=True)


@cache
def _continuous_bernoulli_logits(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The logits of 256 means from 0 to 1: the mean rises with the logit, and is inverted by bisection."""
    mean = torch.linspace(0, 1, 256, dtype=torch.float64).clamp(1 / 510, 1 - 1 / 510)
    low, high = torch.full_like(mean, -1e3), torch.full_like(mean, 1e3)
    for _ in range(60):
        middle = (low + high) / 2
        below = LogitContinuousBernoulli(middle).mean < mean
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return ((low + high) / 2).to(device, dtype)
