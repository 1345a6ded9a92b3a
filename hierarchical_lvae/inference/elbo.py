"""Equations 3 to 6: the bound, with local parameters inferred by an interchangeable `local` object.

The hierarchical model of a point x and its neighbourhood N,

    (3)   log p(x) = log ∫ p(x | z, θ_N) p(z) p(θ_N | θ) dz dθ_N,

is bounded using q(z | x, φ_N) and a local posterior q(θ_N | N) inferred from the neighbourhood:

    (4')  −log p(x) ≤ E_{q(θ_N | N)}[ L(θ_N, φ_N; x) ] + w KL(q(θ_N | N) ‖ p(θ_N | θ)),     w = 1,

where L is Equation 1 (`bound.negative_elbo`). If the local posterior is a point, the integral and the KL are dropped,
which leaves the objective of the paper (where β = 1):

    (6)   L_g(θ_N, φ_N; x) = −E_{q(z | x, φ_N)} log p(x | z, θ_N) + β KL(q(z | x, φ_N) ‖ p(z)).

A penalty is added only to the global loss, and is a function of the codes of all B queries. It is not added to ℓ_N, so
it does not change the local inference.

Two notes on the printed derivation. Its Equation 4 integrates over θ_N but has no q(θ_N | N), and the KL in its
Equation 5 is between densities over different spaces. φ_N is not a random variable of the model: it is a variational
parameter and stays a point. With a point, (6) is an objective but not a bound on (3): the KL of a point is infinite.
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
from hierarchical_lvae.types import LocalInference, LocalLossAt, Penalty, check_object

log = logging.getLogger(__name__)


class LocalELBO(ELBO):
    """The negative evidence lower bound of queries, under local parameters inferred from their support sets.

    This is an ordinary Pyro ELBO with two arguments: `svi.step(query, support)`. It depends only on the names of the
    local sites, not on the networks, and works for any model and guide whose local sites are Normal around
    meta-parameters. Model and guide take one argument each: a tuple if they need more.

    Args:
        local: infers the local parameters; `OneStepMAP()` is the paper's choice.
        sites: names of the local sites. A site in the model is a parameter of the model, θ_N; a site only in the guide
            is a variational parameter, φ_N. (If the guide has θ_N too, its mean there must equal the model's.)
        beta: weight of the KL of the codes, in both the inner and the outer loss.
        kl_weight: w, the weight of KL(q(θ_N | N) ‖ p(θ_N | θ)), if q is not a point.
        num_particles: number of draws of the codes (and of θ_N) to average over, in both the inner and the outer loss.
        penalty: an additional term of the outer loss, in nats per image, added once per query. It needs a program with
            exactly one latent site, the codes, with a Normal posterior.

    Raises:
        TypeError: `local` or `penalty` is a class or a name instead of an object, or `sites` is a string.

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
        check_object("local", local, 1, "a local inference object, such as OneStepMAP()")
        if penalty is not None:
            check_object("penalty", penalty, 1, "a penalty object, such as build_penalty('tc', latent_dim)")
        if isinstance(sites, str):
            raise TypeError(f"sites is {sites!r}: give a collection of names, such as ({sites!r},)")
        self.local = local
        self.sites = frozenset(sites)
        self.beta = beta
        self.kl_weight = kl_weight
        self.penalty = penalty
        self.last_penalty: Tensor | None = None
        """The value of the penalty at its last evaluation, for logging: nats per image, detached."""

    def differentiable_loss(self, model: PyroProgram, guide: PyroProgram, query: Any, support: Any) -> Tensor:
        """(6) or (4'), in nats, summed over the B queries: a scalar that can be differentiated twice.

        Args:
            model, guide: the Pyro programs.
            query: their argument for the points to evaluate, B neighbourhoods of one point each in the paper.
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

        Gradients are enabled internally, so adaptation also works under `torch.no_grad`.
        """
        local_loss = SupportLoss(self, model, guide, support, differentiable=torch.is_grad_enabled())
        with torch.enable_grad():
            return self.local(local_loss)

    def loss(self, model: PyroProgram, guide: PyroProgram, query: Any, support: Any) -> float:
        """Return the loss in nats as a float, without gradients to the meta-parameters."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, query, support).item()

    def loss_and_grads(self, model: PyroProgram, guide: PyroProgram, query: Any, support: Any) -> float:
        """Return the loss in nats as a float and accumulate its gradients in the meta-parameters; called by `SVI.step`.

        This also updates a penalty that has its own state.
        """
        loss = self.differentiable_loss(model, guide, query, support)
        loss.backward()
        if self.penalty is not None:
            self.penalty.update()
        return loss.item()

    def _get_trace(self, model: PyroProgram, guide: PyroProgram, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
        """Pyro's hook: traces of model and guide on the query, under local parameters from the support set."""
        query, support = args
        values = {name: q.rsample() for name, q in self.local_posterior(model, guide, support).items()}
        return trace_pair(model, guide, query, LocalSites(self.sites), values)


@cache
def _warn_of_other_size(given: int, stated: int) -> None:
    """Warn once per size: ℓ_N sums over the points, and τ does not depend on how many are given."""
    log.warning(
        "the program expects K = %d neighbours but got %d: its local step is %.3g times as long",
        stated, given, given / stated,
    )  # fmt: skip


class SupportLoss:
    """ℓ_N as a function of the local values: the `LocalLoss` of a model, a guide and a support set."""

    def __init__(
        self, elbo: LocalELBO, model: PyroProgram, guide: PyroProgram, support: Any, differentiable: bool
    ) -> None:
        self.elbo, self.model, self.guide, self.support = elbo, model, guide, support
        self.differentiable = differentiable

    def __call__(self, values: Mapping[str, Tensor] | None = None) -> LocalLossAt:
        """Evaluate ℓ_N (B,), in nats, averaged over the particles, at `values` (B, 1, P) or the prior means."""
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
