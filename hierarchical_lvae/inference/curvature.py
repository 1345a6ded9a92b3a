"""The curvature H of ℓ_N in the local parameters: the generalised Gauss-Newton matrix, equal to the Fisher information.

    H = E_{q(z)} Σ_{k ∈ N} J_kᵀ F_k J_k

J_k is the Jacobian, with respect to θ_N, of the decoder's output for point k (means or logits), and F_k is the Fisher
information of the likelihood with respect to that output: diagonal, positive, and independent of the data. H is
therefore positive semi-definite, which the Hessian of ℓ_N need not be; grey pixels need no special case; and if the
output is linear in θ_N, H is the Hessian at the given codes. Each of the B neighbourhoods has its own matrix. All
results are detached: they carry no third derivatives.

| function | returns | passes through the network |
|---|---|---|
| `fisher_diagonal` | unbiased estimate of diag H | one backward pass (two passes) per draw |
| `ggn_product` | v ↦ H v | two to set up, then three per product |
| `ggn_matrix` | H, or a p × p block of it | two per output, or three per column |
| `ggn_blocks` | the blocks of a block-diagonal H | three per column of a block |
| `ggn_factor` | W with W Wᵀ ≈ H, of rank r | six per column, for r + 5 columns |

There are no Kronecker factors, because they need each layer's inputs and the gradients at its outputs. Inference has
no access to these: it sees ℓ_N as a function of one flat vector, for any program.

Sources: Schraudolph (2002) for the product; Kunstner, Balles, Hennig (2019) for the equality of the two matrices;
Tropp, Yurtsever, Udell, Cevher (2017), "Fixed-rank approximation of a positive-semidefinite matrix from streaming
data", for the factor.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from hierarchical_lvae.inference.sites import base
from hierarchical_lvae.types import LocalLossAt, Observation

OVERSAMPLING, SWEEPS = 5, 1
LinearMap = Callable[..., tuple[Tensor, ...]]


def fisher_diagonal(at: LocalLossAt, site: str, num_draws: int) -> Tensor:
    """Estimate diag H without bias from data sampled from the model itself: (B, 1, P).

    For y_k ~ p(y | z_k, θ_N), the score ∇ log p(y_k) has mean 0 and covariance J_kᵀ F_k J_k. Draws for different points
    are independent, so the cross terms in the square of the *summed* score vanish in expectation. One backward pass per
    draw is therefore enough; per-point gradients are not needed. The relative error of an entry is about
    √(2 / num_draws).
    """
    squares = [score.square() for score in _scores(at, site, num_draws)]
    return torch.stack(squares).mean(0)


def ggn_product(at: LocalLossAt, site: str) -> Callable[[Tensor], Tensor]:
    """Return the function v ↦ H v, for v of shape (B, 1, P)."""
    outputs, information = _outputs(at, site)
    push, pull = jacobian(outputs, at.values[site])

    def product(vector: Tensor) -> Tensor:
        return pull(*(f * pushed for f, pushed in zip(information, push(vector), strict=True)))[0]

    return product


def jacobian(outputs: Sequence[Tensor], value: Tensor) -> tuple[LinearMap, LinearMap]:
    """Return the functions v ↦ J v and its adjoint, w ↦ Jᵀ w, for J = ∂ outputs / ∂ value.

    J v is computed by differentiating Jᵀ w with respect to w (Jᵀ w is linear in w).
    """
    probes = [torch.zeros_like(output, requires_grad=True) for output in outputs]
    pulled = torch.autograd.grad(outputs, value, probes, create_graph=True)
    return (
        lambda v: torch.autograd.grad(pulled, probes, v, retain_graph=True),
        lambda *w: torch.autograd.grad(outputs, value, w, retain_graph=True),
    )


def ggn_matrix(at: LocalLossAt, site: str, positions: Tensor | None = None) -> Tensor:
    """Compute H, or its block at `positions` (p,): (B, 1, p, p).

    It is built from the rows of the Jacobian or, if there are more than 2·p outputs, column by column.
    """
    value = at.values[site]
    positions = torch.arange(value.shape[-1]).to(value.device) if positions is None else positions
    outputs, information = _outputs(at, site)
    if 2 * len(positions) < sum(output[0].numel() for output in outputs):
        product = ggn_product(at, site)
        units = torch.zeros(len(positions), value.shape[-1]).to(value)
        units[torch.arange(len(positions)), positions] = 1
        return torch.stack([product(unit.expand_as(value))[..., positions] for unit in units], -1)
    H = value.new_zeros(*value.shape[:-1], len(positions), len(positions))
    for output, weight in zip(outputs, information, strict=True):
        for entry, f in zip(output.flatten(1).unbind(1), weight.flatten(1).unbind(1), strict=True):
            row = torch.autograd.grad(entry.sum(), value, retain_graph=True)[0][..., positions]
            H += f.view(-1, 1, 1, 1) * row.unsqueeze(-1) * row.unsqueeze(-2)
    return H


def ggn_blocks(at: LocalLossAt, site: str, groups: Tensor) -> Tensor:
    """Compute the diagonal blocks of H of G groups of g parameters at once, at positions (G, g): (B, 1, G, g, g).

    A product with the i-th parameter of every group yields a column of every block, if the groups do not interact.

    Raises:
        ValueError: the groups interact, so that H is not block-diagonal.
    """
    value, product = at.values[site], ggn_product(at, site)
    for group in groups:
        outside = product(torch.zeros_like(value).index_fill_(-1, group, 1.0)).index_fill(-1, group, 0.0)
        if outside.abs().max() > 0:
            raise ValueError("these groups of parameters interact: their curvature is not block-diagonal; use Dense()")
    units = (torch.zeros_like(value).index_fill_(-1, column, 1.0) for column in groups.unbind(1))
    return torch.stack([product(unit)[..., groups] for unit in units], -1)


def ggn_factor(at: LocalLossAt, site: str, rank: int, positions: Tensor | None = None) -> Tensor:
    """Compute W of rank at most `rank` with W Wᵀ ≈ H: (B, 1, P, rank), or (B, 1, p, rank) at `positions` (p,).

    This is a randomised Nyström approximation. Random directions Ω are refined by one sweep of subspace iteration;
    with Y = H Ω, H ≈ Y (Ωᵀ Y)⁻¹ Yᵀ, truncated to its `rank` largest eigenvalues. H − W Wᵀ is positive semi-definite,
    and zero if H has at most that rank.
    """
    value = at.values[site]
    product = ggn_product(at, site)

    def products(rows: Tensor) -> Tensor:
        if positions is None:
            return torch.stack([product(v) for v in rows.unbind(-2)], -2)
        whole = (torch.zeros_like(value).index_copy(-1, positions, v) for v in rows.unbind(-2))
        return torch.stack([product(v)[..., positions] for v in whole], -2)

    size = value.shape[-1] if positions is None else len(positions)
    number = min(rank + OVERSAMPLING, size)
    directions = _orthonormal(torch.randn(*value.shape[:-1], number, size).to(value))
    for _ in range(SWEEPS):
        directions = _orthonormal(products(directions))
    image = products(directions)
    image = _scaled_rows(directions @ image.mT, image, size)
    _, V = torch.linalg.eigh(image @ image.mT)
    return (V.mT @ image)[..., -rank:, :].mT.detach()


def _scaled_rows(inner: Tensor, image: Tensor, size: int) -> Tensor:
    """S^−½ Y with S = Ωᵀ Y; directions in which S is numerically singular are set to zero."""
    eigenvalues, V = torch.linalg.eigh((inner + inner.mT) / 2)
    floor = torch.finfo(inner.dtype).eps * size**0.5 * eigenvalues[..., -1:].clamp(min=0)
    scale = torch.where(eigenvalues > floor, eigenvalues, math.inf).rsqrt()
    return (V * scale.unsqueeze(-2)).mT @ image


def _orthonormal(rows: Tensor) -> Tensor:
    """An orthonormal basis of the span of a few rows, (..., r, P), from their Gram matrix; twice, for accuracy."""
    for _ in range(2):
        eigenvalues, V = torch.linalg.eigh(rows @ rows.mT)
        floor = torch.finfo(rows.dtype).eps * eigenvalues[..., -1:] + torch.finfo(rows.dtype).tiny
        rows = (V * eigenvalues.clamp(min=floor).rsqrt().unsqueeze(-2)).mT @ rows
    return rows


def _scores(at: LocalLossAt, site: str, num_draws: int) -> Iterator[Tensor]:
    """Gradients of −log p of data sampled from the model, summed over the points: (B, 1, P) each."""
    for _ in range(num_draws):
        # a factor of weight w has w times the Fisher information, so its score is scaled by √w
        loss = sum((-o.distribution.log_prob(o.distribution.sample()) * o.weight**0.5).sum() for o in at.observations)
        yield torch.autograd.grad(loss, at.values[site], retain_graph=True)[0]


def _outputs(at: LocalLossAt, site: str) -> tuple[list[Tensor], list[Tensor]]:
    """The likelihood's parameters that depend on the site, and the Fisher information in each: (B, …) each."""
    outputs, information = [], []
    for observation in at.observations:
        dim = len(observation.distribution.batch_shape) - 2
        for output, fisher in weighted_parameters(observation):
            if depends_on(output, at.values[site]):
                outputs.append(output.movedim(dim, 0))
                information.append(fisher.movedim(dim, 0))
    if not outputs:
        raise unused(site)
    return outputs, information


