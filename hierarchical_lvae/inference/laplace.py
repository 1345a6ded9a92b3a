"""Laplace's approximation: a Gaussian around the point that local inference has found, as wide as the curvature allows.

    q(θ_N | N) = Normal(θ_c, Λ⁻¹),        Λ = τ⁻² I + H

θ_c is the centre, such as the paper's one-step estimate, H the curvature of ℓ_N there (`curvature`), and τ⁻² that of
the prior. This is the isotropic reading of `adaptation`, with what its step ignores put back. φ_N is no random variable
of the model, and stays a point.

The curvature is detached: gradients flow through the centre and through τ.
Two things to know. Where the program has codes z, ℓ_N is a bound: its curvature is that of E_q(z)[−log p(x | z, θ_N)],
with the codes' posterior held still, and not that of the evidence. And the implied reading of the one step has a
posterior covariance of exactly τ² I, whatever H: a Gaussian that does not know the data, so it is not offered.

(MacKay, 1992, "A Practical Bayesian Framework for Backpropagation Networks".)
"""

from dataclasses import dataclass, field
from typing import Protocol

import pyro.distributions as dist
import torch
from torch import Tensor

from hierarchical_lvae.inference.adaptation import OneStepMAP
from hierarchical_lvae.inference.curvature import fisher_diagonal, ggn_factor, ggn_matrix
from hierarchical_lvae.inference.gaussians import Embedded, LowRankPrecisionNormal
from hierarchical_lvae.inference.sites import variance
from hierarchical_lvae.types import LocalInference, LocalLoss, LocalLossAt

LARGEST_MATRIX = 2_500


class Structure(Protocol):
    """How much of the curvature is kept."""

    def __call__(
        self, at: LocalLossAt, site: str, positions: Tensor | None, mean: Tensor, precision: Tensor
    ) -> dist.TorchDistribution:
        """The Gaussian around `mean` (B, 1, p) of the parameters at `positions` (p,), or of all of them.

        Args:
            at: ℓ_N at the centre.
            site: the local site.
            positions: which of its parameters, or None.
            mean: the centre.
            precision: that of the prior, broadcastable to (B, 1, p).
        """
        ...


@dataclass(frozen=True)
class Diagonal:
    """Entry by entry, estimated by draws from the likelihood: for networks of any size.

    Args:
        num_draws: how many; the relative error of an entry is about √(2 / num_draws).
    """

    num_draws: int = 4

    def __post_init__(self) -> None:
        if self.num_draws < 1:
            raise ValueError(f"num_draws is {self.num_draws}: at least one draw is needed")

    def __call__(
        self, at: LocalLossAt, site: str, positions: Tensor | None, mean: Tensor, precision: Tensor
    ) -> dist.TorchDistribution:
        """Normal(mean, (τ⁻² + diag H)^−½): batch (B, 1), event (p,)."""
        diagonal = fisher_diagonal(at, site, self.num_draws)
        if positions is not None:
            diagonal = diagonal[..., positions]
        return dist.Normal(mean, (precision + diagonal).rsqrt()).to_event(1)


@dataclass(frozen=True)
class LowRank:
    """The `rank` sharpest directions, and the prior in all others.

    Args:
        rank: how many.
    """

    rank: int = 10
    capturable = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}: it must be at least 1")

    def __call__(
        self, at: LocalLossAt, site: str, positions: Tensor | None, mean: Tensor, precision: Tensor
    ) -> dist.TorchDistribution:
        """Normal(mean, (τ⁻² I + W Wᵀ)⁻¹): batch (B, 1), event (p,)."""
        return LowRankPrecisionNormal(mean, precision, ggn_factor(at, site, self.rank, positions))


@dataclass(frozen=True)
class Dense:
    """The whole matrix: for small programs, or for a block of a large one."""

    capturable = False

    def __call__(
        self, at: LocalLossAt, site: str, positions: Tensor | None, mean: Tensor, precision: Tensor
    ) -> dist.TorchDistribution:
        """Normal(mean, (τ⁻² I + H)⁻¹): batch (B, 1), event (p,).

        Raises:
            ValueError: there are too many parameters for a matrix.
        """
        size = mean.shape[-1]
        if size > LARGEST_MATRIX:
            raise ValueError(
                f"a dense matrix of {size:,} local parameters is too large (up to {LARGEST_MATRIX:,} will do): "
                "take Diagonal() or LowRank() as the structure, or a block of the parameters, such as block='last'"
            )
        matrix = ggn_matrix(at, site, positions) + torch.diag_embed(precision.expand_as(mean))
        return dist.MultivariateNormal(mean, precision_matrix=matrix)


