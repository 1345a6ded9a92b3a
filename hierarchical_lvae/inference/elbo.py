"""Equations 3 to 6: the bound, with its local parameters given by a swappable `local` object.

The hierarchical model of a point x and its neighbourhood N,

    (3)   log p(x) = log ∫ p(x | z, θ_N) p(z) p(θ_N | θ) dz dθ_N,

is bounded with q(z | x, φ_N) and a local posterior q(θ_N | N) that inference on the neighbourhood provides:

    (4')  −log p(x) ≤ E_{q(θ_N | N)}[ L(θ_N, φ_N; x) ] + w KL(q(θ_N | N) ‖ p(θ_N | θ)),     w = 1,

where L is Equation 1 (`bound.negative_elbo`). If the local posterior is a point, its KL is dropped with the
integral, and what is left is the objective of the paper:

    (6)   L_g(θ_N, φ_N; x) = −E_{q(z | x, φ_N)} log p(x | z, θ_N) + β KL(q(z | x, φ_N) ‖ p(z)).

A penalty, if there is one, is added to the global loss alone, on the codes of all B queries: not to ℓ_N, so that the
local inference is the same with and without.

Two notes on the printed derivation. Its Equation 4 has no q(θ_N | N), though it integrates over θ_N; and the KL of
its Equation 5 compares densities over different spaces. φ_N is no random variable of the model: it is a variational
parameter, and stays a point. (6) with a point is an objective and no bound on (3): a point has an infinite KL.
"""

import logging
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import pyro.distributions as dist
import torch
from pyro.infer import ELBO
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from hierarchical_lvae.inference.bound import PyroProgram, negative_elbo, trace_pair
from hierarchical_lvae.inference.codes import codes_of
from hierarchical_lvae.inference.sites import LocalSites, base
from hierarchical_lvae.types import LocalInference, LocalLossAt, Penalty

log = logging.getLogger(__name__)


