"""The figures of a run, drawn from its model with their own random seeds and saved in its directory."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hierarchical_lvae.files import atomic
from hierarchical_lvae.presentation import plots
from hierarchical_lvae.presentation.titles import describe, protocol
from hierarchical_lvae.runs import Run
from hierarchical_lvae.runs.directory import read_log
from hierarchical_lvae.types import seeded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SWEEP = tuple(-2 + 4 * i / 9 for i in range(10))


def draw_all(run: Run, seed: int | None = None) -> list[Path]:
    """Draw all figures of a run, seeded, and restore the random state. Returns their paths."""
    out = run.directory
    drawn = {name: draw(run, seed) for name, draw in PAPER_FIGURES.items()}
    drawn["training"] = plots.training_curves(read_log(out), describe(run))
    return [save(figure, out, name) for name, figure in drawn.items()] + [draw_reconstructions(run, seed)]


def draw_figure2(run: Run, seed: int | None = None) -> "Figure":
    """Draw samples, each decoded with the local weights of another reference."""
    with _seeded(run, seed):
        samples = _prior_samples(run, 100)
    return plots.conditional_prior_samples(samples.unflatten(0, (10, 10)), describe(run), run.vae.adapts["decoder"])


def draw_figure3(run: Run, seed: int | None = None) -> "Figure":
    """Draw references, and samples at codes that all of them share."""
    with _seeded(run, seed):
        x, x_N = _references(run, 8)
        shared = torch.randn(10, run.options.latent_dim).to(x.device)
        samples = run.decode(shared.expand(len(x), -1, -1), x_N)
    return plots.conditional_samples(x, samples, describe(run), run.vae.adapts["decoder"])


def draw_figure4(run: Run, seed: int | None = None) -> "Figure":
    """Sweep one latent after the other around the code of a reference."""
    size = run.options.latent_dim
    with _seeded(run, seed):
        x, x_N = _references(run, 1)
        swept = run.encode(x, x_N).repeat(size, len(SWEEP), 1)
        for i in range(size):
            swept[i, :, i] = torch.tensor(SWEEP)
        sweep = run.decode(swept.flatten(0, 1).unsqueeze(0), x_N).squeeze(0)
    rounded = [round(value, 1) for value in SWEEP]
    return plots.latent_sweep(x[0], sweep.unflatten(0, (size, len(SWEEP))), rounded, describe(run))


PAPER_FIGURES = {"figure2": draw_figure2, "figure3": draw_figure3, "figure4": draw_figure4}
DRAWN = (*PAPER_FIGURES, "training", "reconstructions")
"""What `draw_all` draws."""


def compose(name: str, runs: Sequence[tuple[str, Run]], out: str | Path) -> Path:
    """Draw a figure of the paper from labelled runs: Figure 2 has a row per run, the others show the first run.

    Returns its path.

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError(f"{out} has no finished run to draw {name} from: train one first, or check why it failed")
    first = runs[0][1]
    if name != "fig2":
        return save(PAPER_FIGURES[name.replace("fig", "figure")](first), out, name)
    samples = []
    for _, run in runs:
        with _seeded(run, None):
            samples.append(_prior_samples(run, 12))
    beta = "" if first.options.beta == 1 else f"β = {first.options.beta:g}, "
    figure = plots.image_grid(torch.stack(samples), f"{beta}{protocol(first)}", rows=[label for label, _ in runs])
    return save(figure, out, name)


def draw_reconstructions(run: Run, seed: int | None = None, number: int = 10) -> Path:
    """Draw images, neighbours, and reconstructions with the current meta and local weights of the run."""
    with _seeded(run, seed):
        x, x_N = _references(run, number)
        meta, local = (run.decode(run.encode(x, given).unsqueeze(1), given).squeeze(1) for given in (None, x_N))
    return save(plots.reconstructions(x, x_N[:, 0], meta, local, describe(run)), run.directory, "reconstructions")


def draw_importance(run: Run, values: dict[str, Any], codes: str, part: str) -> Path:
    """Draw the DCI importances as a heat map, for one part of the data if they have parts."""
    figure = plots.importance(np.array(values["importance"]), values["factors"], describe(run))
    return save(figure, run.directory, "-".join(["importance", *([part] if part else []), codes]))


def save(figure: "Figure", out: str | Path, name: str) -> Path:
    """Write figures/NAME.png atomically; characters that are missing from the font are drawn as boxes."""
    path = Path(out) / "figures" / f"{name}.png"
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(temporary, dpi=150)
    return path


def _seeded(run: Run, seed: int | None) -> AbstractContextManager[None]:
    return seeded(run.options.seed if seed is None else seed)


def _references(run: Run, number: int) -> tuple[Tensor, Tensor]:
    """Random images of the data set, distinct if there are enough, and fresh neighbours for each."""
    size = len(run.dataset)
    index = torch.cat([torch.randperm(size) for _ in range(0, number, size)])[:number].to(run.options.device)
    x = run.dataset.batch(index)
    return x, run.neighbourhood(index, x)


def _prior_samples(run: Run, number: int) -> Tensor:
    """Codes drawn from p(z), each decoded with the local weights of another random reference: (number, C, H, W)."""
    return run.sample(*_references(run, number), 1).squeeze(1)