@dataclass(frozen=True)
class Laplace:
    """A Gaussian local posterior of θ_N, around the point that `centre` finds.

    Args:
        centre: finds the point: `OneStepMAP()`, or `MultiStepMAP(…)` for the mode.
        structure: how much of the curvature is kept: `Diagonal()`, `LowRank()` or `Dense()`.
        block: names of the parameters that are random, a pattern of the program's layout ("*.bias"; "last" is the last
            layer) or several; the others stay points at the centre. All of them are random, when None.

    >>> from hierarchical_lvae.inference import LocalELBO
    >>> from hierarchical_lvae.models import LocalVAE
    >>> vae = LocalVAE(alpha=0.1, num_neighbours=2, image_shape=(1, 8, 8), latent_dim=3)
    >>> elbo = LocalELBO(Laplace(structure=Dense(), block="last"))
    >>> elbo.local_posterior(vae.model, vae.guide, torch.rand(5, 2, 1, 8, 8))["theta_N"].block.covariance_matrix.shape
    torch.Size([5, 1, 1025, 1025])
    """

    centre: LocalInference = field(default_factory=OneStepMAP)
    structure: Structure = field(default_factory=Diagonal)
    block: str | tuple[str, ...] | None = None

    @property
    def capturable(self) -> bool:
        """Whether neither the centre nor the structure looks at its numbers."""
        return all(getattr(part, "capturable", True) for part in (self.centre, self.structure))

    def __call__(self, local_loss: LocalLoss) -> dict[str, dist.TorchDistribution]:
        """Return q(θ_N | N), Gaussian, and φ_N, a point: batch (B, 1), event (P,).

        Raises:
            ValueError: nothing is random (α = 0), the program states no layout for `block`, no parameter matches it,
                or a matrix would be too large.
        """
        return self.expand(local_loss)[0]

    def expand(self, local_loss: LocalLoss) -> tuple[dict[str, dist.TorchDistribution], LocalLossAt]:
        """The posterior, with ℓ_N at its centre (detached). What `__call__` raises, it raises."""
        posterior = dict(self.centre(local_loss))
        at = local_loss({name: q.mean.detach().requires_grad_() for name, q in posterior.items()})
        if not at.parameters:
            raise ValueError(
                "Laplace needs local parameters with a prior variance, and there are none: α = 0 is the plain VAE, "
                "whose local inference is Shared()"
            )
        for name in at.parameters:
            mean = posterior[name].mean if name in posterior else at.prior[name].mean
            precision = variance(at.prior[name]).reciprocal()
            if self.block is None:
                posterior[name] = self.structure(at, name, None, mean, precision)
            else:
                positions = self._positions(at, name).to(mean.device)
                inside = precision if precision.shape[-1] == 1 else precision[..., positions]
                block = self.structure(at, name, positions, mean[..., positions], inside)
                posterior[name] = Embedded(block, mean, positions)
        return posterior, at

    def _positions(self, at: LocalLossAt, site: str) -> Tensor:
        assert self.block is not None
        layout = at.parameters[site]
        if layout is None:
            raise ValueError(
                f"the program states no layout for the local site {site!r}, so block={self.block!r} has no meaning: "
                'give pyro.sample infer={"layout": ParameterLayout(…)}, or take block=None'
            )
        return layout.positions(*[self.block] if isinstance(self.block, str) else self.block)


def laplace_low_rank(first_order: bool = False) -> Laplace:
    """Laplace around the one-step estimate, in its sharpest directions."""
    return Laplace(OneStepMAP(first_order), LowRank())


def laplace_last_layer(first_order: bool = False) -> Laplace:
    """Laplace around the one-step estimate, the whole matrix of the last layer; the other layers stay points."""
    return Laplace(OneStepMAP(first_order), Dense(), block="last")


def laplace_diagonal(first_order: bool = False) -> Laplace:
    """Laplace around the one-step estimate, entry by entry."""
    return Laplace(OneStepMAP(first_order), Diagonal())
