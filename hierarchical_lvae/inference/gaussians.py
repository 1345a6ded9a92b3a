"""Gaussian local posteriors that Pyro lacks, and KL(q(θ_N | N) ‖ p(θ_N | θ)) in closed form for all Gaussians.

Curvature makes a posterior *precise* in a few of many directions: Λ = D + W Wᵀ with D the precision of the prior.
Pyro's `LowRankMultivariateNormal` cannot represent this: its *covariance* is D + W Wᵀ, so it is wide in a few
directions. Other posteriors that Pyro lacks: groups of weights that are independent of each other, with a dense
covariance within each; and one that is random in a few of the weights only, with the others fixed at a point, which has
no density over all weights.
"""

import math
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.kl import kl_divergence, register_kl

from hierarchical_lvae.inference.sites import base


class LowRankPrecisionNormal(dist.TorchDistribution):
    """Normal(loc, Λ⁻¹) with Λ = diag(d) + W Wᵀ, at a cost linear in P.

    With A = d^−½ W and the r × r factor L of L Lᵀ = I + Aᵀ A: Λ⁻¹ = d^−½ (I − V Vᵀ) d^−½ where V = A L⁻ᵀ.

    Args:
        loc: (..., P).
        precision_diag: d, (..., P), positive.
        factor: W, (..., P, r).

    >>> q = LowRankPrecisionNormal(torch.zeros(2), torch.ones(2), torch.tensor([[1.0], [0.0]]))
    >>> q.variance, q.covariance_times(torch.tensor([2.0, 2.0]))
    (tensor([0.5000, 1.0000]), tensor([1., 2.]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"loc": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, precision_diag: Tensor, factor: Tensor, validate_args: bool | None = None) -> None:
        self.loc = loc
        self.precision_diag = precision_diag.expand_as(loc)
        self.factor = factor
        scaled = factor / self.precision_diag.sqrt().unsqueeze(-1)
        self._root = torch.linalg.cholesky(scaled.mT @ scaled + torch.eye(factor.shape[-1]).to(factor))
        self._V = torch.linalg.solve_triangular(self._root, scaled.mT, upper=False).mT
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "LowRankPrecisionNormal":
        """Expand to a larger batch shape."""
        new = self._get_checked_instance(LowRankPrecisionNormal, _instance)
        shape = torch.Size(batch_shape) + self.event_shape
        new.loc, new.precision_diag = self.loc.expand(shape), self.precision_diag.expand(shape)
        new.factor, new._root, new._V = self.factor, self._root, self._V
        super(LowRankPrecisionNormal, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    @property
    def mean(self) -> Tensor:
        """(..., P)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The diagonal of Λ⁻¹: (..., P)."""
        return (1 - self._V.square().sum(-1)) / self.precision_diag

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  # as in torch
        """Draw loc + Λ⁻¹ (√d ε + W ε'), whose covariance is Λ⁻¹ Λ Λ⁻¹ = Λ⁻¹: (..., P)."""
        shape = self._extended_shape(sample_shape)
        along = torch.randn(*shape[:-1], self.factor.shape[-1], 1).to(self.loc)
        noise = self.precision_diag.sqrt() * torch.randn(shape).to(self.loc) + (self.factor @ along).squeeze(-1)
        return self.loc + self.covariance_times(noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density: (...)."""
        difference = value - self.loc
        along = (difference.unsqueeze(-2) @ self.factor).squeeze(-2)
        squares = (self.precision_diag * difference.square()).sum(-1) + along.square().sum(-1)
        log_det = self.log_det_precision(torch.ones_like(self.precision_diag))
        return 0.5 * (log_det - squares - self.event_shape[0] * math.log(2 * math.pi))

    def log_det_precision(self, scale: Tensor) -> Tensor:
        """log det(scale Λ) for a `scale` per dimension, broadcastable to (..., P): (...)."""
        return (scale * self.precision_diag).log().sum(-1) + 2 * self._root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def covariance_times(self, vector: Tensor) -> Tensor:
        """Λ⁻¹ v for v of shape (..., P)."""
        scaled = vector * self.precision_diag.rsqrt()
        along = scaled.unsqueeze(-2) @ self._V
        return (scaled - (along @ self._V.mT).squeeze(-2)) * self.precision_diag.rsqrt()


class BlockDiagonalNormal(dist.TorchDistribution):
    """A Normal whose covariance is block-diagonal: groups of parameters that are independent of each other.

    Args:
        blocks: the distribution of each of G groups of g parameters: batch (..., G), event (g,).
        positions: the positions of their parameters among all P = G·g: (G, g).

    >>> blocks = dist.MultivariateNormal(torch.tensor([[0.0, 2.0], [1.0, 3.0]]), torch.eye(2))
    >>> BlockDiagonalNormal(blocks, torch.tensor([[0, 2], [1, 3]])).mean
    tensor([0., 1., 2., 3.])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, blocks: dist.MultivariateNormal, positions: Tensor) -> None:
        self.blocks, self.positions = blocks, positions
        self._order = positions.flatten().argsort()
        super().__init__(blocks.batch_shape[:-1], torch.Size([positions.numel()]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(..., P)."""
        return self._join(self.blocks.mean)

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance: (..., P)."""
        return self._join(self.blocks.variance)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  # as in torch
        """Draw all groups: (..., P)."""
        return self._join(self.blocks.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density: (...)."""
        return self.blocks.log_prob(value[..., self.positions]).sum(-1)

    def log_det_precision(self, scale: Tensor) -> Tensor:
        """log det(scale Λ) for a `scale` per dimension, broadcastable to (..., P): (...)."""
        whole = scale.expand(*scale.shape[:-1], self.event_shape[0])
        return log_det_precision(self.blocks, whole[..., self.positions]).sum(-1)

    def covariance_times(self, vector: Tensor) -> Tensor:
        """Λ⁻¹ v for v of shape (..., P)."""
        return self._join(covariance_times(self.blocks, vector[..., self.positions]))

    def _join(self, groups: Tensor) -> Tensor:
        return groups.flatten(-2)[..., self._order]


class Embedded(dist.TorchDistribution):
    """A posterior over some of the local parameters; the others are fixed at a point.

    It has no density over all parameters: `log_prob` and the KL are those of the random ones.

    Args:
        block: the distribution of the parameters at `positions`: batch (...), event (p,).
        point: all parameters, (..., P); those at `positions` are ignored.
        positions: (p,).

    >>> block = dist.Normal(torch.ones(1), 0.1).to_event(1)
    >>> Embedded(block, torch.zeros(3), torch.tensor([1])).mean
    tensor([0., 1., 0.])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, block: dist.TorchDistribution, point: Tensor, positions: Tensor) -> None:
        self.block, self.point, self.positions = block, point, positions
        super().__init__(point.shape[:-1], point.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(..., P)."""
        return self._embed(self.block.mean)

    @property
    def variance(self) -> Tensor:
        """(..., P): 0 for the fixed parameters."""
        return torch.zeros_like(self.point).index_copy(-1, self.positions, self.block.variance)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  # as in torch
        """Draw the block and insert it into the point: (..., P)."""
        return self._embed(self.block.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of the block: (...)."""
        return self.block.log_prob(value[..., self.positions])

    def _embed(self, block: Tensor) -> Tensor:
        return self.point.expand(*block.shape[:-1], -1).index_copy(-1, self.positions, block)


def covariance_times(q: dist.TorchDistribution, vector: Tensor) -> Tensor:
    """Σ v for a Gaussian q with covariance Σ, and v of shape (..., P)."""
    match q:
        case LowRankPrecisionNormal() | BlockDiagonalNormal():
            return q.covariance_times(vector)
        case dist.MultivariateNormal():
            return (q.scale_tril @ (q.scale_tril.mT @ vector.unsqueeze(-1))).squeeze(-1)
    return q.variance * vector


def log_det_precision(q: dist.TorchDistribution, scale: Tensor) -> Tensor:
    """log det(scale Λ) for a Gaussian q with precision Λ and a `scale` per dimension, broadcastable to (..., P): (...).

    If the scale is the prior's variance τ², half of this is the log ratio of the prior's volume to that of q, in nats.
    (If P is large, computing log det Λ and P log τ² separately would lose all digits of single precision.)
    """
    match q:
        case LowRankPrecisionNormal() | BlockDiagonalNormal():
            return q.log_det_precision(scale)
        case dist.MultivariateNormal():
            return -2 * (q.scale_tril.diagonal(dim1=-2, dim2=-1) / scale.sqrt()).log().sum(-1)
    return -(q.variance / scale).log().sum(-1)


@register_kl(LowRankPrecisionNormal, torch.distributions.Independent)
@register_kl(BlockDiagonalNormal, torch.distributions.Independent)
@register_kl(torch.distributions.MultivariateNormal, torch.distributions.Independent)
def _kl_to_prior(q: dist.TorchDistribution, prior: dist.TorchDistribution) -> Tensor:
    """KL(q ‖ prior) from a Gaussian to a Gaussian with independent entries: (...), nats.

    ½ [ Σ_i (Σ_ii + (μ_i − θ_i)²) / τ² − P + log det(τ² Λ) ]

    Raises:
        NotImplementedError: the second distribution is not such a Gaussian (PyTorch finds this function by the type
            `Independent` alone).
    """
    if not isinstance(base(prior), dist.Normal) or prior.event_shape != q.event_shape:
        name = type(base(prior)).__name__
        raise NotImplementedError(f"no KL from {type(q).__name__} to {name} with event shape {prior.event_shape}")
    tau2 = base(prior).variance
    squares = q.variance + (q.mean - base(prior).mean).square()
    return 0.5 * ((squares / tau2 - 1).sum(-1) + log_det_precision(q, tau2))


@register_kl(Embedded, torch.distributions.Independent)
def _kl_of_the_block(q: Embedded, prior: dist.TorchDistribution) -> Tensor:
    normal = base(prior)
    mean, scale = (t[..., q.positions] for t in (normal.mean, normal.scale))
    return kl_divergence(q.block, dist.Normal(mean, scale).to_event(1))
