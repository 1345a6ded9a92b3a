"""ℓ_N from a single pass through the network, for programs whose likelihood is linear in the local weights.

Let the parameters η of the likelihood (means or logits) be affine in θ_N, with Jacobian J, and let no other term of ℓ_N
depend on θ_N. Then one evaluation determines all others:

    η(θ_N + v) = η(θ_N) + J v,
    ℓ_N(θ_N + v) = ℓ_N(θ_N) + Σ_k w_k [log p(x_k | η_k(θ_N)) − log p(x_k | η_k(θ_N + v))].

J v and its adjoint Jᵀ w pass only through the layers that follow θ_N. If these are the last one, the encoder and most
of the decoder are computed only once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hierarchical_lvae.inference.curvature import (
    LinearMap,
    depends_on,
    jacobian,
    likelihood_parameters,
    unused,
    weighted_parameters,
    with_parameters,
)
from hierarchical_lvae.inference.sites import base
from hierarchical_lvae.types import LocalLossAt, Observation


class LinearLoss:
    """ℓ_N as a function of one local site, for fixed meta-parameters and codes: a `LocalLoss` without the network.

    Derivatives with respect to the site can be taken twice. If the program is not linear in the site, the results are
    wrong: `check` compares one of them with an evaluation of the program.

    Args:
        at: ℓ_N where it was evaluated.
        site: the name of the local site.

    Raises:
        ValueError: the likelihood does not depend on the site, or is not one of `likelihood_parameters`.

    >>> import torch
    >>> from hierarchical_lvae.inference.bound import negative_elbo
    >>> from hierarchical_lvae.models import LocalLinearRegression
    >>> program = LocalLinearRegression(torch.zeros(3), tau=1.0, sigma=1.0)
    >>> data, values = (torch.randn(5, 4, 3), torch.randn(5, 4)), {"theta_N": torch.randn(5, 1, 3)}
    >>> here = negative_elbo(program.model, program.guide, data, {"theta_N"})
    >>> there = negative_elbo(program.model, program.guide, data, {"theta_N"}, values)
    >>> torch.allclose(LinearLoss(here, "theta_N")(values).loss, there.loss)
    True
    """

    differentiable = False

    def __init__(self, at: LocalLossAt, site: str) -> None:
        self.at, self.site, self.origin = at, site, at.values[site].detach()
        parameters = [[p for p, _ in weighted_parameters(o)] for o in at.observations]
        self.depends = [[depends_on(p, at.values[site]) for p in of_one] for of_one in parameters]
        self.parameters = [[p.detach() for p in of_one] for of_one in parameters]
        outputs = [p for p, _ in self._moving(at)]
        if not outputs:
            raise unused(site)
        self.push, self.pull = jacobian(outputs, at.values[site])
        self.rest = (at.loss - _loss(at.observations)).detach()
        """The terms of ℓ_N that do not depend on the site: (B,)."""

    def __call__(self, values: Mapping[str, Tensor] | None = None) -> LocalLossAt:
        """Evaluate ℓ_N at the value of the site, (B, 1, P), or else at the origin."""
        value = self.origin.clone().requires_grad_() if values is None else values[self.site]
        changes = iter(_Linear.apply(self.push, self.pull, value - self.origin))
        observations = []
        for observation, parameters, depends in zip(self.at.observations, self.parameters, self.depends, strict=True):
            moved = [p + next(changes) if d else p for p, d in zip(parameters, depends, strict=True)]
            factors = with_parameters(base(observation.distribution), moved)
            event_dim = len(factors.batch_shape) - len(observation.distribution.batch_shape)
            observations.append(observation._replace(distribution=factors.to_event(event_dim)))
        loss = self.rest + _loss(observations)
        return self.at._replace(loss=loss, values={self.site: value}, observations=tuple(observations))

    def curvature(self, at: LocalLossAt) -> Callable[[Tensor], Tensor]:
        """Return the function v ↦ H v at one of its evaluations, for v of shape (B, 1, P); H is the Hessian of ℓ_N."""
        information = [fisher for _, fisher in self._moving(at)]
        return lambda v: self.pull(*(f * pushed for f, pushed in zip(information, self.push(v), strict=True)))[0]

    def check(self, found: LocalLossAt) -> LocalLossAt:
        """Evaluate ℓ_N where the program did, and check that the two agree.

        Raises:
            ValueError: the parameters of the likelihood are not linear in the site, or other terms depend on it.
        """
        predicted = self({self.site: found.values[self.site].detach()})
        for origin, expected, observed in zip(*map(_parameters, (self.at, predicted, found)), strict=True):
            if (error := _deviation(origin, expected, observed)) > 0:
                raise ValueError(
                    "ExactMAP needs a likelihood that is linear in the local weights, but this one deviates from a "
                    f"line by {error:.2g}: for the Local VAE give `local_layers` head"
                )
        if (error := _deviation(self.at.loss, predicted.loss, found.loss)) > 0:
            raise ValueError(
                "ExactMAP needs local weights on which only the likelihood depends, but other terms of the loss "
                f"change by {error:.2g} nats: choose another local inference, such as MultiStepMAP(…)"
            )
        return predicted

    def _moving(self, at: LocalLossAt) -> list[tuple[Tensor, Tensor]]:
        """The parameters that depend on the site, with the Fisher information in each."""
        pairs = zip(at.observations, self.depends, strict=True)
        return [pair for o, ds in pairs for pair, d in zip(weighted_parameters(o), ds, strict=True) if d]


class _Linear(Function):
    """A linear map that is given together with its adjoint: each is the other's derivative."""

    @staticmethod
    def forward(ctx: Any, linear: LinearMap, adjoint: LinearMap, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.maps = adjoint, linear
        return linear(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return None, None, *_Linear.apply(*ctx.maps, *gradients)


def _parameters(at: LocalLossAt) -> list[Tensor]:
    return [p for o in at.observations for p, _ in likelihood_parameters(base(o.distribution))]


def _deviation(origin: Tensor, expected: Tensor, observed: Tensor) -> float:
    """The largest deviation, or 0 if rounding errors explain it or a number is not finite."""
    error = (observed - expected).detach().abs().max().item()
    scale = max(1.0, *(v.detach().abs().max().item() for v in (origin, observed)))
    return error if error > 1e3 * torch.finfo(observed.dtype).eps * scale else 0.0


def _loss(observations: Sequence[Observation]) -> Tensor:
    """The negative log likelihood of each neighbourhood: (B,), in nats."""
    terms = (-o.weight * o.distribution.log_prob(o.value) for o in observations)
    return sum(term.movedim(-2, 0).flatten(1).sum(1) for term in terms)
