"""Does the adaptation have an effect, and is it stable? Diagnostics to monitor while a Local VAE trains.

For a quadratic ℓ_N, a step of size τ² decreases the loss if τ² λ_max(H) < 2, and the implied prior of `adaptation`
exists if τ² λ_max(H) < 1, where H is the Hessian of ℓ_N with respect to the local parameters.
"""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hierarchical_lvae.inference.bound import PyroProgram
from hierarchical_lvae.inference.elbo import LocalELBO, SupportLoss
from hierarchical_lvae.inference.sites import variance
from hierarchical_lvae.types import LocalLossAt, random_state_kept


class AdaptationInfo(NamedTuple):
    """The effect of the local inference on each of B neighbourhoods."""

    loss_before: Tensor
    """ℓ_N at the meta-parameters: (B,), nats."""
    loss_after: Tensor
    """ℓ_N at the mean of the local posterior, with the same draws of the codes: (B,), nats."""
    distance: Tensor
    """‖θ_N − θ‖, over all local sites (φ_N included): (B,)."""
    sharpness: Tensor
    """τ² times the eigenvalue of H of largest magnitude, at the meta-parameters, by power iteration: (B,).

    H is the joint Hessian of all local sites (φ_N included), or of those that `diagnose` is given."""


def diagnose(
    elbo: LocalELBO,
    model: PyroProgram,
    guide: PyroProgram,
    support: Any,
    power_iterations: int = 10,
    sites: Collection[str] | None = None,
) -> AdaptationInfo:
    """Adapt to `support` and return the diagnostics. The random state is restored afterwards.

    With `sites`, the sharpness is that of one block of the Hessian: which part of the step overshoots?

    >>> from hierarchical_lvae.inference import OneStepMAP
    >>> from hierarchical_lvae.models import LocalVAE
    >>> vae, x_N = LocalVAE(alpha=1.0, num_neighbours=2, image_shape=(1, 8, 8)), torch.rand(4, 2, 1, 8, 8)
    >>> for sites in (["theta_N"], ["phi_N"]):  # the decoder's block, then the encoder's
    ...     info = diagnose(LocalELBO(OneStepMAP()), vae.model, vae.guide, x_N, sites=sites)

    Args:
        elbo: the bound, with the local inference to diagnose.
        model, guide: the Pyro programs.
        support: their argument for the neighbourhoods, B of K points each.
        power_iterations: iterations for the sharpness.
        sites: the local sites whose curvature is measured; all by default.

    Raises:
        ValueError: there is no such local site.
    """
    local_loss = SupportLoss(elbo, model, guide, support, differentiable=False)
    with torch.enable_grad():
        with random_state_kept():
            before = local_loss()
        with random_state_kept():
            posterior = elbo.local(local_loss)
        centre = {n: posterior[n].mean.detach() if n in posterior else v for n, v in before.values.items()}
        with random_state_kept():
            after = local_loss(centre)
        with random_state_kept():
            sharpness = _sharpness(before, power_iterations, before.values if sites is None else sites)
    moved = [(centre[n] - v.detach()).flatten(1) for n, v in before.values.items()]
    distance = torch.cat(moved, 1).norm(dim=1) if moved else torch.zeros_like(sharpness)
    return AdaptationInfo(before.loss.detach(), after.loss.detach(), distance, sharpness)


def _sharpness(at: LocalLossAt, iterations: int, sites: Collection[str]) -> Tensor:
    """The dominant eigenvalue of τ H τ, for all neighbourhoods at once: H is block-diagonal over them."""
    if unknown := [name for name in sites if name not in at.values]:
        raise ValueError(f"{unknown[0]!r} is not a local site: choose from {', '.join(at.values) or 'none'}")
    if not sites:
        return torch.zeros_like(at.loss)
    values = [at.values[name] for name in sites]
    tau = [variance(at.prior[name]).sqrt() for name in sites]
    slopes = torch.autograd.grad(at.loss.sum(), values, create_graph=True)

    def flat(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.flatten(1) for part in parts], 1)

    sizes = [value[0].numel() for value in values]
    u = torch.randn_like(flat(values))
    eigenvalue = torch.full_like(at.loss, math.nan)
    for _ in range(iterations):
        u = u / u.norm(dim=1, keepdim=True)
        parts = [t * part.view_as(v) for t, part, v in zip(tau, u.split(sizes, 1), values, strict=True)]
        products = torch.autograd.grad(slopes, values, parts, retain_graph=True)
        image = flat([t * product for t, product in zip(tau, products, strict=True)])
        eigenvalue = (u * image).sum(1)
        u = image
    return eigenvalue.detach()
