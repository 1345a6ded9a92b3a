"""Affine maps of many neighbourhoods at once, differentiable any number of times at the cost of plain ones.

A layer y = W x + b is known by one function, linear in each of its three arguments,

    T(x, (W, b), y) = ⟨W x + b, y⟩,

and its partial derivatives are all that back-propagation ever needs, however often it is repeated:

    output(x, W, b) = ∂T/∂y = W x + b          input(y, W) = ∂T/∂x = Wᵀ y          weight(x, y) = ∂T/∂(W, b) = (y xᵀ, y)

The derivative of each is made of the other two. For cotangents ȳ, x̄ and (W̄, b̄) of the three results,

    output:   x ← input(ȳ, W)       (W, b) ← weight(x, ȳ)
    input:    y ← output(x̄, W, 0)        W ← weight(x̄, y)
    weight:   x ← input(y, W̄)            y ← output(x, W̄, b̄)

so the three Functions below are closed under differentiation, and no derivative is left to a rule that would loop over
the groups of a grouped convolution, as PyTorch's own double backward does. A step through a step costs nine such maps a
layer: three for the gradient, and six for the derivative of its product with a given vector.

The maps are those of G neighbourhoods. If they share their weights (stride 0 along G), `output` and `input` are one plain
map of all K·G points; `weight` is one sum for each neighbourhood in any case, since that is what a local step needs.
"""

import os
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

KERNEL, STRIDE, PADDING = 4, 2, 1
MODE = os.environ.get("MODE", "S")


class Form(Protocol):
    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...
    def input(self, y: Tensor, weight: Tensor) -> Tensor: ...
    def weight(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]: ...


class _Output(Function):
    @staticmethod
    def forward(ctx: Any, form: Form, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.form = form
        ctx.save_for_backward(x, weight)
        return form.output(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        _, needs_x, *needs_weight = ctx.needs_input_grad
        return (
            None,
            _Input.apply(ctx.form, y, weight) if needs_x else None,
            *(_Weight.apply(ctx.form, x, y) if any(needs_weight) else (None, None)),
        )


class _Input(Function):
    @staticmethod
    def forward(ctx: Any, form: Form, y: Tensor, weight: Tensor) -> Tensor:
        ctx.form = form
        ctx.save_for_backward(y, weight)
        return form.input(y, weight)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[Tensor | None, ...]:
        y, weight = ctx.saved_tensors
        _, needs_y, needs_weight = ctx.needs_input_grad
        return (
            None,
            _Output.apply(ctx.form, x, weight, None) if needs_y else None,
            _Weight.apply(ctx.form, x, y)[0] if needs_weight else None,
        )


class _Weight(Function):
    @staticmethod
    def forward(ctx: Any, form: Form, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        ctx.form = form
        ctx.save_for_backward(x, y)
        return form.weight(x, y)

    @staticmethod
    def backward(ctx: Any, weight: Tensor, bias: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        _, needs_x, needs_y = ctx.needs_input_grad
        return (
            None,
            _Input.apply(ctx.form, y, weight) if needs_x else None,
            _Output.apply(ctx.form, x, weight, bias) if needs_y else None,
        )


def affine(form: Form, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _Output.apply(form, x, weight, bias)


def is_shared(weight: Tensor) -> bool:
    return weight.shape[0] == 1 or weight.stride(0) == 0


class Dense:
    def output(self, x, weight, bias):
        if is_shared(weight):
            return F.linear(x, weight[0], None if bias is None else bias[0])
        x, weight = x.transpose(0, 1), weight.transpose(1, 2)
        y = torch.bmm(x, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight)
        return y.transpose(0, 1)

    def input(self, y, weight):
        if is_shared(weight):
            return y @ weight[0]
        return torch.bmm(y.transpose(0, 1), weight).transpose(0, 1)

    def weight(self, x, y):
        return torch.bmm(y.permute(1, 2, 0), x.transpose(0, 1)), y.sum(0)


def merged(x, groups):
    """(K, G, C, H, W) → (K·G, C, H, W) or, in groups, (K, G·C, H, W); channels last"""
    K, G, C, H, W = x.shape
    if groups == 1:
        return x.permute(0, 1, 3, 4, 2).reshape(K * G, H, W, C).permute(0, 3, 1, 2)
    return x.permute(0, 3, 4, 1, 2).reshape(K, H, W, G * C).permute(0, 3, 1, 2)


def _args(weight, bias):
    if is_shared(weight) and (MODE == "S" or weight.shape[0] == 1):
        return weight[0].contiguous(memory_format=torch.channels_last), None if bias is None else bias[0], 1
    return weight.flatten(0, 1).contiguous(memory_format=torch.channels_last), None if bias is None else bias.reshape(-1), len(weight)


class Convolution:
    def __init__(self, size):
        self.odd = [side % 2 for side in size]

    def output(self, x, weight, bias):
        w, b, groups = _args(weight, bias)
        y = F.conv2d(merged(x, groups), w, b, STRIDE, PADDING, groups=groups)
        return y.unflatten(0, x.shape[:2]) if groups == 1 else y.unflatten(1, (groups, -1))

    def input(self, y, weight, bias=None):
        w, b, groups = _args(weight, bias)
        x = F.conv_transpose2d(merged(y, groups), w, b, STRIDE, PADDING, self.odd, groups)
        return x.unflatten(0, y.shape[:2]) if groups == 1 else x.unflatten(1, (groups, -1))

    def weight(self, x, y, bias_of=None):
        G, O, C = x.shape[1], y.shape[2], x.shape[2]
        w = x.new_empty(1).expand(G * O, C, KERNEL, KERNEL)
        _, w, b = torch.ops.aten.convolution_backward(
            merged(y, 0), merged(x, 0), w, [G * O], [STRIDE] * 2, [PADDING] * 2, [1, 1], False, [0, 0], G, [False, True, True]
        )
        return w.unflatten(0, (G, O)), b.view(G, O)


class Upconvolution:
    def __init__(self, size):
        self.down = Convolution(size)

    def output(self, x, weight, bias):
        return self.down.input(x, weight, bias)

    def input(self, y, weight):
        return self.down.output(y, weight, None)

    def weight(self, x, y):
        return self.down.weight(y, x)[0], y.sum((0, 3, 4))
