"""Batched maps and their derivatives, against PyTorch's own layers one neighbourhood at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from hierarchical_lvae.layout import ParameterLayout
from hierarchical_lvae.models import forms
from hierarchical_lvae.models.forms import Patches, Places
from hierarchical_lvae.models.layers import Conv, Linear, UpConv
from hierarchical_lvae.models.lazy import Lazy, split
from hierarchical_lvae.models.local_ops import relu
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

WIDE = {  # wide enough for the factors of a gradient to be fewer numbers than the gradient
    "linear": (Linear(40, 32), (40,), F.linear),
    "conv": (Conv(32, 32), (32, 4, 4), lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1)),
    "conv-odd": (Conv(32, 32), (32, 5, 7), lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1)),
    "upconv": (UpConv(32, 32, (4, 4)), (32, 2, 2), lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1)),
    "upconv-odd": (
        UpConv(32, 32, (5, 7)),
        (32, 2, 3),
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, output_padding=1),
    ),
}


@pytest.fixture(params=["groups", "products"], autouse=True)
def form_of_convolutions(request, monkeypatch):
    """Both that there are: that of CPUs, and that of GPUs."""
    monkeypatch.setattr(forms, "by_products", lambda x: request.param == "products")


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
        assert isinstance(a, Lazy) == (b.dim() > 2)  # a bias is small
        torch.testing.assert_close(a.clone(), b)


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
        torch.testing.assert_close(a.clone(), b)


@pytest.mark.parametrize("points", [1, 2])
@pytest.mark.parametrize("neighbours", [1, 2])
@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize("name", WIDE)
def test_a_step_from_shared_weights_is_a_loop_of_steps(name, create_graph, neighbours, points, double, monkeypatch):
    """The output at other points after a step, and two derivatives, though no local weights are computed."""
    layer, event, operation = WIDE[name]
    x, q = (torch.randn(n, G, *event, requires_grad=True) for n in (neighbours, points))
    weights = [torch.randn(shape, requires_grad=True) for shape in layer.shapes.values()]
    size = torch.full((1, 1), 0.03)

    def stepped(x, q, *weights):
        shared = [w.expand(G, *w.shape) for w in weights]
        slopes = torch.autograd.grad(layer(x, *shared).tanh().sum(), shared, create_graph=create_graph)
        return layer(q, *(torch.addcmul(w, size, slope, value=-1) for w, slope in zip(shared, slopes, strict=True)))

    def looped(x, q, *weights):
        outputs = []
        for g in range(G):
            inner = operation(x[:, g], *weights).tanh().sum()
            slopes = torch.autograd.grad(inner, weights, create_graph=create_graph)
            local = [w - 0.03 * slope for w, slope in zip(weights, slopes, strict=True)]
            outputs.append(operation(q[:, g], *local))
        return torch.stack(outputs, 1)

    inputs = [x, q, *weights] if create_graph else [q, *weights]
    orders = 1 if name == "upconv-odd" else 2  # of more, and a step is one, PyTorch's own is not capable there
    of = (lambda f: f) if create_graph else (lambda f: lambda *given: f(x.detach(), *given))
    with monkeypatch.context() as watched:
        watched.setattr(Lazy, "each", None)
        fast = derivatives(of(stepped), inputs, orders)
    for a, b in zip(fast, derivatives(of(looped), inputs, orders), strict=True):
        assert (a - b).norm() < 1e-9 * b.norm()


def test_too_many_factors_are_multiplied_out(double):
    layer, (x, *weights) = Linear(4, 3), arguments(Linear(4, 3), (4,), shared=True)
    shared = [w.expand(G, *w.shape) for w in weights]
    slopes = torch.autograd.grad(layer(x, *shared).square().sum(), shared)
    local = [w + slope for w, slope in zip(shared, slopes, strict=True)]
    assert isinstance(local[0], Lazy)
    y = layer(x, *local)
    assert local[0].made is not None
    torch.testing.assert_close(y, slow(F.linear, False)(x, *(w.clone() for w in local)))


@pytest.mark.parametrize(
    ("layer", "size"), [(Conv(3, 4), (8, 8)), (UpConv(3, 4, (8, 8)), (4, 4))], ids=["conv", "upconv"]
)
def test_kernels_are_stored_as_convolutions_read_them(layer, size):
    """Before a step from shared weights and after it, so that no map copies them."""
    layout = ParameterLayout(layer.shapes)
    flat = torch.randn(layout.size).requires_grad_().expand(G, 1, -1)
    shared = split(flat, layout, G)
    (slope,) = torch.autograd.grad(layer(torch.randn(K, G, 3, *size), **shared).tanh().sum(), flat)
    local = split(torch.addcmul(flat, torch.full((1,), 0.1), slope, value=-1), layout, G)["weight"]
    for kernels in (shared["weight"][:1], local.each()):
        assert kernels.permute(0, 1, 3, 4, 2).is_contiguous()


@pytest.mark.parametrize("rows", [Places(), Patches()], ids=["places", "patches"])
@pytest.mark.parametrize("size", SIZES)
def test_rows_are_joined_by_the_adjoint_of_splitting(rows, size, double):
    v = torch.randn(K, G, 3, *size)
    split = rows.split(v)
    other = torch.randn(split.shape)
    torch.testing.assert_close((split * other).sum(), (v * rows.join(other, v.shape)).sum())


def test_relu_is_pytorchs_to_the_second_derivative(double):
    x = torch.randn(50).requires_grad_()
    assert gradcheck(relu, x)
    assert gradgradcheck(relu, x)
    assert torch.equal(relu(x), x.relu())
