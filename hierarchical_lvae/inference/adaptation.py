"""Equations 7 and 8: local parameters by gradient steps on the neighbourhood, starting at the meta-parameters.

    θ_N = θ − τ² ∇_θ ℓ_N(θ, φ),        φ_N = φ − τ² ∇_φ ℓ_N(θ, φ)

ℓ_N is the negative ELBO in nats, summed over the K neighbours, and τ² is the variance of the prior
p(θ_N | θ) = Normal(θ, τ² I), read from the program. The paper takes a step of size α along the gradient of the loss
averaged over neighbours and (our inference) pixels, which is the same step for τ² = α / (K·C·H·W).

**The step size is a prior variance**, while the step is short: it is close to the mode of the local posterior
p(θ_N | N, θ) ∝ exp(−ℓ_N(θ_N)) p(θ_N | θ) if the sharpness τ² λ_max(H) is well below 1, where H is the Hessian of ℓ_N.
Above 2 the step overshoots. `diagnose` measures the sharpness. There are two readings:

- *isotropic*, the prior of the program: if ℓ_N is linearised at θ, the mode under Normal(θ, τ² I) is exactly the step.
  This ignores the curvature H; `MultiStepMAP` keeps descending to the mode of the local posterior itself.
- *implied*: for a quadratic ℓ_N the step is the exact mode under the prior Normal(θ, τ² (I − τ² H)⁻¹), which exists
  only for τ² λ_max(H) < 1. This prior depends on the data through H: it explains early stopping but defines no
  generative model.

The meta-gradient flows through the step (second order) unless `first_order` is set.
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
    """No adaptation (α = 0): θ_N = θ and φ_N = φ, the plain VAE. The support set is ignored."""

    def __call__(self, local_loss: LocalLoss) -> dict[str, dist.Delta]:
        """Leave every local site at its prior mean."""
        return {}


@dataclass(frozen=True)
class OneStepMAP:
    """The paper's local parameters: one gradient step of size τ², the site's prior variance.

    Args:
        first_order: treat the step as a constant when differentiating the bound (FOMAML). Takes about half the time.
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
    """Gradient descent on ℓ_N(θ_N) + ‖θ_N − θ‖² / (2τ²), whose minimum is the mode of the local posterior.

    With num_steps = 1 and step_size = τ² it equals `OneStepMAP`. It converges if step_size · (λ_max(H) + τ⁻²) < 2;
    with the default step_size = τ² that is a sharpness τ² λ_max(H) < 1. Each step draws new codes.

    Args:
        num_steps: the number of steps, at least 1.
        step_size: the step size along the gradient of the loss in nats; None is the site's τ².
        first_order: treat the steps as constants when differentiating the bound.

    Raises:
        ValueError: `num_steps` is below 1, or `step_size` is not positive.
    """

    num_steps: int = 5
    step_size: float | None = None
    first_order: bool = False

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}: it must be at least 1")
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
    """∇ℓ_N of all neighbourhoods at once. Each loss depends only on its own local values, so their sum suffices."""
    if not at.values:
        return {}
    slopes = torch.autograd.grad(at.loss.sum(), list(at.values.values()), create_graph=differentiable)
    return dict(zip(at.values, slopes, strict=True))


def _points(at: LocalLossAt, values: dict[str, Tensor], differentiable: bool) -> dict[str, dist.Delta]:
    return {
        n: dist.Delta(value if differentiable else value.detach(), event_dim=at.prior[n].event_dim)
        for n, value in values.items()
    }
