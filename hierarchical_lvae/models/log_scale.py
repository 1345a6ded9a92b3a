"""A Normal that keeps log σ, as an encoder puts it out: for σ itself can be too small for its logarithm's derivatives.

What φ says of σ *before* the local step matters only through the step, and nothing in it keeps σ from shrinking: a fit
of images came to 1e-22. There log(exp(log σ)), differentiated twice, has 1/σ², which overflows in single precision.
"""

from typing import Any

import pyro.distributions as dist
from torch import Size, Tensor


class LogScaleNormal(dist.Normal):
    """Normal(loc, exp(log_scale)), whose KL by `inference.bound.analytic_kl` has log σ without a detour over σ.

    Args:
        loc, log_scale: of one shape, that of the batch.

    >>> import torch
    >>> q = LogScaleNormal(torch.zeros(3), torch.full((3,), -60.0))
    >>> q.expand((2, 3)).log_scale[0]
    tensor([-60., -60., -60.])
    """

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.log_scale = log_scale
        super().__init__(loc, log_scale.exp())

    def expand(self, batch_shape: Size, _instance: Any = None) -> "LogScaleNormal":
        """The same over a larger batch."""
        return LogScaleNormal(self.loc.expand(batch_shape), self.log_scale.expand(batch_shape))
