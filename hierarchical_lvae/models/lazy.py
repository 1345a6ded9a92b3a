"""Weights and gradients of G neighbourhoods, stored as sums of products; values are computed only when needed.

The gradient of a layer's weights is a product of its inputs x and the gradients y at its outputs. For a dense layer
and neighbourhood g it is a matrix of rank at most K, the number of points:

    W̄_g = Σ_k y_gk x_gkᵀ                        K·(O + I) numbers instead of O·I

A local step subtracts it from weights W that all neighbourhoods share, and the layer can apply the factors directly:

    (W − τ² W̄_g) q = W q − τ² Σ_k y_gk ⟨x_gk, q⟩

The last backward pass needs the gradient with respect to W itself, the sum over G. It is one product over all K·G
points:

    Σ_g W̄_g = Yᵀ X                              X (K·G, I) and Y (K·G, O), all points stacked

A convolution is such a product, too, of rank at most K times the number of positions in its smaller map (`forms`). If
the factors hold more numbers than the weights, as for large maps, the local weights are computed explicitly.

A `Lazy` tensor holds such sums. It passes through autograd, and through Pyro as the value of a site, like any other
tensor; operations that need its values compute them. Transforms of `torch.func` do not work with our layers.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, reduce
from math import prod
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils._pytree import tree_map_only

from hierarchical_lvae.layout import ParameterLayout

aten = torch.ops.aten
Number: TypeAlias = Tensor | float
READS_MEMORY = {
    *(Tensor.numpy, Tensor.tolist, Tensor.data_ptr, Tensor.storage, Tensor.untyped_storage, Tensor.share_memory_),
    *(Tensor.__repr__, Tensor.__array__, Tensor.__dlpack__, Tensor.__deepcopy__, Tensor.__reduce_ex__),
}


def is_shared(weight: Tensor) -> bool:
    """Whether all neighbourhoods share the weights (G, …), judged by the strides."""
    return len(weight) == 1 or weight.stride(0) == 0


class Product:
    """Σ_k y xᵀ for each neighbourhood.

    Args:
        weight: the function that computes it: x, y ↦ (G, *shape).
        x, y: the factors, (K, G, …).
    """

    def __init__(self, weight: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> None:
        self.weight, self.x, self.y = weight, x.detach(), y.detach()

    @property
    def rank(self) -> int:
        """Upper bound on the rank of the matrix: points times positions of the smaller map."""
        return min(v.numel() // prod(v.shape[1:3]) for v in (self.x, self.y))

    @cached_property
    def each(self) -> Tensor:
        """The values: (G, *shape)."""
        return self.weight(self.x, self.y)

    def total(self) -> Tensor:
        """The sum over G, computed as the product of one neighbourhood of K·G points: (*shape)."""
        if "each" in vars(self):
            return self.each.sum(0)
        return self.weight(*(v.flatten(0, 1).unsqueeze(1) for v in (self.x, self.y)))[0]


class Sum(NamedTuple):
    """One parameter of each neighbourhood: a sum of tensors (G, *shape) and of products, each with a scale."""

    shape: tuple[int, ...]
    tensors: tuple[Tensor, ...] = ()
    products: tuple[tuple[Number | None, Product], ...] = ()

    def each(self) -> Tensor:
        """The values: (G, *shape)."""
        return reduce(torch.add, [*self.tensors, *(_scaled(p.each, scale) for scale, p in self.products)])

    def total(self) -> Tensor:
        """The sum over G: (*shape)."""
        totals = [_scaled(p.total(), scale) for scale, p in self.products]
        return reduce(torch.add, [*(t.sum(0) for t in self.tensors), *totals])

    def plus(self, other: "Sum") -> "Sum":
        """The sum of the two."""
        return Sum(self.shape, self.tensors + other.tensors, self.products + other.products)

    def times(self, scale: Number) -> "Sum":
        """The product with a number."""
        products = tuple((scale if s is None else s * scale, p) for s, p in self.products)
        return Sum(self.shape, tuple(t * scale for t in self.tensors), products)


def _scaled(x: Tensor, scale: Number | None) -> Tensor:
    return x if scale is None else x * scale


class Lazy(Tensor):
    """A tensor (*leading, *shape) of one parameter, or (*leading, P) of several, stored as sums instead of values.

    Adding it to a tensor, multiplying it by a number and summing it over all leading dimensions need no values. Any
    other operation computes its values once; from then on it behaves like any other tensor. (In-place changes do not
    propagate to results of `detach` and `expand`.)

    Args:
        leading: (G,), or (B, 1) with G = B.
        sums: the parameters.
        flat: whether the parameters form one flat vector.

    >>> x, y = torch.ones(1, 3, 4), torch.ones(1, 3, 2)  # one point in each of three neighbourhoods
    >>> outer = Product(lambda x, y: torch.einsum("kgi,kgo->goi", x, y), x, y)
    >>> gradient = Lazy((3,), [Sum((2, 4), products=((None, outer),))])
    >>> gradient.shape, type(gradient * 2 + gradient).__name__, (gradient * 2).sum(0)[0]
    (torch.Size([3, 2, 4]), 'Lazy', tensor([6., 6., 6., 6.]))
    """

    @staticmethod
    def __new__(cls: type, leading: Sequence[int], sums: Sequence[Sum], flat: bool = False) -> "Lazy":
        """Create a tensor without storage."""
        like = [*sums[0].tensors, *(p.y for _, p in sums[0].products)][0]
        shape = (sum(prod(s.shape) for s in sums),) if flat else sums[0].shape
        return Tensor._make_wrapper_subclass(cls, (*leading, *shape), dtype=like.dtype, device=like.device)

    def __init__(self, leading: Sequence[int], sums: Sequence[Sum], flat: bool = False) -> None:
        self.leading, self.sums, self.flat = tuple(leading), list(sums), flat
        self.made: Tensor | None = None
        """The values, once they have been computed."""

    def each(self) -> Tensor:
        """The values, in any memory layout."""
        if self.made is None:
            parts = [s.each() for s in self.sums]
            whole = torch.cat([p.flatten(1) for p in parts], 1) if self.flat else parts[0]
            self.made = whole.view(self.shape)
        return self.made

    def low_rank(self) -> Sum | None:
        """The first sum, if its matrices are shared and its products have no more numbers than a matrix; else None."""
        W = self.sums[0]
        rows, columns = W.shape[0], prod(W.shape[1:])
        rank = sum(p.rank for _, p in W.products)
        small = all(map(is_shared, W.tensors)) and rank * (rows + columns) <= rows * columns
        return W if small and self.made is None else None

    def dense(self) -> Tensor:
        """The same as an ordinary tensor, contiguous in memory as its strides declare."""
        return self.each().contiguous()

    def plus(self, other: Tensor) -> "Lazy":
        """The sum with a tensor of the same shape."""
        return self._like(a.plus(b) for a, b in zip(self.sums, self._parts(other), strict=True))

    def times(self, scale: Number) -> "Lazy":
        """The product with a number."""
        number = scale.reshape(()) if isinstance(scale, Tensor) else scale
        return self._like(s.times(number) for s in self.sums)

    def total(self) -> Tensor:
        """The sum over the leading dimensions."""
        totals = [s.total() for s in self.sums]
        return torch.cat([t.flatten() for t in totals]) if self.flat else totals[0]

    def _like(self, sums: Iterable[Sum]) -> "Lazy":
        return Lazy(self.leading, list(sums), self.flat)

    def _parts(self, x: Tensor) -> list[Sum]:
        """A tensor of the same shape, split into the same parameters."""
        if isinstance(x, Lazy):
            return x.sums
        flat = x.reshape(prod(self.leading), -1)
        parts = flat.split([prod(s.shape) for s in self.sums], 1)
        return [Sum(s.shape, (_channels_last(p.unflatten(1, s.shape)),)) for s, p in zip(self.sums, parts, strict=True)]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass the values to methods that read memory without going through an operator."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in READS_MEMORY:
                args, kwargs = tree_map_only(Lazy, Lazy.dense, (args, kwargs))
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # as PyTorch documents it; its own is a function
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Stay lazy if possible; otherwise compute the values."""
        kwargs = kwargs or {}
        args = [x.dense() if isinstance(x, Lazy) and x.made is not None else x for x in args]
        if (result := _lazily(func, args, kwargs)) is not None:
            return result
        if func._schema.is_mutable and isinstance(args[0], Lazy):
            args[0].made = args[0].dense().clone()  # other tensors may share its parts
        args, kwargs = tree_map_only(Lazy, Lazy.dense, (args, kwargs))
        return func(*args, **kwargs)


