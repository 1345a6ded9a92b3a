"""The networks of the paper's Table 3, for images of any size, with local weights in one flat vector.

    encoder   C×H×W → 4×4 conv (32, 32, 64, 64), stride 2 → 256 → 2·D (the mean, then log σ)
    decoder   D → 256 → 64·h·w → 4×4 upconv (64, 32, 32, C), stride 2

Depth depends on image size: an image is halved as long as its shorter side is at least 8 pixels, four times for
64 × 64. The last two convolutions have 64 channels, earlier ones 32, and the decoder mirrors the encoder. For 64×64×3
and D = 10 there are 766,295 parameters. Weights are Glorot-uniform and biases zero, as in Locatello et al. (2019),
whose protocol the paper follows.
"""

from collections.abc import Collection
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from hierarchical_lvae.layout import ParameterLayout
from hierarchical_lvae.models import ACTIVATIONS
from hierarchical_lvae.models.layers import Activation, Conv, Linear, Reshape, Shape, UpConv
from hierarchical_lvae.models.lazy import split
from hierarchical_lvae.types import lookup

WIDTH = 256
Layer = Linear | Conv | UpConv | Activation | Reshape


class Network:
    """Layers in sequence, as a function of inputs and of one flat vector of weights per neighbourhood.

    Args:
        layers: applied in order.
        event_dim: dimensions of one input point: 1 for a code, 3 for an image.
        local: names of the parameters in that vector, such as "9.weight"; all if None. All neighbourhoods share the
            others, which are passed in a separate vector.

    >>> network = Network([Linear(4, 8), Activation(torch.tanh), Linear(8, 2)], event_dim=1)
    >>> flat = network.initial_parameters()[0].expand(5, 1, -1)  # five neighbourhoods with equal weights
    >>> network(torch.zeros(5, 3, 4), flat).shape             # three points in each
    torch.Size([5, 3, 2])
    """

    def __init__(self, layers: list[Layer], event_dim: int, local: Collection[str] | None = None) -> None:
        self.layers = layers
        self.event_dim = event_dim
        shapes = {f"{i}.{name}": shape for i, layer in enumerate(layers) for name, shape in layer.shapes.items()}
        self.whole = ParameterLayout(shapes)
        """All parameters."""
        self.layout = ParameterLayout({name: shape for name, shape in shapes.items() if local is None or name in local})
        """The local ones: P numbers."""
        self.shared = ParameterLayout({n: shape for n, shape in shapes.items() if n not in self.layout.shapes})
        """The others: S numbers."""

    def __call__(self, inputs: Tensor, flat: Tensor, shared: Tensor | None = None) -> Tensor:
        """Apply each neighbourhood's weights to its points.

        Args:
            inputs: (..., K, *event), K points in each neighbourhood.
            flat: (..., 1, P), the local weights of each neighbourhood. Leading dimensions broadcast.
            shared: (S,), the weights that all neighbourhoods share, if there are any.

        Returns:
            (..., K, *event'), the output of the last layer for each point.
        """
        event = inputs.shape[inputs.dim() - self.event_dim :]
        batch = torch.broadcast_shapes(inputs.shape[: -self.event_dim], flat.shape[:-1])
        # with a single set of weights, all points form one neighbourhood
        groups = 1 if flat.numel() == self.layout.size else prod(batch[:-1])
        x = inputs.expand(*batch, *event).reshape(groups, -1, *event).transpose(0, 1)
        if groups > 1:
            flat = flat.expand(*batch[:-1], 1, self.layout.size)
        weights = split(flat, self.layout, groups)
        if shared is not None and self.shared.size:
            weights |= split(shared.expand(groups, -1), self.shared, groups)
        for i, layer in enumerate(self.layers):
            x = layer(x, **{name: weights[f"{i}.{name}"] for name in layer.shapes})
        return x.transpose(0, 1).reshape(*batch, *x.shape[2:])

    def initial_parameters(self) -> tuple[Tensor, Tensor]:
        """Draw Glorot-uniform weights and zero biases: the local ones, (P,), and the shared ones, (S,)."""
        values = {name: torch.zeros(shape) for name, shape in self.whole.shapes.items()}
        for value in values.values():
            if value.dim() > 1:
                torch.nn.init.xavier_uniform_(value)
        local, shared = (
            torch.cat([torch.zeros(0), *(values[name].flatten() for name in layout.shapes)])
            for layout in (self.layout, self.shared)
        )
        return local, shared


def encoder(image_shape: Shape, latent_dim: int, activation: str = "relu") -> Network:
    """Build the encoder: images (C, H, W) → (2·D,), the mean and the log standard deviation of the code.

    Raises:
        ValueError: `image_shape` does not have 1 or 3 channels and sides of at least 8, or `activation` is unknown.
    """
    act = Activation(lookup(ACTIVATIONS, activation, "activation"))
    sizes, channels = _pyramid(image_shape)
    layers: list[Layer] = []
    for inputs, outputs in pairwise([image_shape[0], *channels]):
        layers += [Conv(inputs, outputs), act]
    features = channels[-1] * prod(sizes[-1])
    layers += [Reshape((features,)), Linear(features, WIDTH), act, Linear(WIDTH, 2 * latent_dim)]
    return Network(layers, event_dim=3)


def decoder(image_shape: Shape, latent_dim: int, activation: str = "relu") -> Network:
    """Build the decoder: codes (D,) → (C, H, W), the likelihood's input for each pixel (logits or means).

    Raises:
        ValueError: as for `encoder`.
    """
    act = Activation(lookup(ACTIVATIONS, activation, "activation"))
    sizes, channels = _pyramid(image_shape)
    smallest = (channels[-1], *sizes[-1])
    layers: list[Layer] = [
        Linear(latent_dim, WIDTH),
        act,
        Linear(WIDTH, prod(smallest)),
        act,
        Reshape(smallest),
    ]
    upwards = pairwise([*reversed(channels), image_shape[0]])
    for (inputs, outputs), size in zip(upwards, reversed(sizes[:-1]), strict=True):
        layers += [UpConv(inputs, outputs, size), act]
    return Network(layers[:-1], event_dim=1)


def _pyramid(image_shape: Shape) -> tuple[list[tuple[int, int]], list[int]]:
    """The sizes of the feature maps, starting with the image's, and the channels of each map after the first."""
    if len(image_shape) != 3:
        raise ValueError(f"image_shape is {image_shape}: give (C, H, W)")
    channels, height, width = image_shape
    if channels not in (1, 3) or min(height, width) < 8:
        raise ValueError(f"image_shape is {image_shape}: it needs 1 or 3 channels and sides of at least 8 pixels")
    sizes = [(height, width)]
    while min(sizes[-1]) >= 8:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    depth = len(sizes) - 1
    return sizes, [32] * (depth - 2) + [64] * min(depth, 2)