def depends_on(output: Tensor, value: Tensor) -> bool:
    """Whether a tensor is a function of another one, judged by their graph."""
    if not output.requires_grad:
        return False
    return torch.autograd.grad(output.sum(), value, retain_graph=True, allow_unused=True)[0] is not None


def unused(site: str) -> ValueError:
    """The error of a local site that does not affect the likelihood."""
    return ValueError(
        f"no observed site depends on the local site {site!r}, so ℓ_N has no curvature in it: use it in the model, "
        "or choose a local inference without curvature, such as OneStepMAP()"
    )


def weighted_parameters(observation: Observation) -> list[tuple[Tensor, Tensor]]:
    """The parameters of one factor of ℓ_N, and the Fisher information in each, with the weight of the factor."""
    batch, weight = len(observation.distribution.batch_shape), torch.as_tensor(observation.weight)
    return [
        (output, (fisher * weight.to(output).reshape(weight.shape + (1,) * (output.dim() - batch))).detach())
        for output, fisher in likelihood_parameters(base(observation.distribution))
    ]


def likelihood_parameters(factors: dist.TorchDistribution) -> list[tuple[Tensor, Tensor]]:
    """Return the parameters of independent factors, with the Fisher information of each.

    Raises:
        ValueError: it is not implemented for this likelihood.
    """
    match factors:
        case dist.Normal():
            return [(factors.loc, factors.scale**-2), (factors.scale, 2 * factors.scale**-2)]
        case dist.Bernoulli() | dist.ContinuousBernoulli():
            return [(factors.logits, factors.variance)]
    raise ValueError(
        f"exact curvature is implemented for Normal, Bernoulli and ContinuousBernoulli likelihoods, not for "
        f"{type(factors).__name__}: use Diagonal(), which only needs samples from the likelihood"
    )


def with_parameters(factors: dist.TorchDistribution, parameters: Sequence[Tensor]) -> dist.TorchDistribution:
    """Return factors of the same family with other parameters, in the order of `likelihood_parameters`."""
    if isinstance(factors, dist.Normal):
        return dist.Normal(*parameters, validate_args=False)
    return type(factors)(logits=parameters[0], validate_args=False)