def _lazily(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """The result of an operation that does not need values, or None if it does."""
    match func, *args:
        case aten.add.Tensor, Lazy() as x, Tensor() as y if not kwargs and _alike(x, y):
            return x.plus(y)
        case aten.add.Tensor, Tensor() as y, Lazy() as x if not kwargs and _alike(x, y):
            return x.plus(y)
        case aten.mul.Tensor, Lazy() as x, scale if _is_number(scale, x):
            return x.times(scale)
        case aten.addcmul.default, Tensor() as y, scale, Lazy() as x if _is_number(scale, x) and _alike(x, y):
            return x.times(scale * kwargs.get("value", 1)).plus(y)
        case aten.sum.dim_IntList, Lazy() as x, list() as dims, *keep if not kwargs and len(dims) == len(x.leading):
            if sorted(dims) == list(range(len(dims))):
                total = x.total()
                return total.reshape((1,) * len(dims) + total.shape) if keep == [True] else total
        case aten.detach.default, Lazy() as x:
            return Lazy(x.leading, x.sums, x.flat)
        case aten.expand.default, Lazy() as x, shape if tuple(shape) == x.shape:
            return Lazy(x.leading, x.sums, x.flat)
    return None


def _alike(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and x.dtype == y.dtype


def _is_number(scale: Any, x: Tensor) -> bool:
    """Whether `scale` is a single number that keeps the dtype of x."""
    if isinstance(scale, Tensor):
        return scale.numel() == 1 and scale.dim() <= x.dim() and scale.dtype == x.dtype
    return isinstance(scale, float | int)


def _sum(part: Tensor) -> Sum:
    """One parameter, lazy or not, as a sum."""
    if isinstance(part, Lazy):
        return part.sums[0] if part.made is None else _sum(part.made)
    return Sum(part.shape[1:], (part.detach(),))


def _channels_last(part: Tensor) -> Tensor:
    """Put kernels (G, O, C, 4, 4) that all neighbourhoods share into the memory order that convolutions read.

    Otherwise each of a layer's nine maps would copy them. Local kernels, the sum of these and a product, then have that
    order, too. Other parameters are returned unchanged.
    """
    if part.dim() != 5 or not is_shared(part):
        return part
    return part[0].contiguous(memory_format=torch.channels_last).expand(part.shape)


class _Split(Function):
    """Split a flat vector into parameters. `_Split` and `_Join` are each other's derivative."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, layout: ParameterLayout, groups: int) -> tuple[Tensor, ...]:
        ctx.about = layout, groups, flat.shape
        if isinstance(flat, Lazy) and flat.made is None and [s.shape for s in flat.sums] == [*layout.shapes.values()]:
            return tuple(Lazy((groups,), [s]) if s.products else s.each().detach() for s in flat.sums)
        return tuple(map(_channels_last, layout.split(flat.reshape(groups, -1)).values()))

    @staticmethod
    def backward(ctx: Any, *parts: Tensor) -> tuple[Any, ...]:
        return _Join.apply(*ctx.about, *parts), None, None


class _Join(Function):
    @staticmethod
    def forward(ctx: Any, layout: ParameterLayout, groups: int, shape: torch.Size, *parts: Tensor) -> Tensor:
        ctx.about = layout, groups
        if not any(isinstance(p, Lazy) for p in parts):
            return torch.cat([p.flatten(1) for p in parts], 1).view(shape)
        return Lazy(shape[:-1], [_sum(p) for p in parts], flat=True)

    @staticmethod
    def backward(ctx: Any, flat: Tensor) -> tuple[Any, ...]:
        return None, None, None, *_Split.apply(flat, *ctx.about)


def split(flat: Tensor, layout: ParameterLayout, groups: int) -> dict[str, Tensor]:
    """Split the weights (…, P) of `groups` neighbourhoods as `ParameterLayout.split` does: (groups, *shape) by name."""
    return dict(zip(layout.shapes, _Split.apply(flat, layout, groups), strict=True))
