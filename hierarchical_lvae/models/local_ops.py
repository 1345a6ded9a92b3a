"""Affine maps of many neighbourhoods at once, differentiable any number of times using only batched maps.

A layer y = W x + b is determined by one function that is affine in x and linear in (W, b) and in y,

    T(x, (W, b), y) = ⟨W x + b, y⟩,

and backpropagation needs only its partial derivatives:

    output(x, W, b) = ∂T/∂y = W x + b        input(y, W) = ∂T/∂x = Wᵀ y        weight(x, y) = ∂T/∂(W, b) = (y xᵀ, y)

The derivative of each consists of the other two. For cotangents ȳ, x̄ and (W̄, b̄) of the three results,

    output:   x ← input(ȳ, W)       (W, b) ← weight(x, ȳ)
    input:    y ← output(x̄, W, 0)        W ← weight(x̄, y)
    weight:   x ← input(y, W̄)            y ← output(x, W̄, b̄)

so the three Functions below are closed under differentiation and do not use PyTorch's own double backward, which loops
over the groups of a grouped convolution. Differentiating through a gradient costs nine such maps per layer: three for
the gradient, and six for the derivative of its product with a given vector.

If the G neighbourhoods share their weights (stride 0 along G, as at the prior mean), `output` and `input` are ordinary
maps of all K·G points. `weight` stores its factors x and y (`lazy`). Local weights that are shared weights plus
low-rank products, as after a local step from the prior mean, are never computed: the factors are applied directly.
"""

from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hierarchical_lvae.models.forms import Form, Rows
from hierarchical_lvae.models.lazy import Lazy, Number, Product, Sum, is_shared

Gradients = tuple[Tensor | None, ...]


def affine(form: Form, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W x + b with each neighbourhood's own weights: (K, G, *out)."""
    return _Output.apply(form, x, weight, bias)


class _Output(Function):
    @staticmethod
    def forward(ctx: Any, form: Form, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.form = form
        ctx.save_for_backward(x, weight)
        return _output(form, x, weight, bias)

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
        return _input(form, y, weight)

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
    """The derivative with respect to (W, b)."""
    if torch.is_grad_enabled():  # it may be differentiated or applied, not only summed over G
        x, y = form.grouped(x), form.grouped(y)
    return _Weight.apply(form, x, y, weight.shape[1:])


def _output(form: Form, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b, using the factors of W if their rank is low."""
    if not isinstance(weight, Lazy):
        if bias is None or is_shared(bias) or not is_shared(weight):
            return form.output(x, weight, bias)
        return form.output(x, weight, None) + _of_maps(bias, x)  # the biases alone are local
    if (W := weight.low_rank()) is None:
        return form.output(x, weight.each(), bias)
    terms = [form.output(x, shared, None) for shared in W.tensors]
    terms += [_through(x, p.x, form.x, p.y, form.y, scale) for scale, p in W.products]
    if bias is not None:
        terms.append(_of_maps(bias, x))
    return reduce(torch.add, terms)


def _of_maps(bias: Tensor, x: Tensor) -> Tensor:
    """Biases (G, out) with the dimensions of maps: (G, out, 1, 1), where x has maps."""
    return bias.reshape(bias.shape + (1,) * (x.dim() - 3))


def _input(form: Form, y: Tensor, weight: Tensor) -> Tensor:
    """Wᵀ y, using the factors of W if their rank is low."""
    if not isinstance(weight, Lazy):
        return form.input(y, weight)
    if (W := weight.low_rank()) is None:
        return form.input(y, weight.each())
    terms = [form.input(y, shared) for shared in W.tensors]
    terms += [_through(y, p.y, form.y, p.x, form.x, scale) for scale, p in W.products]
    return reduce(torch.add, terms)


def _through(v: Tensor, a: Tensor, a_rows: Rows, b: Tensor, b_rows: Rows, scale: Number | None) -> Tensor:
    """scale · Σ_r b_r ⟨a_r, v⟩ over the rows r of the factors: v is (S, G, …) like a, and the result is like b."""
    inner = torch.bmm(a_rows.split(v), a_rows.split(a).mT)
    rows = torch.bmm(inner if scale is None else inner * scale, b_rows.split(b))
    return b_rows.join(rows, (len(v), *b.shape[1:]))


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
    """g where y > 0, else 0: linear in g, with no gradient in y. (PyTorch allocates and adds a map of zeros for y.)"""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return torch.ops.aten.threshold_backward(g, y, 0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Gradients:
        return _Gate.apply(g, *ctx.saved_tensors), None


def relu(x: Tensor) -> Tensor:
    """max(x, 0), for any shape."""
    return _Relu.apply(x)
