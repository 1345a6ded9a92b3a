"""Laplace's approximation: a Gaussian around the point found by local inference, with covariance from the curvature.

    q(θ_N | N) = Normal(θ_c, Λ⁻¹),        Λ = τ⁻² I + H

θ_c is the centre, such as the paper's one-step estimate, H is the curvature of ℓ_N there (`curvature`), and τ⁻² is the
precision of the prior. This is the isotropic reading of `adaptation`, with the curvature that its step ignores put
back. It is only meaningful if the centre did not overshoot (see `diagnose`). φ_N is not a random variable of the model
and stays a point.

The curvature is detached: gradients flow only through the centre and through τ.

Two caveats. If the program has codes z, ℓ_N is a bound: the curvature is that of E_q(z)[−log p(x | z, θ_N)] with the
codes' posterior held fixed, not that of the evidence. And under the implied reading of the one step the posterior
covariance is exactly τ² I for any H; we do not offer this Gaussian, because its width does not depend on the data.

Source: MacKay (1992), "A Practical Bayesian Framework for Backpropagation Networks".
"""

from dataclasses import dataclass, field
from typing import Protocol

import pyro.distributions as dist
import torch
from torch import Tensor

from hierarchical_lvae.inference.adaptation import OneStepMAP
from hierarchical_lvae.inference.curvature import fisher_diagonal, ggn_blocks, ggn_factor, ggn_matrix
from hierarchical_lvae.inference.exact import ExactMAP
from hierarchical_lvae.inference.gaussians import BlockDiagonalNormal, Embedded, LowRankPrecisionNormal
from hierarchical_lvae.inference.sites import variance
from hierarchical_lvae.types import LocalInference, LocalLoss, LocalLossAt, check_object

LARGEST_MATRIX = 2_500


class Structure(Protocol):
    """How the curvature is approximated."""

    def __call__(
        self, at: LocalLossAt, site: str, positions: Tensor | None, mean: Tensor, precision: Tensor
    ) -> dist.TorchDistribution:
        """Return the Gaussian around `mean` (B, 1, p) of the parameters at `positions` (p,), or of all parameters.

        Args:
            at: ℓ_N at the centre.
            site: the name of the local site.
            positions: the positions of its random parameters in the flat vector; None is all of them.
            mean: the centre, (B, 1, p).
            precision: the precision of the prior, broadcastable to (B, 1, p).
        """
        ...