class LocalELBO(ELBO):
    """The negative evidence lower bound of queries, under local parameters inferred from their support sets.

    It is an ordinary Pyro ELBO, of two arguments: `svi.step(query, support)`. It knows the names of the local
    sites, and no network: any model and guide will do whose local sites are Normal around meta-parameters.
    A program takes one argument; one that needs more is given a tuple.

    Args:
        local: infers the local parameters, `OneStepMAP()` for the paper.
        sites: names of the local sites. One that the model has is a parameter of the model, θ_N; one that only the
            guide has is a variational parameter, φ_N. (A guide that has θ_N too must give it the model's mean.)
        beta: weight of the KL of the codes, in the inner and the outer loss alike.
        kl_weight: w, the weight of KL(q(θ_N | N) ‖ p(θ_N | θ)), where q is no point.
        num_particles: draws of the codes (and of θ_N) that the inner and the outer loss average.
        penalty: a further term of the outer loss, of a program with one latent site that is Normal, the codes; in nats
            an image, so that it counts once a query.

    >>> import pyro, torch
    >>> from hierarchical_lvae.inference import OneStepMAP
    >>> from hierarchical_lvae.models import LocalVAE
    >>> vae = LocalVAE(alpha=1.0, num_neighbours=2, image_shape=(1, 8, 8), latent_dim=3)
    >>> query, support = torch.rand(5, 1, 8, 8), torch.rand(5, 2, 1, 8, 8)
    >>> LocalELBO(OneStepMAP()).differentiable_loss(vae.model, vae.guide, query, support).shape
    torch.Size([])
    """

    def __init__(
        self,
        local: LocalInference,
        sites: Collection[str] = ("theta_N", "phi_N"),
        beta: float = 1.0,
        kl_weight: float = 1.0,
        num_particles: int = 1,
        penalty: Penalty | None = None,
    ) -> None:
        super().__init__(num_particles=num_particles)
        self.local = local
        self.sites = frozenset(sites)
        self.beta = beta
        self.kl_weight = kl_weight
        self.penalty = penalty
        self.last_penalty: Tensor | None = None
        """The value of the penalty when it was last evaluated, to be told: nats an image, detached."""

    def differentiable_loss(self, model: PyroProgram, guide: PyroProgram, query: Any, support: Any) -> Tensor:
        """(6) or (4'), in nats, summed over the B queries: a scalar to differentiate, once or twice.

        Args:
            model, guide: the Pyro pair.
            query: their argument for the points to be explained, B neighbourhoods of (for the paper) one point.
            support: their argument for the neighbourhoods, B of K points each.
        """
        posterior = self.local_posterior(model, guide, support)
        beta = 0.0 if self.penalty is not None and self.penalty.replaces_kl else self.beta
        losses = []
        for _ in range(self.num_particles):
            values = {name: q.rsample() for name, q in posterior.items()}
            at = negative_elbo(model, guide, query, self.sites, values, beta)
            losses.append(at.loss.sum())
            if self.penalty is not None:
                codes = codes_of(at.latent)
                penalty = self.penalty(codes)
                losses[-1] = losses[-1] + len(codes.value) * penalty
                self.last_penalty = penalty.detach()
        loss = torch.stack(losses).mean()
        for name, q in posterior.items():
            if not isinstance(base(q), dist.Delta):
                loss = loss + self.kl_weight * kl_divergence(q, at.prior[name]).sum()
        return loss

    def local_posterior(
        self, model: PyroProgram, guide: PyroProgram, support: Any
    ) -> dict[str, dist.TorchDistribution]:
        """Infer q(θ_N | N) and φ_N from the support set: by site, batch (B, 1), event (P,).

        Gradients are enabled inside, so that evaluation under `torch.no_grad` adapts too.
        """
        local_loss = SupportLoss(self, model, guide, support, differentiable=torch.is_grad_enabled())
        with torch.enable_grad():
            return self.local(local_loss)

    def loss(self, model: PyroProgram, guide: PyroProgram, query: Any, support: Any) -> float:
        """The loss as a float, without gradients to the meta-parameters."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, query, support).item()

    def loss_and_grads(self, model: PyroProgram, guide: PyroProgram, query: Any, support: Any) -> float:
        """The loss as a float, its gradients added to the meta-parameters': what `SVI.step` calls.

        A penalty that learns (or grows) takes its own step, too.
        """
        loss = self.differentiable_loss(model, guide, query, support)
        loss.backward()
        if self.penalty is not None:
            self.penalty.update()
        return loss.item()

    def _get_trace(self, model: PyroProgram, guide: PyroProgram, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
        """Pyro's hook: the traces of model and guide on the query, under local parameters from the support set."""
        query, support = args
        values = {name: q.rsample() for name, q in self.local_posterior(model, guide, support).items()}
        return trace_pair(model, guide, query, LocalSites(self.sites), values)


@cache
def _warn_of_other_size(given: int, stated: int) -> None:
    """Warn once per size: ℓ_N sums over the points, and τ does not depend on their number."""
    log.warning(
        "the program is made for K = %d neighbours and %d are given: its local step is %.3g times as long",
        stated, given, given / stated,
    )  # fmt: skip


class SupportLoss:
    """ℓ_N of the local values: the `LocalLoss` of a model, a guide and a support set."""

    def __init__(
        self, elbo: LocalELBO, model: PyroProgram, guide: PyroProgram, support: Any, differentiable: bool
    ) -> None:
        self.elbo, self.model, self.guide, self.support = elbo, model, guide, support
        self.differentiable = differentiable

    def __call__(self, values: Mapping[str, Tensor] | None = None) -> LocalLossAt:
        """Evaluate ℓ_N (B,), averaged over the particles, at `values` (B, 1, P) or the prior means."""
        elbo = self.elbo
        losses, observations = [], []
        for _ in range(elbo.num_particles):
            at = negative_elbo(self.model, self.guide, self.support, elbo.sites, values, elbo.beta)
            losses.append(at.loss)
            observations += [o._replace(weight=o.weight / elbo.num_particles) for o in at.observations]
            values = at.values
        points = [o.distribution.batch_shape[-1] for o in at.observations if len(o.distribution.batch_shape) > 1]
        if at.num_neighbours is not None and points and points[0] != at.num_neighbours:
            _warn_of_other_size(points[0], at.num_neighbours)
        return at._replace(loss=torch.stack(losses).mean(0), observations=tuple(observations))
