"""The evidence of a neighbourhood, with its local parameters integrated out, and the α that maximises it.

Around any centre θ_c, with Λ = τ⁻² I + H and the slope s = ∇ℓ_N(θ_c) + (θ_c − θ)/τ², which is zero at a mode,

    log p(N) ≈ −ℓ_N(θ_c) − ‖θ_c − θ‖² / (2τ²) + ½ sᵀ Λ⁻¹ s − ½ log det(τ² Λ),

with equality if ℓ_N is quadratic and H is its Hessian, not an approximation. The evidence trades the better fit of
local weights against their cost, so it can be used to choose τ², and with it α, without labels. Its stationary point in
τ² is given by MacKay (1992),

    τ² = Σ_N ‖m_N − θ‖² / Σ_N γ_N,        m_N = θ_c − Λ⁻¹ s,        γ_N = Σ_i (1 − (Λ⁻¹)_ii / τ²),

the mean squared displacement of the *well-determined* local parameters from the meta-parameters; γ_N is their number.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hierarchical_lvae.inference.bound import PyroProgram
from hierarchical_lvae.inference.elbo import LocalELBO, SupportLoss
from hierarchical_lvae.inference.gaussians import Embedded, covariance_times, log_det_precision
from hierarchical_lvae.inference.laplace import ByChannel, Dense, Laplace, LowRank
from hierarchical_lvae.inference.sites import base


class Evidence(NamedTuple):
    """Laplace estimates for each of B neighbourhoods."""

    log_evidence: Tensor
    """log p(N): (B,), nats."""
    effective_parameters: Tensor
    """γ_N, the number of local parameters that the neighbourhood determines: (B,)."""
    displacement: Tensor
    """‖m_N − θ‖² / τ²: (B,). At the optimal τ² its mean equals that of γ_N."""


def reestimate(elbo: LocalELBO, model: PyroProgram, guide: PyroProgram, support: Any, rank: int = 50) -> float:
    """Return the factor by which to multiply τ², and so α: MacKay's rule, damped and limited to [½, 2].

    The factor is the square root of MacKay's, that is, halfway to the fixed point in log τ². If the estimate is not
    finite, the factor is ½. The curvature is that of `elbo.local` if it is exact (`Dense`, `ByChannel`), and otherwise
    approximated at low rank; its diagonal is not enough, because a step scaled by the diagonal overshoots where H has
    strong correlations.

    Args:
        elbo: the bound, whose `local` finds the centres.
        model, guide, support: as for `estimate_evidence`.
        rank: number of directions of the curvature to keep, if it is approximated.
    """
    local = elbo.local if isinstance(elbo.local, Laplace) else Laplace(elbo.local)
    if local.block is not None or not isinstance(local.structure, Dense | ByChannel):
        local = Laplace(local.centre, LowRank(rank))
    probe = LocalELBO(local, elbo.sites, elbo.beta, num_particles=elbo.num_particles)
    try:
        found = estimate_evidence(probe, model, guide, support)
    except torch.linalg.LinAlgError:  # the curvature is not finite, or no mode was found
        return 0.5
    ratio = (found.displacement.sum() / found.effective_parameters.sum()).sqrt().item()
    return min(max(ratio, 0.5), 2.0) if math.isfinite(ratio) else 0.5


def estimate_evidence(elbo: LocalELBO, model: PyroProgram, guide: PyroProgram, support: Any) -> Evidence:
    """Estimate the evidence around the centre of `elbo.local`.

    The quadratic approximation must hold from the centre to the mode. Away from a mode, with a structure that only
    approximates the curvature, such as its diagonal, the result can be far too large even if the step did not overshoot
    (`diagnose(…).sharpness` below 2), and arbitrarily wrong if it did.

    With a `block`, only that block is integrated out. If the program has codes, ℓ_N is a bound; the result then
    estimates a bound, too, and inherits the noise of ℓ_N from the draws of the codes. The result is detached.

    Args:
        elbo: the bound. Its `local` is a `Laplace`, or returns points, which get `Laplace`'s default structure.
        model, guide: the Pyro programs.
        support: their argument for the neighbourhoods, B of K points each.

    Raises:
        ValueError: as for `Laplace`.
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
