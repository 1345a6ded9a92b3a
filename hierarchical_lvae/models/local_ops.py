"""Affine maps of many neighbourhoods at once, differentiable any number of times by batched maps alone.

A layer y = W x + b is known by one function, linear in x, in (W, b) and in y,

    T(x, (W, b), y) = ⟨W x + b, y⟩,

and its partial derivatives are all that back-propagation ever needs:

    output(x, W, b) = ∂T/∂y = W x + b        input(y, W) = ∂T/∂x = Wᵀ y        weight(x, y) = ∂T/∂(W, b) = (y xᵀ, y)

The derivative of each is made of the other two. For cotangents ȳ, x̄ and (W̄, b̄) of the three results,

    output:   x ← input(ȳ, W)       (W, b) ← weight(x, ȳ)
    input:    y ← output(x̄, W, 0)        W ← weight(x̄, y)
    weight:   x ← input(y, W̄)            y ← output(x, W̄, b̄)

so the three Functions below are closed under differentiation, and nothing is left to PyTorch's own double backward,
which loops over the groups of a grouped convolution. To differentiate through a gradient costs nine such maps a layer:
three for the gradient, and six for the derivative of its product with a given vector.

If the G neighbourhoods share their weights (stride 0 along G, as at the prior mean), `output` and `input` are plain
maps of all K·G points. `weight` is a product for each neighbourhood, (G, …), and is kept as its factors: a dense layer
whose local weights are shared ones plus such products applies the factors, and never computes the weights (`lazy`).
"""

from functools import reduce
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from hierarchical_lvae.models.lazy import Lazy, Product, Sum, is_shared

KERNEL, STRIDE, PADDING = 4, 2, 1

Gradients = tuple[Tensor | None, ...]


class Form(Protocol):
    """The three partial derivatives of T: x is (K, G, *in), W (G, *shape), b (G, out) and y (K, G, *out)."""

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b."""
        ...

    def input(self, y: Tensor, weight: Tensor) -> Tensor:
        """Wᵀ y."""
        ...

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """y xᵀ, summed over the points of each neighbourhood."""
        ...

    def bias(self, y: Tensor) -> Tensor:
        """y, summed likewise."""
        ...

    def grouped(self, x: Tensor) -> Tensor:
        """The same numbers, in the order in memory that maps with local weights want."""
        ...


def affine(form: Form, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W x + b, by each neighbourhood's own weights: (K, G, *out)."""
    return _Output.apply(form, x, weight, bias)


