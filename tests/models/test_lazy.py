"""Sums of products that are computed only when needed, against the same sums computed at once."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from hierarchical_lvae.layout import ParameterLayout
from hierarchical_lvae.models.lazy import Lazy, Product, Sum, split

K, G, I, O = 2, 3, 5, 4  # noqa: E741
LAYOUT = ParameterLayout({"weight": (O, I), "bias": (O,)})


def outer(x, y):
    return torch.einsum("kgi,kgo->goi", x, y)


def lazy(flat=False):
    """A weight (G, O, I), or with a bias as one vector (G, 1, P); and the same as an ordinary tensor."""
    x, y, bias = torch.randn(K, G, I), torch.randn(K, G, O), torch.randn(G, O)
    sums = [Sum((O, I), products=((None, Product(outer, x, y)),)), Sum((O,), (bias,))]
    if flat:
        return Lazy((G, 1), sums, flat=True), torch.cat([outer(x, y).flatten(1), bias], 1).unsqueeze(1)
    return Lazy((G,), sums[:1]), outer(x, y)


STAY = [
    lambda x, like: x + x,
    lambda x, like: like + x,
    lambda x, like: x + like[:1].expand(like.shape),
    lambda x, like: x * 2 * torch.tensor(3.0),
    lambda x, like: x * torch.full((1, 1), 2.0),
    lambda x, like: torch.addcmul(like, torch.full((1,), 0.1), x, value=-1),
    lambda x, like: x.expand(x.shape),
    lambda x, like: x.detach(),
]
USES = [
    lambda x, like: x + 1,
    lambda x, like: x * like,
    lambda x, like: x * torch.tensor([2.0], dtype=torch.float32),
    lambda x, like: x + like.float(),
    lambda x, like: torch.add(x, x, alpha=3),
    lambda x, like: x - x / 2,
    lambda x, like: x[1],
    lambda x, like: x.sum(),
    lambda x, like: x.sum(-1),
    lambda x, like: x.sum(0, dtype=torch.float32),
    lambda x, like: torch.cat([x, x]),
    lambda x, like: x.expand(2, *x.shape),
]


@pytest.mark.parametrize("flat", [False, True], ids=["one", "flat"])
@pytest.mark.parametrize("use", STAY)
def test_what_stays_lazy(use, flat, double):
    x, dense = lazy(flat)
    used = use(x, dense)
    assert isinstance(used, Lazy)
    assert x.made is None
    dims = tuple(range(len(x.leading)))
    for keep in (False, True):
        total = used.sum(dims, keepdim=keep)
        torch.testing.assert_close(total, use(dense, dense).sum(dims, keepdim=keep))
    assert used.made is None
    torch.testing.assert_close(used.clone(), use(dense, dense))


@pytest.mark.parametrize("flat", [False, True], ids=["one", "flat"])
@pytest.mark.parametrize("use", USES)
def test_other_uses_compute_it_once(use, flat, double):
    x, dense = lazy(flat)
    used = use(x, dense)
    assert not isinstance(used, Lazy)
    torch.testing.assert_close(used, use(dense, dense))
    once = x.made
    assert once is not None
    torch.testing.assert_close(x * 2, dense * 2)
    assert x.made is once


def test_what_was_changed_in_place_stays_changed_and_alone(double):
    x, dense = lazy()
    twice = x + x
    x.mul_(2)
    torch.testing.assert_close(x.sum(0), dense.sum(0) * 2)
    torch.testing.assert_close(twice.clone(), dense * 2)
    assert repr(x) == repr(dense * 2)


def test_an_entry_can_be_set(double):
    x, dense = lazy()
    x[0, 1, 2] = dense[0, 1, 2] = 7.0
    assert torch.equal(x * 1, dense)


@pytest.mark.parametrize(
    "use",
    [
        Tensor.tolist,
        Tensor.numpy,
        np.asarray,
        np.from_dlpack,
        torch.from_dlpack,
        deepcopy,
        lambda x: pickle.loads(pickle.dumps(x)),
        lambda x: Tensor.share_memory_(x),
        lambda x: x.detach(),
        lambda x: x.to(torch.float64),
    ],
)
def test_what_reads_memory_reads_the_values(use, double):
    x, dense = lazy()
    assert np.array_equal(np.asarray(use(x)), dense.numpy())
    assert x.data_ptr() == x.dense().data_ptr() != 0


def test_a_sum_of_what_was_computed_is_not_computed_again(double):
    x, dense = lazy()
    (x * 2).clone()
    x.sums[0].products[0][1].weight = None
    torch.testing.assert_close(x.sum(0), dense.sum(0))


def test_split_is_the_layouts(double):
    flat = torch.randn(G, 1, LAYOUT.size).requires_grad_()
    ours, theirs = split(flat, LAYOUT, G), LAYOUT.split(flat.squeeze(1))
    assert all(torch.equal(ours[name], theirs[name]) for name in LAYOUT.shapes)
    assert gradcheck(lambda f: tuple(split(f, LAYOUT, G).values()), flat)
    assert gradgradcheck(lambda f: tuple(v.square() for v in split(f, LAYOUT, G).values()), flat)


def test_parts_of_what_is_lazy_are_lazy(double):
    x, dense = lazy(flat=True)
    parts = split(x, LAYOUT, G)
    assert [isinstance(p, Lazy) for p in parts.values()] == [True, False]
    for name, part in LAYOUT.split(dense.squeeze(1)).items():
        torch.testing.assert_close(parts[name].clone(), part)
    assert x.made is None


def test_another_layout_cuts_the_values(double):
    x, dense = lazy(flat=True)
    other = ParameterLayout({"weight": (I, O), "bias": (O,)})
    assert torch.equal(split(x, other, G)["weight"], other.split(dense.squeeze(1))["weight"])
