"""Networks applied to many neighbourhoods at once, against PyTorch's own layers one neighbourhood at a time."""

import pytest
import torch
import torch.nn.functional as F

from hierarchical_lvae.models.layers import Conv, Linear, UpConv
from hierarchical_lvae.models.networks import decoder, encoder

K, G = 3, 4


def test_table_3_has_its_parameters():
    assert encoder((3, 64, 64), 10).layout.size == 383_956
    assert decoder((3, 64, 64), 10).layout.size == 382_339


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (12, 40)])
@pytest.mark.parametrize(
    ("layer", "slow"),
    [
        (Conv(2, 3), lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1)),
        (Linear(5, 3), F.linear),
    ],
    ids=["conv", "linear"],
)
def test_a_layer_is_a_loop_over_neighbourhoods(layer, slow, size, double):
    weight, bias = (torch.randn(G, *shape) for shape in layer.shapes.values())
    x = torch.randn(K, G, 2, *size) if isinstance(layer, Conv) else torch.randn(K, G, 5)
    looped = torch.stack([slow(x[:, g], weight[g], bias[g]) for g in range(G)], dim=1)
    torch.testing.assert_close(layer(x, weight, bias), looped)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (12, 41)])
def test_an_upconv_is_the_adjoint_of_the_conv_of_its_size(size, double):
    up, down = UpConv(3, 2, size), Conv(2, 3)
    weight = torch.randn(G, *up.shapes["weight"])
    small, large = torch.randn(K, G, 3, size[0] // 2, size[1] // 2), torch.randn(K, G, 2, *size)
    upped = up(small, weight, torch.zeros(G, 2))
    assert upped.shape == large.shape
    torch.testing.assert_close((upped * large).sum(), (small * down(large, weight, torch.zeros(G, 3))).sum())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 64, 64), (3, 32, 32), (1, 28, 28), (3, 17, 50), (1, 128, 96)])
def test_depth_follows_size(shape):
    enc, dec = encoder(shape, 6), decoder(shape, 6)
    x, z = torch.rand(G, K, *shape), torch.randn(G, K, 6)
    assert enc(x, enc.initial_parameters()[0].expand(G, 1, -1)).shape == (G, K, 12)
    assert dec(z, dec.initial_parameters()[0].expand(G, 1, -1)).shape == (G, K, *shape)


@pytest.mark.parametrize("shape", [(2, 64, 64), (3, 7, 64), (3, 64, 4)])
def test_impossible_images_are_refused(shape):
    with pytest.raises(ValueError, match="sides of at least 8"):
        encoder(shape, 6)


def test_neighbourhoods_have_their_own_weights(double):
    enc = encoder((1, 8, 8), 3)
    flat = torch.stack([enc.initial_parameters()[0] for _ in range(G)]).unsqueeze(1)
    x = torch.rand(G, K, 1, 8, 8)
    together = enc(x, flat)
    for g in range(G):
        torch.testing.assert_close(together[g], enc(x[g : g + 1], flat[g : g + 1])[0])
    assert (together - enc(x, flat.flip(0))).abs().max() > 1e-3


def test_leading_dimensions_broadcast(double):
    dec = decoder((1, 8, 8), 3)
    flat = torch.stack([dec.initial_parameters()[0] for _ in range(G)]).unsqueeze(1)
    z = torch.randn(5, 1, K, 3)
    y = dec(z, flat)
    assert y.shape == (5, G, K, 1, 8, 8)
    torch.testing.assert_close(y[2, 1], dec(z[2], flat[1:2])[0])


def test_weights_are_glorot_uniform_and_biases_zero():
    enc = encoder((3, 64, 64), 10)
    parts = list(enc.layout.split(enc.initial_parameters()[0]).values())
    first, bias = parts[0], parts[1]
    limit = (6 / (16 * 3 + 16 * 32)) ** 0.5
    assert 0.99 * limit < first.abs().max() <= limit
    assert limit == pytest.approx(0.1035, abs=1e-4)
    assert first.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert bias.abs().max() == 0
