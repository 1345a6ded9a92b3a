"""Batched maps and their derivatives, against PyTorch's own layers one neighbourhood at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from hierarchical_lvae.models.deferred import Deferred, split
from hierarchical_lvae.models.layers import Conv, Linear, UpConv
from hierarchical_lvae.models.local_ops import relu
from hierarchical_lvae.types import ParameterLayout
from tests.rounding import assert_rounds_like

K, G = 2, 3
SIZES = [(4, 4), (5, 7)]
LAYERS = {
    "linear": (Linear(4, 3), (4,), F.linear),
    **{
        f"conv-{channels}-{size[0]}×{size[1]}": (
            Conv(channels, 2),
            (channels, *size),
            lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
        )
        for channels in (1, 3)
        for size in SIZES
    },
    **{
        f"upconv-{channels}-{size[0]}×{size[1]}": (
            UpConv(2, channels, size),
            (2, size[0] // 2, size[1] // 2),
            lambda x, w, b, size=size: F.conv_transpose2d(x, w, b, 2, 1, output_padding=[s % 2 for s in size]),
        )
        for channels in (1, 3)
        for size in SIZES
    },
}


def arguments(layer, event, shared):
    """x (K, G, *event), and weights of each neighbourhood, or of all."""
    groups = () if shared else (G,)
    weights = [torch.randn(*groups, *shape) for shape in layer.shapes.values()]
    return [t.requires_grad_() for t in (torch.randn(K, G, *event), *weights)]


def fast(layer, shared):
    def function(x, *weights):
        return layer(x, *(w.expand(G, *w.shape) if shared else w for w in weights))

    return function


def slow(operation, shared):
    def function(x, *weights):
        return torch.stack([operation(x[:, g], *(w if shared else w[g] for w in weights)) for g in range(G)], 1)

    return function


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "local"])
@pytest.mark.parametrize("name", LAYERS)
def test_derivatives_are_finite_differences(name, shared, double):
    layer, event, _ = LAYERS[name]
    inputs = arguments(layer, event, shared)
    assert gradcheck(fast(layer, shared), inputs)
    assert gradgradcheck(fast(layer, shared), inputs, fast_mode=True)


def derivatives(function, inputs, orders):
    """A scalar of a map's output, its gradient, and so on: each order as one vector."""
    value = function(*inputs).tanh().sum()  # tanh mixes everything
    found = []
    for _ in range(orders):
        slopes = torch.autograd.grad(value, inputs, create_graph=True)
        found.append(torch.cat([value.view(1), *(slope.flatten() for slope in slopes)]).detach())
        value = sum(slope.square().mean() for slope in slopes)
    return found


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "local"])
@pytest.mark.parametrize("name", LAYERS)
def test_fast_is_slow_for_three_derivatives(name, shared):
    layer, event, operation = LAYERS[name]
    single = arguments(layer, event, shared)
    double = [t.detach().double().requires_grad_() for t in single]
    orders = 2 if name.startswith("upconv") and event[-1] % 2 else 3  # PyTorch's own has no third one there
    functions = fast(layer, shared), slow(operation, shared)
    exact, expected = (derivatives(function, double, orders) for function in functions)
    torch.testing.assert_close(exact, expected)
    assert_rounds_like(*(derivatives(function, single, orders) for function in functions), expected)


@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_shared_weights_have_a_gradient_for_each_neighbourhood(name, create_graph, double):
    layer, event, operation = LAYERS[name]
    x, *weights = arguments(layer, event, shared=True)
    expanded = [w.expand(G, *w.shape) for w in weights]
    repeated = [w.repeat(G, *[1] * w.dim()) for w in weights]
    ours = torch.autograd.grad(layer(x, *expanded).square().sum(), expanded, create_graph=create_graph)
    theirs = torch.autograd.grad(slow(operation, False)(x, *repeated).square().sum(), repeated)
    for a, b in zip(ours, theirs, strict=True):
        assert isinstance(a, Deferred) == (not create_graph)
        torch.testing.assert_close(a * 1, b)


def test_curvature_at_shared_weights_is_that_of_each_neighbourhood(double):
    """The product of a Hessian in the expanded weights, each block its own, and a vector: no sum in its place."""
    layer, event, operation = LAYERS["conv-3-5×7"]
    x, *weights = arguments(layer, event, shared=True)
    products = []
    for function, at in (
        (layer, [w.expand(G, *w.shape) for w in weights]),
        (slow(operation, False), [w.repeat(G, *[1] * w.dim()) for w in weights]),
    ):
        torch.manual_seed(1)
        slopes = torch.autograd.grad(function(x, *at).tanh().sum(), at, create_graph=True)
        products.append(torch.autograd.grad(slopes, at, [torch.randn(s.shape) for s in slopes]))
    for a, b in zip(*products, strict=True):
        torch.testing.assert_close(a * 1, b)


def test_relu_is_pytorchs_to_the_second_derivative(double):
    x = torch.randn(50).requires_grad_()
    assert gradcheck(relu, x)
    assert gradgradcheck(relu, x)
    assert torch.equal(relu(x), x.relu())


def counted(shape):
    """A deferred tensor of ones, and how often its parts were made."""
    made = {"each": 0, "total": 0}

    def make(what, value):
        made[what] += 1
        return value

    x = Deferred(
        shape[:-1],
        shape[-1:],
        torch.empty(()),
        lambda: make("each", torch.ones(shape)),
        lambda: make("total", torch.ones(shape).flatten(0, -2).sum(0)),
    )
    return x, made


def test_sums_do_not_make_what_is_deferred():
    x, made = counted((3, 1, 4))
    total = (torch.ones(3, 1, 4) + (x + x)).sum((0, 1), keepdim=True)
    assert total.tolist() == [[[9.0] * 4]]
    assert made == {"each": 0, "total": 2}


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x.sum(0),
        lambda x: x.sum(),
        lambda x: x.sum((0, 1), dtype=torch.float64),
        lambda x: x + 1,
        lambda x: torch.add(x, x, alpha=3),
        lambda x: x - x / 2,
        lambda x: x[1],
        lambda x: torch.cat([x, x]),
        lambda x: x.mul_(2),
        lambda x: torch.tensor(x.tolist()),
        lambda x: torch.from_numpy(x.numpy()),
    ],
)
def test_other_uses_make_it_once(use):
    x, made = counted((3, 1, 4))
    torch.testing.assert_close(use(x), use(torch.ones(3, 1, 4)))
    assert made["each"] == 1


def test_what_was_changed_in_place_stays_changed():
    x, _ = counted((3, 1, 4))
    x.mul_(2)
    assert x.sum((0, 1)).tolist() == [6.0] * 4
    assert "2., 2." in repr(x)


def test_split_is_the_layouts(double):
    layout = ParameterLayout({"a": (2, 3), "b": (2,)})
    flat = torch.randn(G, 1, 8).requires_grad_()
    ours, theirs = split(flat, layout, G), layout.split(flat.squeeze(1))
    assert all(torch.equal(ours[name], theirs[name]) for name in layout.shapes)
    assert gradcheck(lambda f: tuple(split(f, layout, G).values()), flat)
