"""The evidence of a neighbourhood, its local parameters integrated out; and α as what makes it largest.

Around any centre θ_c, with the slope s = ∇ℓ_N(θ_c) + (θ_c − θ)/τ² that it lacks to be a mode, and Λ = τ⁻² I + H,

    log p(N) ≈ −ℓ_N(θ_c) − ‖θ_c − θ‖² / (2τ²) + ½ sᵀ Λ⁻¹ s − ½ log det(τ² Λ),

exact if ℓ_N is quadratic. It weighs what the neighbourhood gains by weights of its own against what they cost: so it
chooses τ², and with it α, and looks at no label. Its stationary point in τ² is MacKay's (1992)

    τ² = Σ_N ‖m_N − θ‖² / Σ_N γ_N,        m_N = θ_c − Λ⁻¹ s,        γ_N = Σ_i (1 − (Λ⁻¹)_ii / τ²),

the mean square by which the *well-determined* local parameters differ from the meta-parameters: γ_N counts those.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hierarchical_lvae.inference.bound import PyroProgram
from hierarchical_lvae.inference.elbo import LocalELBO, SupportLoss
from hierarchical_lvae.inference.gaussians import Embedded, covariance_times, log_det_precision
from hierarchical_lvae.inference.laplace import Laplace, LowRank
from hierarchical_lvae.inference.sites import base


class Evidence(NamedTuple):
    """What Laplace's approximation says of each of B neighbourhoods."""

    log_evidence: Tensor
    """log p(N): (B,), nats."""
    effective_parameters: Tensor
    """γ_N, how many local parameters the neighbourhood determines: (B,)."""
    displacement: Tensor
    """‖m_N − θ‖² / τ²: (B,). At the best τ² its mean is that of γ_N."""


def reestimate(elbo: LocalELBO, model: PyroProgram, guide: PyroProgram, support: Any, rank: int = 50) -> float:
    """The factor by which MacKay's rule changes τ², and so α: halfway to its fixed point, and at most by two.

    The curvature is of low rank: its diagonal alone would not do, for a step by it overshoots where H is correlated.

    Args:
        elbo: how the centres are found.
        model, guide, support: as for `estimate_evidence`.
        rank: directions of the curvature that are kept.
    """
    centre = elbo.local.centre if isinstance(elbo.local, Laplace) else elbo.local
    probe = LocalELBO(Laplace(centre, LowRank(rank)), elbo.sites, elbo.beta, num_particles=elbo.num_particles)
    found = estimate_evidence(probe, model, guide, support)
    ratio = (found.displacement.sum() / found.effective_parameters.sum()).sqrt().item()
    return min(max(ratio, 0.5), 2.0) if math.isfinite(ratio) else 0.5


def estimate_evidence(elbo: LocalELBO, model: PyroProgram, guide: PyroProgram, support: Any) -> Evidence:
    """Estimate the evidence around the centre of `elbo.local`; of a point, with `Laplace`'s default structure.

    The quadratic must hold from the centre to the mode. A centre that overshot (`diagnose(…).sharpness` above 2) is no
    place to expand at: with a structure that is not the curvature's own, a point's diagonal say, the result can be any
    number, far above the truth too.

    With a `block`, only that is integrated out. Where there are codes, ℓ_N is a bound, so this estimates one too, and
    is as noisy as ℓ_N is by the draws of the codes. Nothing is differentiable.

    Args:
        elbo: whose `local` is a `Laplace`, or finds points.
        model, guide: the Pyro pair.
        support: their argument for the neighbourhoods, B of K points each.
    """
    laplace = elbo.local if isinstance(elbo.local, Laplace) else Laplace(elbo.local)
    with torch.enable_grad():
        posterior, at = laplace.expand(SupportLoss(elbo, model, guide, support, differentiable=False))
        slopes = torch.autograd.grad(at.loss.sum(), [at.values[name] for name in at.parameters])
    log_evidence = -at.loss
    effective, displacement = torch.zeros_like(at.loss), torch.zeros_like(at.loss)
    for name, slope in zip(at.parameters, slopes, strict=True):
        q, prior = posterior[name], base(at.prior[name])
        mean, tau2 = prior.mean, prior.variance
        if isinstance(q, Embedded):
            mean, tau2, slope = (t[..., q.positions] for t in (mean, tau2, slope))
            q = q.block
        moved = q.mean - mean
        lack = slope + moved / tau2
        step = covariance_times(q, lack)
        terms = (lack * step - moved.square() / tau2).sum(-1) - log_det_precision(q, tau2)
        log_evidence = log_evidence + 0.5 * terms.sum(-1)
        effective = effective + (1 - q.variance / tau2).sum((-2, -1))
        displacement = displacement + ((moved - step).square() / tau2).sum((-2, -1))
    return Evidence(log_evidence.detach(), effective.detach(), displacement.detach())
