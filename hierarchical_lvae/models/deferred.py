"""Gradients in weights, one for each neighbourhood, that are made only if someone looks at them.

At the prior mean all G neighbourhoods have the same weights: a vector θ (P,), expanded to (G, P). A gradient there is
(G, P), and a local step needs it so. But in the last backward pass it goes on through the `expand` to θ, which sums
it over G, and the sum is one plain product over all K·G points: smaller by G, and several times faster. (So does the
gradient in θ_N = θ − …, of its first term.) Which of both it will be is not known when the gradient is due: a
`Deferred` stands in for it, and can make either.

They are used where no graph is made; else the gradient is to be differentiated, and is made at once.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils._pytree import tree_map_only

from hierarchical_lvae.types import ParameterLayout

aten = torch.ops.aten
Make = Callable[[], Tensor]


class Deferred(Tensor):
    """A tensor (*leading, *shape), of which only the sum over all leading dimensions may be needed.

    To add to it and to sum it is cheap. Any other use makes it, once.

    Args:
        leading, shape: its shape, in two parts.
        like: a tensor of its type, on its device.
        each: makes it.
        total: makes the sum, of `shape`.

    >>> x = Deferred((3,), (2,), torch.empty(()), lambda: torch.ones(3, 2), lambda: torch.full((2,), 3.0))
    >>> (x + x).sum(0), x * 2
    (tensor([6., 6.]), tensor([[2., 2.], [2., 2.], [2., 2.]]))
    """

    @staticmethod
    def __new__(
        cls: type, leading: Sequence[int], shape: Sequence[int], like: Tensor, each: Make, total: Make
    ) -> "Deferred":
        """Make a tensor without memory of its own."""
        return Tensor._make_wrapper_subclass(cls, (*leading, *shape), dtype=like.dtype, device=like.device)

    def __init__(self, leading: Sequence[int], shape: Sequence[int], like: Tensor, each: Make, total: Make) -> None:
        self.leading, self.like = tuple(leading), like.new_empty(())
        self._each, self._total, self._made = each, total, None

    def each(self) -> Tensor:
        """The tensor itself."""
        if self._made is None:
            self._made = self._each()
        return self._made

    def total(self) -> Tensor:
        """Its sum over the leading dimensions."""
        return self._total() if self._made is None else _total(self._made, len(self.leading))

    def numpy(self, *, force: bool = False) -> Any:
        """As of any tensor."""
        return self.each().numpy(force=force)

    def tolist(self) -> Any:
        """As of any tensor."""
        return self.each().tolist()

    def __repr__(self, **_: Any) -> str:
        return repr(self.each())

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Add and sum without making it; for anything else make it."""
        if func is aten.add.Tensor and not kwargs and args[0].shape == getattr(args[1], "shape", None):
            a, b = args
            known = a if isinstance(a, Deferred) else b
            n, both = len(known.leading), (a, b)
            return Deferred(
                known.leading,
                known.shape[n:],
                known.like,
                lambda: torch.add(*(x.each() if isinstance(x, Deferred) else x for x in both)),
                lambda: torch.add(*(x.total() if isinstance(x, Deferred) else _total(x, n) for x in both)),
            )
        if func is aten.sum.dim_IntList and not kwargs and sorted(args[1]) == list(range(len(args[0].leading))):
            total = args[0].total()
            return total.reshape((1,) * len(args[1]) + total.shape) if True in args[2:] else total
        args, kwargs = tree_map_only(Deferred, Deferred.each, (args, kwargs or {}))
        return func(*args, **kwargs)


def _total(x: Tensor, leading: int) -> Tensor:
    return x.sum(tuple(range(leading)))


def deferred(
    leading: int,
    shapes: Sequence[Sequence[int]],
    like: Tensor,
    each: Callable[[], Sequence[Tensor]],
    total: Callable[[], Sequence[Tensor]],
) -> tuple[Deferred, ...]:
    """Several of them, (leading, *shape), that are made together; the totals come as (1, *shape)."""
    each, total = cache(each), cache(total)

    def one(i: int, shape: Sequence[int]) -> Deferred:
        return Deferred((leading,), shape, like, lambda: each()[i], lambda: total()[i][0])

    return tuple(one(i, shape) for i, shape in enumerate(shapes))


class _Split(Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, layout: ParameterLayout, groups: int) -> tuple[Tensor, ...]:
        ctx.shape = flat.shape
        return tuple(layout.split(flat.reshape(groups, -1)).values())

    @staticmethod
    def backward(ctx: Any, *parts: Tensor) -> tuple[Tensor, None, None]:
        def together() -> Tensor:
            dense = (p.each() if isinstance(p, Deferred) else p for p in parts)
            return torch.cat([p.flatten(1) for p in dense], 1).view(ctx.shape)

        if not all(isinstance(part, Deferred) for part in parts):
            return together(), None, None
        *leading, size = ctx.shape
        total = lambda: torch.cat([part.total().flatten() for part in parts])  # noqa: E731
        return Deferred(leading, (size,), parts[0].like, together, total), None, None


def split(flat: Tensor, layout: ParameterLayout, groups: int) -> dict[str, Tensor]:
    """`ParameterLayout.split` of the weights (…, P) of `groups` neighbourhoods: (groups, *shape) by name."""
    return dict(zip(layout.shapes, _Split.apply(flat, layout, groups), strict=True))
