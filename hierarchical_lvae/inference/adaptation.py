"""Equations 7 and 8: local parameters by gradient steps on the neighbourhood, from the meta-parameters.

    θ_N = θ − τ² ∇_θ ℓ_N(θ, φ),        φ_N = φ − τ² ∇_φ ℓ_N(θ, φ)

ℓ_N sums the negative ELBO (in nats) over the K neighbours, and τ² is the variance of the prior
p(θ_N | θ) = Normal(θ, τ² I), read from the program. The paper steps by α along the gradient of the loss averaged over
neighbours and pixels, which is the same for τ² = α / (K·C·H·W).

**The step size is a prior variance.** In two readings the step estimates the mode of the local posterior
p(θ_N | N, θ) ∝ exp(−ℓ_N(θ_N)) p(θ_N | θ):

- *isotropic*, the program's own: linearise ℓ_N at θ, and the mode under Normal(θ, τ² I) is the step, exactly.
  What is ignored is the curvature H of ℓ_N; `MultiStepMAP` walks on, to the mode itself.
- *implied*: for a quadratic ℓ_N the step is the exact mode under the prior Normal(θ, τ² (I − τ² H)⁻¹), which exists
  while τ² λ_max(H) < 1. It depends on the data through H: an explanation of early stopping, not a program.

The meta-gradient flows through the step (second order), unless `first_order`.
(Finn, Abbeel, Levine, 2017, MAML; Grant et al., 2018, "Recasting Gradient-Based Meta-Learning as Hierarchical Bayes".)
"""

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor

from hierarchical_lvae.inference.sites import variance
from hierarchical_lvae.types import LocalLoss, LocalLossAt


@dataclass(frozen=True)
class Shared:
    """α = 0: no locality. θ_N = θ and φ_N = φ, the plain VAE; the support set is not looked at."""

    def __call__(self, local_loss: LocalLoss) -> dict[str, dist.Delta]:
        """Leave every local site at its prior mean."""
        return {}


@dataclass(frozen=True)
class OneStepMAP:
    """The paper's local parameters: one gradient step, whose size is the site's prior variance.

    Args:
        first_order: treat the step as a constant when differentiating the bound (FOMAML): about half the time.
    """

    first_order: bool = False

    def __call__(self, local_loss: LocalLoss) -> dict[str, dist.Delta]:
        """Return Delta(θ − τ² ∇ℓ_N(θ)) for each local site: batch (B, 1), event (P,)."""
        at = local_loss()
        slope = _gradient(at, local_loss.differentiable and not self.first_order)
        values = {n: torch.addcmul(v, variance(at.prior[n]), slope[n], value=-1) for n, v in at.values.items()}
        return _points(at, values, local_loss.differentiable)


@dataclass(frozen=True)
class MultiStepMAP:
    """Gradient descent on ℓ_N(θ_N) + ‖θ_N − θ‖² / (2τ²): the mode of the local posterior, pull of the prior included.

    With num_steps = 1 and step_size = τ² it is `OneStepMAP`; it converges for step_size · (λ_max(H) + τ⁻²) < 2.
    The codes are drawn afresh in each step.

    Args:
        num_steps: how many steps.
        step_size: along the gradient of the loss in nats; the site's τ² when None.
        first_order: treat the steps as constants when differentiating the bound.
    """

    num_steps: int = 5
    step_size: float | None = None
    first_order: bool = False

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}: at least one step is needed")
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"step_size is {self.step_size}: it must be positive")

    def __call__(self, local_loss: LocalLoss) -> dict[str, dist.Delta]:
        """Return Delta(θ_N) after `num_steps` for each local site: batch (B, 1), event (P,)."""
        start = local_loss()
        tau2 = {n: variance(prior) for n, prior in start.prior.items()}

        def step(at: LocalLossAt) -> dict[str, Tensor]:
            slope = _gradient(at, local_loss.differentiable and not self.first_order)
            pull = {n: (v - start.values[n]) / tau2[n] for n, v in at.values.items()}
            return {n: v - (self.step_size or tau2[n]) * (slope[n] + pull[n]) for n, v in at.values.items()}

        values = step(start)
        for _ in range(self.num_steps - 1):
            values = step(local_loss(values))
        return _points(start, values, local_loss.differentiable)


def _gradient(at: LocalLossAt, differentiable: bool) -> dict[str, Tensor]:
    """∇ℓ_N for all neighbourhoods at once: each loss depends on its own local values alone, so their sum will do."""
    if not at.values:
        return {}
    slopes = torch.autograd.grad(at.loss.sum(), list(at.values.values()), create_graph=differentiable)
    return dict(zip(at.values, slopes, strict=True))


def _points(at: LocalLossAt, values: dict[str, Tensor], differentiable: bool) -> dict[str, dist.Delta]:
    return {
        n: dist.Delta(value if differentiable else value.detach(), event_dim=at.prior[n].event_dim)
        for n, value in values.items()
    }
