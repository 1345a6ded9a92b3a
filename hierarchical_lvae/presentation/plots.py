"""The paper's figures and training diagnostics, drawn from tensors and log lines.

A `title` states what was trained, and on which data. Titles, rows, columns and names of factors and methods are drawn
verbatim: a `$` in a folder's name does not start mathematics.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERBATIM: dict[str, Any] = {"parse_math": False}
"""Matplotlib arguments for text that may contain user input."""
LABEL = 12
"""Characters per line of a label, which has at most three lines."""


def conditional_prior_samples(samples: Tensor, title: str, local: bool = True) -> "Figure":
    """Draw Figure 2: codes from p(z), each decoded with the local weights of another random reference.

    Args:
        samples: (R, S, C, H, W), pixels in [0, 1].
        local: whether there are local weights; a plain VAE has none.
    """
    label = "random codes, each decoded with the local weights of another random reference"
    return image_grid(samples, title, label=label if local else "random codes, decoded")


def conditional_samples(references: Tensor, samples: Tensor, title: str, local: bool = True) -> "Figure":
    """Draw Figure 3: in each row a reference, and codes that all rows share, decoded with its local weights.

    Args:
        references: (R, C, H, W), pixels in [0, 1].
        samples: (R, S, C, H, W); column s is the same code in each row.
        local: whether there are local weights; the rows of a plain VAE are equal.
    """
    how = "decoded with the local weights of the reference" if local else "decoded (no weights are local)"
    label = f"{samples.shape[1]} codes that all rows share, {how}"
    return image_grid(samples, title, lead=references, lead_label="reference", label=label)


def latent_sweep(reference: Tensor, samples: Tensor, values: Sequence[float], title: str) -> "Figure":
    """Draw Figure 4: in each row one latent is swept over `values`, the others stay at the code of the reference.

    Args:
        reference: (C, H, W), the image whose code and local decoder are used.
        samples: (D, S, C, H, W), one row per latent.
        values: the S values of the swept latent.
    """
    rows = [f"$z_{{{i + 1}}}$" for i in range(len(samples))]
    columns = [f"{value:g}" for value in values]
    label = "one latent swept per row, the others fixed at the code of the reference"
    lead = _above_white(reference, len(rows))
    return image_grid(samples, title, lead, "reference", label=label, rows=rows, columns=columns, math=True)


def reconstructions(images: Tensor, neighbours: Tensor, meta: Tensor, local: Tensor, title: str) -> "Figure":
    """Show the effect of the adaptation: images, a neighbour of each, and reconstructions before and after it.

    Args:
        images, neighbours: (S, C, H, W), pixels in [0, 1].
        meta, local: (S, C, H, W), reconstructions with the meta-parameters and with the local ones.
    """
    rows = ["image", "neighbour", "meta", "local"]
    return image_grid(torch.stack([images, neighbours, meta, local]), title, rows=rows)


def predictive_deviation(
    references: Tensor, means: Mapping[str, Tensor], deviations: Mapping[str, Tensor], title: str
) -> "Figure":
    """Show where each local posterior is uncertain: predicted pixel means, and their deviation over its draws.

    Args:
        references: (R, C, H, W), pixels in [0, 1].
        means: by method, (R, C, H, W).
        deviations: standard deviations by method, where there are several draws, (R, C, H, W). They are averaged over
            channels and share one colour scale.
    """
    columns = [
        "reference", *(f"{_label(m)}\nmean" for m in means), *(f"{_label(m)}\ndeviation" for m in deviations)
    ]  # fmt: skip
    images = [references, *means.values()]
    figure = _figure(1.25 * len(columns) + 0.8, 1.15 * len(references) + 1.2, title)
    axes = figure.subplots(len(references), len(columns), squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    largest = max(float(d.mean(1).max()) for d in deviations.values())
    for row, line in enumerate(axes):
        for ax, image in zip(line, images, strict=False):
            _show(ax, image[row])
        for ax, deviation in zip(line[len(images) :], deviations.values(), strict=True):
            shown = ax.imshow(deviation[row].mean(0).cpu().numpy(), cmap="magma", vmin=0, vmax=largest)
            ax.set_axis_off()
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=7, pad=3, **VERBATIM)
    bar = figure.colorbar(shown, ax=axes[:, -1].tolist(), shrink=0.6)
    bar.ax.tick_params(labelsize=7)
    return figure


def posterior_draws(reference: Tensor, samples: Mapping[str, Tensor], title: str, number: int = 10) -> "Figure":
    """Show reconstructions of one image with single draws of the local weights: a row per method, a column per draw.

    Args:
        reference: (C, H, W), pixels in [0, 1].
        samples: by method, predicted pixel means at each draw, (S, C, H, W).
        number: how many draws to show.
    """
    images = torch.stack([drawn[:number] for drawn in samples.values()])
    label = "reconstructions with single draws of the local weights"
    return image_grid(images, title, _above_white(reference, len(images)), "reference", label, rows=list(samples))


def importance(importance: np.ndarray, factors: Sequence[str], title: str) -> "Figure":
    """Draw the DCI importances (D, F) as a heat map; each column sums to 1."""
    codes = [f"$z_{{{i + 1}}}$" for i in range(len(importance))]
    figure = _figure(max(4.5, 1.6 + 0.9 * len(factors)), 2.2 + 0.32 * len(codes), title, 8)
    ax = figure.add_subplot(title="importance of each code for each factor")
    ax.title.set_fontsize(9)
    shown = ax.imshow(importance, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(factors)), [_label(name) for name in factors], fontsize=8, **VERBATIM)
    ax.set_yticks(range(len(codes)), codes, fontsize=8)
    for (i, k), value in np.ndenumerate(importance):
        if value >= 0.005:
            colour = "white" if value > 0.5 else "black"
            ax.text(k, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(shown, ax=ax, shrink=0.7)
    return figure


def values_by_row(panels: Mapping[str, Sequence[tuple[str, Sequence[float], float | None]]], title: str) -> "Figure":
    """Draw one panel per score; in it, for each row of a table, a dot per seed, their mean, and the paper's value.

    Args:
        panels: by score, for each row its label, the values of its seeds, and the published value or None.
    """
    across = min(len(panels), 4)
    down = math.ceil(len(panels) / across)
    rows = max(map(len, panels.values()))
    figure = _figure(3.2 * across, (1.2 + 0.28 * rows) * down + 0.8, title)
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (name, found) in zip(axes.flat, panels.items(), strict=False):
        for place, (_, values, published) in enumerate(found):
            ax.plot(values, [place] * len(values), "o", color="black", markersize=4, alpha=0.5, label="a seed")
            if values:
                ax.plot([np.mean(values)], [place], "|", color="black", markersize=14, label="their mean")
            if published is not None:
                ax.plot([published], [place], "D", color="C1", markersize=5, fillstyle="none", label="the paper")
        ax.set_yticks(range(len(found)), [label for label, *_ in found], fontsize=8, **VERBATIM)
        ax.set_ylim(rows - 0.5, -0.5)
        ax.set_title("\n".join(textwrap.wrap(name, 32)), fontsize=9)
        ax.tick_params(axis="x", labelsize=8)
        ax.grid(alpha=0.3)
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def training_curves(log: Sequence[Mapping[str, Any]], title: str) -> "Figure":
    """Draw loss, gradient norm and adaptation over the steps, where `log.jsonl` records them."""
    panels: dict[str, dict[str, tuple[str, str | None]]] = {
        "loss of the queries, nats per image": {"loss": ("-", None)},
        "norm of the meta-gradient, nats per image": {"gradient_norm": ("-", None)},
        "loss of a neighbourhood, nats": {
            "loss_before": ("--", "at the meta-parameters"),
            "loss_after": ("-", "at the local parameters"),
        },
        "the local step": {
            "sharpness": ("-", r"$\tau^2\lambda$ (for a quadratic loss, stable below 2)"),
            "distance": (":", r"$\|\theta_N - \theta\|$"),
        },
        r"$\alpha$, estimated from the evidence": {"alpha": ("-", None)},
    }
    drawn = {name: curves for name, curves in panels.items() if any(key in entry for entry in log for key in curves)}
    figure = _figure(9, 2.9 * math.ceil(len(drawn) / 2) + 0.5, title)
    for i, (name, curves) in enumerate(drawn.items()):
        ax = figure.add_subplot(math.ceil(len(drawn) / 2), 2, i + 1, title=name, xlabel="step")
        for key, (style, label) in curves.items():
            points = [(entry["step"], entry[key]) for entry in log if entry.get(key) is not None]
            marker = "." if len(points) == 1 else ""
            ax.plot(*zip(*points, strict=True), style, marker=marker, color="black", linewidth=1, label=label)
        ax.locator_params(axis="x", nbins=5, integer=True)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.yaxis.set_major_formatter("{x:,g}")
        _cut_off_spikes(ax)
        if len(curves) > 1:
            ax.legend(fontsize=8)
        ax.title.set_fontsize(9)
        ax.grid(alpha=0.3)
    return figure


def _cut_off_spikes(ax: "Axes") -> None:
    """End the y axis below a few points that are so high that they would flatten the rest, and say how many."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    values = values[np.isfinite(values)]
    if len(values) < 20:
        return
    low, high = values.min(), np.quantile(values, 0.97)
    top = high + (high - low) / 2
    if low < high < values.max() - 4 * (high - low):
        ax.set_ylim(low - (top - low) / 20, top)
        highest = f"{values.max():,.0f}" if 100 <= values.max() < 1e6 else f"{values.max():.2g}"
        text = f"{(values > top).sum():,} of {len(values):,} points are higher, up to {highest}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        ax.text(0.98, 0.95, text, transform=ax.transAxes, ha="right", va="top", fontsize=8, bbox=box)


