"""The exact mode of the local posterior, for programs whose likelihood is linear in the local weights.

Let the natural parameters of the likelihood be linear in θ_N, as they are if only the last layer is local. Given the
codes, the local posterior is then that of a generalised linear model. Its negative logarithm is convex, so the mode is
unique:

    F(θ_N) = ℓ_N(θ_N) + ‖θ_N − θ‖² / (2τ²),        A = ∇²F = H + τ⁻² I

For a Bernoulli likelihood this is logistic regression of the pixels on the features, with a Normal prior around θ. H is
exactly the Gauss-Newton matrix of `curvature`. Newton's method works in units of τ, with u = (θ_N − θ)/τ, where

    ∇_u F = τ ∇ℓ_N + u,        ∇²_u F = τ² A = I + τ² H.

The network is evaluated only twice, at θ and at the mode: at any other θ_N, ℓ_N follows from its linear parameters
(`linear`). The evaluation at the mode serves the meta-gradient, and also checks that the likelihood is linear.

Conjugate gradients solve for each step. The eigenvalues lie between 1 and 1 + τ² λ_max(H), so each digit of accuracy
takes about √(1 + τ² λ_max(H)) products with H.

**The meta-gradient** needs no unrolled steps. At the mode ∇F(θ_N*, m) = 0 for all meta-parameters m, so by the implicit
function theorem

    dθ_N*/dm = −A⁻¹ ∂(∇F)/∂m,

which takes one more solve, however many steps led to the mode.

(Nocedal and Wright, 2006, "Numerical Optimization", ch. 7; Rajeswaran, Finn, Kakade, Levine, 2019, "Meta-Learning with
Implicit Gradients".)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.autograd import Function

from hierarchical_lvae.inference.linear import LinearLoss
from hierarchical_lvae.inference.sites import variance
from hierarchical_lvae.types import LocalLoss, LocalLossAt, random_state_kept

HALVINGS, SUFFICIENT, FORCING = 20, 1e-4, 0.1
"""Maximum number of halvings in a line search, its sufficient-decrease constant (Armijo), and the relative residual up
to which a Newton step is solved: a direction far from the mode need not be precise (inexact Newton)."""


@dataclass(frozen=True)
class ExactMAP:
    """The mode of p(θ_N | N, θ) given the codes, to a given precision; its derivatives are the implicit ones.

    For a program whose likelihood has natural parameters that are linear in its one local site, such as
    `LocalVAE(local_layers="head")`. The codes are drawn once and kept fixed.

    Args:
        tolerance: the largest ‖τ ∇F‖ at a mode, in nats^½, unless rounding errors are larger.
        max_steps: maximum number of Newton steps; they end when every neighbourhood has reached its mode.

    >>> from hierarchical_lvae.inference import LocalELBO
    >>> from hierarchical_lvae.models import LocalVAE
    >>> vae = LocalVAE(alpha=1.0, num_neighbours=2, image_shape=(1, 8, 8), latent_dim=3, local_layers="head")
    >>> LocalELBO(ExactMAP()).local_posterior(vae.model, vae.guide, torch.rand(5, 2, 1, 8, 8))["theta_N"].mean.shape
    torch.Size([5, 1, 1025])
    """

    tolerance: float = 1e-3
    max_steps: int = 100
    capturable = False

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"tolerance is {self.tolerance}: it must be positive")
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}: at least one step is needed")

    def __call__(self, local_loss: LocalLoss) -> dict[str, dist.Delta]:
        """Return Delta(θ_N*) for the local site: batch (B, 1), event (P,).

        Raises:
            ValueError: the program has no local site, or more than one, or is not linear in it.
            torch.linalg.LinAlgError: no mode was found within `max_steps`.
        """
        with random_state_kept():  # both evaluations of the program draw the same codes
            start = local_loss()
        site = _only_site(start)
        mean, tau = start.prior[site].mean, variance(start.prior[site]).sqrt()
        without_network = LinearLoss(start, site)
        u = self._mode(without_network, site, mean.detach(), tau.detach())
        if not local_loss.differentiable:
            mean, tau = mean.detach(), tau.detach()
        value = mean + tau * u
        if not value.requires_grad:
            value.requires_grad_()
        found = local_loss({site: value})  # only this call advances the random state
        predicted = without_network.check(found)
        slope = tau * _gradient(found, site, local_loss.differentiable) + u
        step = _Solve.apply(slope, partial(_solve, _precision(without_network.curvature(predicted), tau.detach())))
        return {site: dist.Delta(mean + tau * (u - step), event_dim=start.prior[site].event_dim)}

    def _mode(self, local_loss: LinearLoss, site: str, mean: Tensor, tau: Tensor) -> Tensor:
        """Newton's method from u = 0, with a line search, for all neighbourhoods at once: (B, 1, P).

        It ends at the tolerance, or where a step would lower F by less than the rounding error of F.
        """

        def at(u: Tensor) -> LocalLossAt:
            return local_loss({site: (mean + tau * u).requires_grad_()})

        u, before = torch.zeros_like(mean), torch.full_like(mean[..., :1], math.inf)
        here = at(u)
        for _ in range(self.max_steps):
            slope = tau * _gradient(here, site, differentiable=False) + u
            norm = slope.norm(dim=-1, keepdim=True)
            if not norm.isfinite().all() or (norm <= self.tolerance).all():  # the caller finds what is not finite
                return u
            direction = -_solve(_precision(local_loss.curvature(here), tau), slope, FORCING)
            descent = (slope * direction).sum(-1, keepdim=True)
            energy = _energy(here, u)
            at_rounding = (-descent <= _rounding(energy)) & (norm > before / 2)
            if ((norm <= self.tolerance) | at_rounding).all():
                return u
            before, length = norm, torch.ones_like(descent)
            here = at(u + direction)
            for _ in range(HALVINGS):
                highest = energy + SUFFICIENT * length * descent + _rounding(energy)
                enough = _energy(here, u + length * direction) <= highest
                if enough.all():
                    break
                length = torch.where(enough, length, length / 2)
                here = at(u + length * direction)
            u = u + length * direction
        raise torch.linalg.LinAlgError(
            f"no mode within {self.max_steps} Newton steps. ‖τ∇F‖ is {norm.max().item():.2g}, above the tolerance of "
            f"{self.tolerance:g}: give more `max_steps` or a larger `tolerance`"
        )


class _Solve(Function):
    """v ↦ A⁻¹ v with A symmetric and held fixed: its own adjoint."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return solve(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        with torch.enable_grad():
            return ctx.solve(gradients[0]), None


