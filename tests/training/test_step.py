"""The step of training as a whole: against a loop over tasks, and without a look at its numbers."""

from contextlib import nullcontext
from pkgutil import resolve_name

import pyro
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hierarchical_lvae.inference import LOCAL_INFERENCE, LocalELBO, OneStepMAP, Shared
from hierarchical_lvae.models import LIKELIHOODS, LocalVAE
from hierarchical_lvae.models.layers import Conv, Linear, UpConv
from hierarchical_lvae.models.lazy import Lazy
from tests.layers import layers_for
from tests.rounding import assert_rounds_like, errors

B, K, D, SHAPE = 3, 2, 4, (3, 17, 16)


def apply(network, x, flat):
    """A network on points (n, …), with PyTorch's own functions and one set of weights."""
    weights = network.layout.split(flat)
    for i, layer in enumerate(network.layers):
        w = [weights[f"{i}.{name}"] for name in layer.shapes]
        match layer:
            case Linear():
                x = F.linear(x, *w)
            case Conv():
                x = F.conv2d(x, *w, stride=2, padding=1)
            case UpConv():
                x = F.conv_transpose2d(x, *w, stride=2, padding=1, output_padding=[side % 2 for side in layer.size])
            case _:
                activation = getattr(layer, "function", None)
                x = getattr(torch, activation.__name__)(x) if activation else x.reshape(len(x), *layer.shape)
    return x


def negative_elbo(vae, theta, phi, x, noise):
    mean, log_sigma = apply(vae.encoder, x, phi).chunk(2, 1)
    likelihood = vae.likelihood(apply(vae.decoder, mean + log_sigma.exp() * noise, theta))
    kl = 0.5 * (mean.square() + (2 * log_sigma).exp() - 2 * log_sigma - 1).sum()
    return kl - likelihood.log_prob(x).sum()


def looped(vae, query, support, noise_N, noise, first_order):
    loss = 0.0
    for i in range(B):
        meta = [vae.theta, vae.phi]
        inner = negative_elbo(vae, *meta, support[i], noise_N[i])
        slopes = torch.autograd.grad(inner, meta, create_graph=not first_order)
        local = [p - vae.tau**2 * slope for p, slope in zip(meta, slopes, strict=True)]
        loss = loss + negative_elbo(vae, *local, query[i], noise[i])
    return loss


def problem(likelihood, activation, neighbours=K, points=1):
    """A VAE, and its data: queries, neighbours, and the noise of their codes."""
    vae = LocalVAE(1e-3 if "gaussian" in likelihood else 1.0, neighbours, SHAPE, D, likelihood, activation)
    images = torch.rand(B, points, *SHAPE), torch.rand(B, neighbours, *SHAPE)
    torch.manual_seed(1)
    return vae, (*images, torch.randn(B, neighbours, D), torch.randn(B, points, D))


def gradients(loss, vae):
    return torch.autograd.grad(loss, list(vae.parameters()))


def fast_gradients(vae, data, first_order):
    torch.manual_seed(1)  # the noise of the problem
    return gradients(LocalELBO(OneStepMAP(first_order)).differentiable_loss(vae.model, vae.guide, *data[:2]), vae)


every_step = pytest.mark.parametrize("first_order", [False, True])
every_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)


@every_step
@every_likelihood
def test_the_step_is_a_loop_over_tasks(likelihood, first_order, double):
    vae, data = problem(likelihood, "relu")
    exact = gradients(looped(vae, *data, first_order), vae)
    assert max(errors(fast_gradients(vae, data, first_order), exact)) < 1e-9
    assert all(slope.norm() > 0 for slope in exact)


@every_step
@every_likelihood
def test_in_single_precision_it_rounds_like_the_loop(likelihood, first_order):
    """With a smooth activation: a ReLU whose input rounds to the other side of 0 moves the gradient by far more."""
    vae, data = problem(likelihood, "tanh")
    slow, fast = gradients(looped(vae, *data, first_order), vae), fast_gradients(vae, data, first_order)
    exact = gradients(looped(vae.double(), *(t.double() for t in data), first_order), vae)
    assert_rounds_like(fast, slow, exact)


