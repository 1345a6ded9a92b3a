"""The paper's figures, from tensors."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def conditional_samples(references: Tensor, samples: Tensor, title: str) -> "Figure":
    """Figure 3: each row a reference image and what its local decoder makes of the codes that all rows share.

    Args:
        references: (R, C, H, W), pixels in [0, 1].
        samples: (R, S, C, H, W); column s is the same code in each row.
        title: what was trained, on what: names the data and the protocol.
    """
    from matplotlib.figure import Figure

    rows, columns = samples.shape[:2]
    figure = Figure(figsize=(0.9 * (columns + 1.4), 0.9 * rows + 1.0), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.25, columns])[0]
    for part, images, label in (
        (left, references.unsqueeze(1), "reference"),
        (right, samples, f"its local decoder, at {columns} codes that all rows share"),
    ):
        part.suptitle(label, fontsize=9)
        axes = part.subplots(rows, images.shape[1], squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
        for ax, image in zip(axes.flat, images.flatten(0, 1), strict=True):
            show_image(ax, image)
    return figure


def show_image(ax: "Axes", image: Tensor) -> None:
    """Draw one image (C, H, W), C of 1 or 3, pixels in [0, 1], without axes."""
    pixels = torch.movedim(image, 0, -1).clamp(0, 1).cpu().numpy()
    ax.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
