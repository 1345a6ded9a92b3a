"""The bilinear forms of our layers: dense, convolution, transposed convolution.

All convolutions are 4 × 4 with stride 2 and padding 1. A form is also a matrix product on rows: with rows x_r and y_r
of the two feature maps, one for each point and each position in the smaller map,

    T(x, W, y) = Σ_r ⟨y_r, W x_r⟩,              ∂T/∂W = Σ_r y_r x_rᵀ,

where a row of the larger map is the patch that the kernel covers at that position.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from hierarchical_lvae.models.lazy import is_shared

KERNEL, STRIDE, PADDING = 4, 2, 1


class Places:
    """One row for each point and position."""

    def split(self, v: Tensor) -> Tensor:
        """(K, G, C, *size) → (G, K·positions, C)."""
        return v.reshape(*v.shape[:3], -1).permute(1, 0, 3, 2).flatten(1, 2)

    def join(self, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(G, K·positions, C) → (K, G, C, *size)."""
        return rows.unflatten(1, (shape[0], -1)).permute(1, 0, 3, 2).reshape(shape)


class Patches:
    """One row for each point and position of the kernel: the patch that it covers, as (4, 4, C).

    (On channels-last maps, `F.unfold` takes ten times as long and `F.fold` six times as long.)
    """

    def split(self, v: Tensor) -> Tensor:
        """(K, G, C, H, W) → (G, K·positions, 4·4·C)."""
        padded = F.pad(v.permute(1, 0, 3, 4, 2), (0, 0, *[PADDING] * 4))
        return padded.unfold(2, KERNEL, STRIDE).unfold(3, KERNEL, STRIDE).movedim(4, -1).flatten(4).flatten(1, 3)

    def join(self, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(G, K·positions, 4·4·C) → (K, G, C, H, W), summing overlapping patches."""
        points, groups, channels, height, width = shape
        h, w = height // STRIDE, width // STRIDE
        patches = rows.reshape(groups, points, h, w, 2, STRIDE, 2, STRIDE, channels)
        padded = rows.new_zeros(groups, points, h + 1, STRIDE, w + 1, STRIDE, channels)
        for i, j in product((0, 1), repeat=2):  # the kernel is two strides wide, so it covers two blocks per dimension
            padded[:, :, i : i + h, :, j : j + w].add_(patches[:, :, :, :, i, :, j].transpose(3, 4))
        inside = padded.flatten(4, 5).flatten(2, 3)[:, :, PADDING : PADDING + height, PADDING : PADDING + width]
        return inside.permute(1, 0, 4, 2, 3)


Rows = Places | Patches
"""How a feature map (K, G, …) becomes the rows of a matrix, (G, rows, columns); `join` is the adjoint of `split`."""


class Dense:
    """The form T of a dense layer: x (K, G, I), W (G, O, I), y (K, G, O)."""

    x: Rows = Places()
    y: Rows = Places()

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b."""
        if is_shared(weight):
            return F.linear(x, weight[0], None if bias is None else bias[0])
        x, weight = x.transpose(0, 1), weight.transpose(1, 2)
        y = torch.bmm(x, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight)
        return y.transpose(0, 1)

    def input(self, y: Tensor, weight: Tensor) -> Tensor:
        """Wᵀ y."""
        return y @ weight[0] if is_shared(weight) else torch.bmm(y.transpose(0, 1), weight).transpose(0, 1)

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ_k y xᵀ."""
        return torch.bmm(y.permute(1, 2, 0), x.transpose(0, 1))

    def bias(self, y: Tensor) -> Tensor:
        """Σ_k y."""
        return _sum_of_points(y)

    def grouped(self, x: Tensor) -> Tensor:
        """Any order will do."""
        return x


class Convolution:
    """The form T of a 4 × 4 convolution, stride 2: x (K, G, C, *size), W (G, O, C, 4, 4), y (K, G, O, *(size // 2)).

    The memory layout of activations is (K, G, H, W, C), channels last; for local weights it is (K, H, W, G, C), as for
    a convolution with G groups. (On two cores a copy is cheap, and other layouts take up to four times as long.)
    """

    x: Rows = Patches()
    y: Rows = Places()

    def __init__(self, size: tuple[int, ...]) -> None:
        self.odd = [side % 2 for side in size]

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b."""
        images, kernels, biases, groups = _merged(x, weight, bias)
        return _parted(F.conv2d(images, kernels, biases, STRIDE, PADDING, groups=groups), x)

    def input(self, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Wᵀ y, plus a bias if given: with a bias this is the output of the transposed convolution."""
        maps, kernels, biases, groups = _merged(y, weight, bias)
        return _parted(F.conv_transpose2d(maps, kernels, biases, STRIDE, PADDING, self.odd, groups), y)

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ y xᵀ over points and places: (G, O, C, 4, 4)."""
        groups, inputs, outputs = x.shape[1], x.shape[2], y.shape[2]
        like = x.new_empty(1).expand(groups * outputs, inputs, KERNEL, KERNEL)  # only its shape is used
        sides = [STRIDE] * 2, [PADDING] * 2, [1, 1], False, [0, 0]
        wanted = [False, True, False]
        gradient = torch.ops.aten.convolution_backward
        kernels = gradient(_in_groups(y), _in_groups(x), like, None, *sides, groups, wanted)[1]
        return kernels.unflatten(0, (groups, outputs))

    def bias(self, y: Tensor) -> Tensor:
        """Σ y over points and places."""
        return _sum_of_points(y.sum((3, 4)))

    def grouped(self, x: Tensor) -> Tensor:
        """(K, G, C, H, W), stored as (K, H, W, G, C)."""
        return x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)


class ProductConvolution(Convolution):
    """A `Convolution` that applies local weights as matrix products, for GPUs.

    On an H100 a step with `noise-mean` took 3.9 ms this way and 9.0 ms with cuDNN's grouped convolutions.
    """

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b."""
        if is_shared(weight):
            return super().output(x, weight, bias)
        patches, matrices = Patches().split(x), _matrices(weight).mT
        rows = torch.bmm(patches, matrices) if bias is None else torch.baddbmm(bias.unsqueeze(1), patches, matrices)
        sides = [side // STRIDE for side in x.shape[3:]]
        return Places().join(rows, (*x.shape[:2], rows.shape[2], *sides))

    def input(self, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Wᵀ y, plus a bias if given."""
        if is_shared(weight):
            return super().input(y, weight, bias)
        return _input_by_products(y, weight, bias, self.odd)

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ y xᵀ over points and places: (G, O, C, 4, 4)."""
        if x.shape[1] == 1:
            return super().weight(x, y)
        matrices = torch.bmm(Places().split(y).mT, Patches().split(x))
        return matrices.unflatten(2, (KERNEL, KERNEL, x.shape[2])).permute(0, 1, 4, 2, 3)

    def grouped(self, x: Tensor) -> Tensor:
        """Any order will do."""
        return x


class Upconvolution(Convolution):
    """The form T of the transposed convolution: that of a convolution with x and y swapped.

    x is (K, G, C, *(size // 2)), W (G, C, O, 4, 4), y (K, G, O, *size).
    """

    x: Rows = Places()
    y: Rows = Patches()

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b.

        Matrix products are used for single points, because the grouped transposed convolution is slow on a CPU if 16
        divides the number of groups: the last layer of 32 images of 32 × 32 pixels takes 6 ms instead of 1.
        """
        if len(x) == 1 and not is_shared(weight):
            return _input_by_products(x, weight, bias, self.odd)
        return super().input(x, weight, bias)

    def input(self, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Wᵀ y."""
        return super().output(y, weight, bias)

    def weight(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ y xᵀ over points and places: (G, C, O, 4, 4)."""
        return super().weight(y, x)


class ProductUpconvolution(Upconvolution, ProductConvolution):
    """The form T of the transposed convolution, computed by `ProductConvolution`."""


Form = Dense | Convolution
"""The partial derivatives of T: with respect to y (`output`, plus b), x (`input`), W (`weight`) and b (`bias`).

`x` and `y` are the rows of its feature maps. `grouped` gives a map the memory layout that suits local weights."""


def convolution(x: Tensor, size: tuple[int, ...], up: bool = False) -> Convolution:
    """The form of a convolution whose larger map has this size, in the implementation that is fast on x's device."""
    if by_products(x):
        return (ProductUpconvolution if up else ProductConvolution)(size)
    return (Upconvolution if up else Convolution)(size)


def by_products(x: Tensor) -> bool:
    """Whether to apply local weights as matrix products: yes on a GPU, no on a CPU."""
    return x.is_cuda


def _sum_of_points(y: Tensor) -> Tensor:
    return y[0] if len(y) == 1 else y.sum(0)


def _input_by_products(y: Tensor, weight: Tensor, bias: Tensor | None, odd: list[int]) -> Tensor:
    """`Convolution.input` for local weights, as matrix products."""
    rows = torch.bmm(Places().split(y), _matrices(weight))
    sides = [STRIDE * side + rest for side, rest in zip(y.shape[3:], odd, strict=True)]
    x = Patches().join(rows, (*y.shape[:2], weight.shape[2], *sides))
    return x if bias is None else x + bias[:, :, None, None]


def _matrices(weight: Tensor) -> Tensor:
    """Kernels (G, O, C, 4, 4) as matrices (G, O, 4·4·C), with columns ordered as in `Patches`."""
    return weight.permute(0, 1, 3, 4, 2).flatten(2)


def _merged(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """The arguments of a convolution: with G groups or, if the weights are shared, over K·G images."""
    if is_shared(weight):
        images, kernels = (v.contiguous(memory_format=torch.channels_last) for v in (x.flatten(0, 1), weight[0]))
        return images, kernels, None if bias is None else bias[0], 1
    kernels = weight.permute(0, 1, 3, 4, 2).contiguous().flatten(0, 1).permute(0, 3, 1, 2)
    return _in_groups(x), kernels, None if bias is None else bias.flatten(), len(weight)


def _in_groups(x: Tensor) -> Tensor:
    """(K, G, C, H, W) → (K, G·C, H, W), channels last."""
    return x.permute(0, 3, 4, 1, 2).contiguous().flatten(3, 4).permute(0, 3, 1, 2)


def _parted(maps: Tensor, like: Tensor) -> Tensor:
    """The result of a convolution as (K, G, O, H, W), stored as (K, G, H, W, O)."""
    points, groups = like.shape[:2]
    if len(maps) == points * groups:
        return maps.unflatten(0, (points, groups))
    return maps.unflatten(1, (groups, -1)).permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
