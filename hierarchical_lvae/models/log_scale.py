"""A Normal that stores log σ as the encoder outputs it, because σ can be too small to differentiate its logarithm.

The σ that the encoder predicts *before* the local step matters only through the step, and nothing keeps it from
shrinking: in one fit it reached 1e-22. The second derivative of log(exp(log σ)) then contains 1/σ², which overflows in
single precision.
"""

from typing import Any

import pyro.distributions as dist
from torch import Size, Tensor


class LogScaleNormal(dist.Normal):
    """Normal(loc, exp(log_scale)) whose KL, by `inference.bound.analytic_kl`, uses log σ directly.

    Args:
        loc, log_scale: of the same shape, which is the batch shape.

    >>> import torch
    >>> q = LogScaleNormal(torch.zeros(3), torch.full((3,), -60.0))
    >>> q.expand((2, 3)).log_scale[0]
    tensor([-60., -60., -60.])
    """

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.log_scale = log_scale
        super().__init__(loc, log_scale.exp())

    def expand(self, batch_shape: Size, _instance: Any = None) -> "LogScaleNormal":
        """Expand to a larger batch shape."""
        return LogScaleNormal(self.loc.expand(batch_shape), self.log_scale.expand(batch_shape))
