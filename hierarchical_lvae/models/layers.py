"""Layers whose weights differ between neighbourhoods, applied to all neighbourhoods at once.

Activations are (K, G, …): K points in each of G neighbourhoods. Weights are (G, …), with stride 0 if they are shared;
`local_ops` explains how both cases are computed and differentiated.
All convolutions are 4 × 4 with stride 2 and padding 1: they halve the height and width, rounding down, and transposed
convolutions restore them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hierarchical_lvae.models.forms import KERNEL, Dense, convolution
from hierarchical_lvae.models.local_ops import affine

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Linear:
    """(K, G, inputs) → (K, G, outputs)."""

    inputs: int
    outputs: int

    @property
    def shapes(self) -> dict[str, Shape]:
        """Parameter shapes by name."""
        return {"weight": (self.outputs, self.inputs), "bias": (self.outputs,)}

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Map each point by its neighbourhood's weights."""
        return affine(Dense(), x, weight, bias)


@dataclass(frozen=True)
class Conv:
    """(K, G, inputs, H, W) → (K, G, outputs, H // 2, W // 2)."""

    inputs: int
    outputs: int

    @property
    def shapes(self) -> dict[str, Shape]:
        """Parameter shapes by name."""
        return {"weight": (self.outputs, self.inputs, KERNEL, KERNEL), "bias": (self.outputs,)}

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve each image with its neighbourhood's kernels."""
        return affine(convolution(x, x.shape[-2:]), x, weight, bias)


@dataclass(frozen=True)
class UpConv:
    """(K, G, inputs, H, W) → (K, G, outputs, *size), where H = size[0] // 2 and W = size[1] // 2."""

    inputs: int
    outputs: int
    size: tuple[int, int]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Parameter shapes by name."""
        return {"weight": (self.inputs, self.outputs, KERNEL, KERNEL), "bias": (self.outputs,)}

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Apply the transposed convolution with its neighbourhood's kernels to each map."""
        return affine(convolution(x, self.size, up=True), x, weight, bias)


@dataclass(frozen=True)
class Activation:
    """An elementwise function: any shape → the same shape."""

    function: Callable[[Tensor], Tensor]
    shapes: ClassVar[dict[str, Shape]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(x)


@dataclass(frozen=True)
class Reshape:
    """(K, G, *any) → (K, G, *shape)."""

    shape: Shape
    shapes: ClassVar[dict[str, Shape]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """View each point's activations in another shape."""
        return x.reshape(*x.shape[:2], *self.shape)