def _only_site(at: LocalLossAt) -> str:
    others = [name for name in at.values if name not in at.parameters]
    if len(at.parameters) != 1 or others:
        named = ", ".join(at.values) or "none"
        raise ValueError(
            f"ExactMAP needs exactly one local site, in the model, but the program has {named}: for the Local VAE give "
            "an `alpha` above 0 and `local_layers` head"
        )
    return next(iter(at.parameters))


def _gradient(at: LocalLossAt, site: str, differentiable: bool) -> Tensor:
    (slope,) = torch.autograd.grad(at.loss.sum(), [at.values[site]], create_graph=differentiable, retain_graph=True)
    return slope


def _energy(at: LocalLossAt, u: Tensor) -> Tensor:
    """F of each neighbourhood: (B, 1, 1), nats."""
    return at.loss.detach().view(-1, 1, 1) + u.square().sum(-1, keepdim=True) / 2


def _rounding(energy: Tensor) -> Tensor:
    """The rounding error of F, a sum of many terms; an increase within it does not count."""
    return 10 * torch.finfo(energy.dtype).eps * energy.abs()


def _precision(curvature: Callable[[Tensor], Tensor], tau: Tensor) -> Callable[[Tensor], Tensor]:
    """v ↦ (I + τ H τ) v."""
    return lambda v: tau * curvature(tau * v) + v


def _solve(product: Callable[[Tensor], Tensor], v: Tensor, reduction: float = 0.0) -> Tensor:
    """(I + τ H τ)⁻¹ v by conjugate gradients, for each neighbourhood: v (B, 1, P).

    Stops when each residual is at most `reduction` times its initial value, or ε^¾ times, for a machine precision of ε.
    """
    x, residual = torch.zeros_like(v), v.detach().clone()
    direction, square = residual, residual.square().sum(-1, keepdim=True)
    enough = square * max(reduction**2, torch.finfo(v.dtype).eps ** 1.5)
    for _ in range(v.shape[-1]):
        active = square > enough
        if not active.any():
            break
        image = product(direction)
        length = torch.where(active, square / (direction * image).sum(-1, keepdim=True), 0)
        x, residual = x + length * direction, residual - length * image
        new = residual.square().sum(-1, keepdim=True)
        direction = residual + torch.where(active, new / square, 0) * direction
        square = new
    return x + 0 * v  # NaN where v is not finite