class _Output(Function):
    @staticmethod
    def forward(ctx: Any, form: Form, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.form = form
        ctx.save_for_backward(x, weight)
        return form.output(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        _, for_x, for_weight, for_bias = ctx.needs_input_grad
        x_grad = _Input.apply(ctx.form, y, weight) if for_x else None
        w_grad, b_grad = _weight(ctx.form, x, y, weight) if for_weight or for_bias else (None, None)
        return None, x_grad, w_grad, b_grad if for_bias else None


class _Input(Function):
    @staticmethod
    def forward(ctx: Any, form: Form, y: Tensor, weight: Tensor) -> Tensor:
        ctx.form = form
        ctx.save_for_backward(y, weight)
        return form.input(y, weight)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> Gradients:
        y, weight = ctx.saved_tensors
        _, for_y, for_weight = ctx.needs_input_grad
        y_grad = _Output.apply(ctx.form, x, weight, None) if for_y else None
        return None, y_grad, _weight(ctx.form, x, y, weight)[0] if for_weight else None


class _Weight(Function):
    @staticmethod
    def forward(ctx: Any, form: Form, x: Tensor, y: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        ctx.form = form
        ctx.save_for_backward(x, y)
        product, groups = Product(form.weight, x, y), y.shape[1]
        weight = product.each if groups == 1 else Lazy((groups,), [Sum(shape, products=((None, product),))])
        return weight, form.bias(y)

    @staticmethod
    def backward(ctx: Any, weight: Tensor, bias: Tensor) -> Gradients:
        x, y = ctx.saved_tensors
        _, for_x, for_y, _ = ctx.needs_input_grad
        x_grad = _Input.apply(ctx.form, y, weight) if for_x else None
        return None, x_grad, _Output.apply(ctx.form, x, weight, bias) if for_y else None, None


def _weight(form: Form, x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The derivative in (W, b)."""
    if torch.is_grad_enabled():  # it is to be differentiated, or applied, and not only summed over G
        x, y = form.grouped(x), form.grouped(y)
    return _Weight.apply(form, x, y, weight.shape[1:])


class Dense:
    """T of a dense layer: x (K, G, I), W (G, O, I), y (K, G, O)."""

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b."""
        if isinstance(weight, Lazy) and (W := weight.low_rank()):
            terms = [F.linear(x, w[0]) for w in W.tensors] + [_through(x, p.x, p.y, s) for s, p in W.products]
            return reduce(torch.add, terms if bias is None else [*terms, bias])
        if is_shared(weight):
            return F.linear(x, weight[0], None if bias is None else bias[0])
        x, weight = x.transpose(0, 1), weight.transpose(1, 2)
        y = torch.bmm(x, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight)
        return y.transpose(0, 1)

    def input(self, y: Tensor, weight: Tensor) -> Tensor:
        """Wᵀ y."""
        if isinstance(weight, Lazy) and (W := weight.low_rank()):
            return reduce(torch.add, [y @ w[0] for w in W.tensors] + [_through(y, p.y, p.x, s) for s, p in W.products])
        return y @ weight[0] if is_shared(weight) else torch.bmm(y.transpose(0, 1), weight).transpose(0, 1)

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ_k y xᵀ."""
        return torch.bmm(y.permute(1, 2, 0), x.transpose(0, 1))

    def bias(self, y: Tensor) -> Tensor:
        """Σ_k y."""
        return y.sum(0)

    def grouped(self, x: Tensor) -> Tensor:
        """Any order will do."""
        return x


def _through(v: Tensor, a: Tensor, b: Tensor, scale: Tensor | float | None) -> Tensor:
    """scale · Σ_k b_k ⟨a_k, v⟩ for a (K, G, I), b (K, G, O) and v (S, G, I): (S, G, O)."""
    inner = torch.bmm(v.transpose(0, 1), a.permute(1, 2, 0))
    return torch.bmm(inner if scale is None else inner * scale, b.transpose(0, 1)).transpose(0, 1)


class Convolution:
    """T of a 4 × 4 convolution of stride 2: x (K, G, C, *size), W (G, O, C, 4, 4), y (K, G, O, *(size // 2)).

    Activations lie in memory as (K, G, H, W, C), channels last; for local weights, as (K, H, W, G, C), which is the
    order of a convolution in G groups. (On two cores a copy is cheap, and other orders take up to four times as long.)
    """

    def __init__(self, size: tuple[int, ...]) -> None:
        self.odd = [side % 2 for side in size]

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b."""
        images, kernels, biases, groups = _merged(x, weight, bias)
        return _parted(F.conv2d(images, kernels, biases, STRIDE, PADDING, groups=groups), x)

    def input(self, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Wᵀ y, plus a bias if there is one: then it is the output of the transposed convolution."""
        maps, kernels, biases, groups = _merged(y, weight, bias)
        return _parted(F.conv_transpose2d(maps, kernels, biases, STRIDE, PADDING, self.odd, groups), y)

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ y xᵀ over points and places: (G, O, C, 4, 4)."""
        groups, inputs, outputs = x.shape[1], x.shape[2], y.shape[2]
        like = x.new_empty(1).expand(groups * outputs, inputs, KERNEL, KERNEL)  # only its shape counts
        sides = [STRIDE] * 2, [PADDING] * 2, [1, 1], False, [0, 0]
        wanted = [False, True, False]
        gradient = torch.ops.aten.convolution_backward
        kernels = gradient(_in_groups(y), _in_groups(x), like, None, *sides, groups, wanted)[1]
        return kernels.unflatten(0, (groups, outputs))

    def bias(self, y: Tensor) -> Tensor:
        """Σ y over points and places."""
        return y.sum((3, 4)).sum(0)

    def grouped(self, x: Tensor) -> Tensor:
        """(K, G, C, H, W), in memory (K, H, W, G, C)."""
        return x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)


class Upconvolution(Convolution):
    """T of the transposed convolution: that of a convolution, x and y exchanged.

    x is (K, G, C, *(size // 2)), W (G, C, O, 4, 4), y (K, G, O, *size).
    """

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b."""
        return super().input(x, weight, bias)

    def input(self, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Wᵀ y."""
        return super().output(y, weight, bias)

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ y xᵀ over points and places: (G, C, O, 4, 4)."""
        return super().weight(y, x)


def _merged(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """The arguments of a convolution: in G groups, or of K·G images if the weights are shared."""
    if is_shared(weight):
        images, kernels = (v.contiguous(memory_format=torch.channels_last) for v in (x.flatten(0, 1), weight[0]))
        return images, kernels, None if bias is None else bias[0], 1
    kernels = weight.permute(0, 1, 3, 4, 2).contiguous().flatten(0, 1).permute(0, 3, 1, 2)
    return _in_groups(x), kernels, None if bias is None else bias.flatten(), len(weight)


def _in_groups(x: Tensor) -> Tensor:
    """(K, G, C, H, W) → (K, G·C, H, W), channels last."""
    return x.permute(0, 3, 4, 1, 2).contiguous().flatten(3, 4).permute(0, 3, 1, 2)


def _parted(maps: Tensor, like: Tensor) -> Tensor:
    """The result of a convolution as (K, G, O, H, W), in memory (K, G, H, W, O)."""
    points, groups = like.shape[:2]
    if len(maps) == points * groups:
        return maps.unflatten(0, (points, groups))
    return maps.unflatten(1, (groups, -1)).permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


class _Relu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.relu()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return _Gate.apply(g, *ctx.saved_tensors)


class _Gate(Function):
    """g where y > 0, else 0: linear in g, and flat in y. (PyTorch's own fills and adds a map of zeros for y.)"""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return torch.ops.aten.threshold_backward(g, y, 0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        return _Gate.apply(g, *ctx.saved_tensors), None


def relu(x: Tensor) -> Tensor:
    """max(x, 0), any shape."""
    return _Relu.apply(x)