@every_step
@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("neighbours", [1, 5])
def test_so_it_is_for_any_number_of_points(neighbours, points, first_order, double):
    vae, data = problem("bernoulli", "relu", neighbours, points)
    exact = gradients(looped(vae, *data, first_order), vae)
    assert max(errors(fast_gradients(vae, data, first_order), exact)) < 1e-9


def computed(monkeypatch, vae, data):
    """The shapes of the local weights and gradients that a step has the values of, by whether they are flat vectors."""
    shapes = {True: [], False: []}
    each = Lazy.each

    def watched(self):
        shapes[self.flat].append(tuple(self.shape))
        return each(self)

    with monkeypatch.context() as patch:
        patch.setattr(Lazy, "each", watched)
        LocalELBO(OneStepMAP()).differentiable_loss(vae.model, vae.guide, *data[:2]).backward()
    return shapes


def test_no_dense_layer_has_local_weights_in_memory(monkeypatch):
    """Nor its gradient: those of large convolutions alone do, layer by layer."""
    vae, data = problem("bernoulli", "relu", neighbours=1)
    shapes = computed(monkeypatch, vae, data)
    assert shapes[True] == []
    assert {len(shape) for shape in shapes[False]} == {5}


def test_whoever_looks_at_local_weights_sees_them(monkeypatch, double):
    vae, data = problem("bernoulli", "relu", neighbours=1)
    torch.manual_seed(1)
    posterior = LocalELBO(OneStepMAP()).local_posterior(vae.model, vae.guide, data[1])
    seen = posterior["theta_N"].mean
    assert isinstance(seen, Lazy)
    for i in range(B):
        slope = torch.autograd.grad(negative_elbo(vae, vae.theta, vae.phi, data[1][i], data[2][i]), vae.theta)[0]
        torch.testing.assert_close(seen[i, 0], vae.theta - vae.tau**2 * slope, rtol=1e-9, atol=1e-12)


class Blind(TorchDispatchMode):
    """Refuse operators whose result, or whose shape, must be known to Python: a CUDA graph could not hold them."""

    REFUSED = (
        "_linalg_check_errors",
        "_linalg_eigh",
        "_local_scalar_dense",
        "item",
        "nonzero",
        "masked_select",
        "is_nonzero",
        "equal",
        "unique",
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name.rstrip("_") not in self.REFUSED, f"{func} looks at the numbers"
        if name.startswith("index"):
            assert not any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in args[1] or ()), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("local", [*LOCAL_INFERENCE, "first-order"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_step_does_not_look_at_its_numbers(local, likelihood):
    """Nor do those that say so: they are not captured."""
    inference = OneStepMAP(first_order=True) if local == "first-order" else resolve_name(LOCAL_INFERENCE[local])()
    vae = LocalVAE(0.0 if local == "shared" else 1e-3, K, (1, 8, 8), D, likelihood, **layers_for(local))
    query, support = torch.rand(B, 1, 8, 8), torch.rand(B, K, 1, 8, 8)
    looks = pytest.raises(AssertionError, match="looks at the numbers")
    with pyro.validation_enabled(False), nullcontext() if getattr(inference, "capturable", True) else looks, Blind():
        LocalELBO(inference).differentiable_loss(vae.model, vae.guide, query, support).backward()
        assert vae.theta.grad is not None


def test_such_looks_are_noticed():
    with Blind(), pytest.raises(AssertionError, match="looks at the numbers"):
        torch.ones(1).item()


def test_one_set_of_weights_is_one_neighbourhood():
    """With α = 0 nothing of the size of B sets of weights is made."""
    vae = LocalVAE(0.0, K, (1, 8, 8), D)

    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.largest = max(self.largest, result.untyped_storage().nbytes() // result.element_size())
            return result

    with Sizes() as sizes:
        LocalELBO(Shared()).differentiable_loss(vae.model, vae.guide, torch.rand(B, 1, 8, 8), None).backward()
    assert sizes.largest <= vae.phi.numel()