def image_grid(
    images: Tensor,
    title: str,
    lead: Tensor | None = None,
    lead_label: str = "",
    label: str = "",
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    math: bool = False,
) -> "Figure":
    """Lay out images (R, S, C, H, W), C of 1 or 3, pixels in [0, 1]; `lead` (R, C, H, W) is a separate first column.

    `label` is the last line of the title or, with a separate first column, the heading of the other images. With
    `math`, `rows` are mathtext.
    """
    height, width = images.shape[:2]
    apart = 0.0 if lead is None else 1.25
    title = f"{title}\n{label}" if label and lead is None else title
    figure = _figure(max(4.5, 0.9 * (width + apart) + 0.4), 0.9 * height + 1.0, title)
    if lead is None:
        _fill(figure, images, "", rows, columns, math)
    else:
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[apart, width])[0]
        _fill(left, lead.unsqueeze(1), lead_label, (), [" "] if columns else ())
        _fill(right, images, label, rows, columns, math)
    return figure


def _above_white(image: Tensor, rows: int) -> Tensor:
    """A column with an image at the top, and white below: (R, C, H, W)."""
    return torch.cat([image[None], torch.ones_like(image).expand(rows - 1, -1, -1, -1)])


def _fill(
    part: Any, images: Tensor, label: str, rows: Sequence[str], columns: Sequence[str], math: bool = False
) -> None:
    if label:
        part.suptitle(label, fontsize=9, **VERBATIM)
    spacing = {"wspace": 0.04, "hspace": 0.04}
    axes = part.subplots(*images.shape[:2], squeeze=False, gridspec_kw=spacing)
    for ax, image in zip(axes.flat, images.flatten(0, 1), strict=True):
        _show(ax, image)
    for ax, name in zip(axes[:, 0], rows, strict=False):
        text = name if math else _label(name)
        ax.text(-0.08, 0.5, text, transform=ax.transAxes, ha="right", va="center", fontsize=9, parse_math=math)
    for ax, name in zip(axes[0], columns, strict=False):
        ax.set_title(_label(name), fontsize=8, pad=2, **VERBATIM)


def _figure(width: float, height: float, title: str, size: float = 10) -> "Figure":
    """An empty figure, in inches, with any title: lines longer than it are wrapped, and at most six are drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    across = int(width * 72 / (0.6 * size))  # in characters, whose average width is below 0.6 em
    lines = [textwrap.wrap(line, across, max_lines=2, placeholder=" …") for line in _drawable(title).splitlines()]
    figure.suptitle("\n".join([part for line in lines for part in line][:6]), fontsize=size, **VERBATIM)
    return figure


def _label(text: str) -> str:
    """Wrap a name into lines that fit beside or below an image.

    >>> _label("laplace-low-rank"), _label("x" * 99)
    ('laplace-low-\\nrank', 'xxxxxxxxxxxx\\nxxxxxxxxxxxx\\n…')
    """
    return "\n".join(textwrap.wrap(_drawable(text), LABEL, max_lines=3, placeholder=" …")) or " "


def _drawable(text: str) -> str:
    """Replace what no font can draw: bytes of a file name that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _show(ax: "Axes", image: Tensor) -> None:
    pixels = torch.movedim(image, 0, -1).clamp(0, 1).cpu().numpy()
    ax.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