@dataclass(frozen=True)
class Diagonal:
    """The diagonal of H, estimated from samples of the likelihood: for networks of any size.

    Args:
        num_draws: the number of samples, at least 1; the relative error of an entry is about √(2 / num_draws).

    Raises:
        ValueError: `num_draws` is below 1.
    """

    num_draws: int = 4

    def __post_init__(self) -> None:
        if self.num_draws < 1:
            raise ValueError(f"num_draws is {self.num_draws}: it must be at least 1")

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
    """The curvature in its `rank` sharpest directions; the other directions keep the prior's precision.

    Args:
        rank: the number of directions, at least 1.

    Raises:
        ValueError: `rank` is below 1.
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
    """The full matrix H: for small programs, or for a block of a large one."""

    capturable = False

    def __call__(
        self, at: LocalLossAt, site: str, positions: Tensor | None, mean: Tensor, precision: Tensor
    ) -> dist.TorchDistribution:
        """Normal(mean, (τ⁻² I + H)⁻¹): batch (B, 1), event (p,).

        Raises:
            ValueError: there are more than 2,500 parameters.
        """
        size = mean.shape[-1]
        if size > LARGEST_MATRIX:
            raise ValueError(
                f"a dense matrix of {size:,} local parameters is too large (at most {LARGEST_MATRIX:,}): "
                "use Diagonal() or LowRank() as the structure, or a block of the parameters, such as block='last'"
            )
        matrix = ggn_matrix(at, site, positions) + torch.diag_embed(precision.expand_as(mean))
        return dist.MultivariateNormal(mean, precision_matrix=matrix)


@dataclass(frozen=True)
class ByChannel:
    """The full matrix H of a last layer, where weights of different output channels do not interact.

    An output channel c of such a layer depends only on its own weights `weight[:, c]` and its bias, and the likelihood
    factorises over channels. H therefore has one dense block per channel.
    """

    capturable = False

    def __call__(
        self, at: LocalLossAt, site: str, positions: Tensor | None, mean: Tensor, precision: Tensor
    ) -> dist.TorchDistribution:
        """Normal(mean, (τ⁻² I + H)⁻¹): batch (B, 1), event (p,).

        Raises:
            ValueError: the site has other weights than those of one last layer, or there is a `block`.
        """
        layout = at.parameters[site]
        if positions is not None:
            raise ValueError("ByChannel() is for all weights of a layer and takes no `block`: use Dense() for a block")
        if layout is None or len({name.rpartition(".")[0] for name in layout.shapes}) > 1:
            raise ValueError(
                "the curvature has a block per channel only if all local weights are those of the last layer: for the "
                "Local VAE give `local_layers` head, or choose another structure"
            )
        groups = torch.stack([layout.positions(*patterns) for patterns in layout.channels()]).to(mean.device)
        matrix = ggn_blocks(at, site, groups) + torch.diag_embed(precision.expand_as(mean)[..., groups])
        return BlockDiagonalNormal(dist.MultivariateNormal(mean[..., groups], precision_matrix=matrix), groups)


@dataclass(frozen=True)
class Laplace:
    """A Gaussian local posterior of θ_N around the point found by `centre`.

    Args:
        centre: finds the point: `OneStepMAP()`, or `MultiStepMAP(…)` for the mode.
        structure: how the curvature is approximated: `Diagonal()`, `LowRank()`, `Dense()` or `ByChannel()`.
        block: the random parameters, as one or several name patterns of the program's layout ("*.bias"; "last" is the
            last layer); the others stay fixed at the centre. None makes all parameters random.

    Raises:
        TypeError: `centre` or `structure` is a class or a name instead of an object, or is the other of the two.

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

    def __post_init__(self) -> None:
        check_object("centre", self.centre, 1, "a local inference object, such as OneStepMAP()")
        check_object("structure", self.structure, 5, "a structure of the curvature, such as Diagonal()")

    @property
    def capturable(self) -> bool:
        """Whether a step can be captured or compiled: neither centre nor structure reads values on the host."""
        return all(getattr(part, "capturable", True) for part in (self.centre, self.structure))

    def __call__(self, local_loss: LocalLoss) -> dict[str, dist.TorchDistribution]:
        """Return q(θ_N | N), Gaussian, and φ_N, a point: batch (B, 1), event (P,).

        Raises:
            ValueError: nothing is random (α = 0), the program states no layout for `block`, no parameter matches it,
                no observed site depends on θ_N, the structure does not support the likelihood, or a dense matrix would
                be too large.
        """
        return self.expand(local_loss)[0]

    def expand(self, local_loss: LocalLoss) -> tuple[dict[str, dist.TorchDistribution], LocalLossAt]:
        """Return the posterior, and ℓ_N at its (detached) centre. It raises the same errors as `__call__`."""
        posterior = dict(self.centre(local_loss))
        at = local_loss({name: q.mean.detach().requires_grad_() for name, q in posterior.items()})
        if not at.parameters:
            raise ValueError(
                "Laplace needs local parameters of the model with a prior variance, but there are none: α = 0 is the "
                "plain VAE, whose local inference is Shared(); and some layer of the decoder must be local"
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
                f"the program states no layout for the local site {site!r}, but block={self.block!r} needs one: "
                'pass infer={"layout": ParameterLayout(…)} to its pyro.sample, or use block=None'
            )
        return layout.positions(*[self.block] if isinstance(self.block, str) else self.block)


def laplace_low_rank(first_order: bool = False) -> Laplace:
    """Laplace around the one-step estimate, with the curvature in its 10 sharpest directions."""
    return Laplace(OneStepMAP(first_order), LowRank())


def laplace_last_layer(first_order: bool = False) -> Laplace:
    """Laplace around the one-step estimate, with the full matrix of the last layer; the other layers stay points."""
    return Laplace(OneStepMAP(first_order), Dense(), block="last")


def laplace_exact() -> Laplace:
    """Laplace around the exact mode of a local head, with the full matrix of each output channel."""
    return Laplace(ExactMAP(), ByChannel())


def laplace_diagonal(first_order: bool = False) -> Laplace:
    """Laplace around the one-step estimate, with the diagonal of the curvature."""
    return Laplace(OneStepMAP(first_order), Diagonal())
