"""`hlvae figures`: the paper's Figures 2, 3 and 4, training curves and reconstructions of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from hierarchical_lvae.training import FitOptions, Run

SWEEP = tuple(-2 + 4 * i / 9 for i in range(10))


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--seed", type=int, help="Of references, codes and neighbours [default: the run's]")
@click.option("--data-dir", type=click.Path(), help="Where the data lie [default: as when it was trained]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …")
def figures(run: Path, seed: int | None, data_dir: str | None, device: str) -> None:
    """Draw Figures 2, 3 and 4, training curves and reconstructions of RUN, into RUN/figures.

    \b
    Examples:
      hlvae figures runs/first
      hlvae figures runs/first --seed 7
    """
    from hierarchical_lvae.training import load_run

    for path in draw_all(load_run(run, device, data_dir), run, seed):
        click.echo(path)


def draw_all(run: "Run", out: Path, seed: int | None = None) -> list[Path]:
    """Draw all figures of a run; seeded, and leaving the random state as it was. Returns their paths."""
    from hierarchical_lvae import figures
    from hierarchical_lvae.checkpoints import read_log

    with seeded(run, seed):
        samples, references, shared, sweep = _images(run)
    title = describe(run)
    drawn = {
        "figure2": figures.conditional_prior_samples(samples, title),
        "figure3": figures.conditional_samples(references, shared, title),
        "figure4": figures.latent_sweep(references[0], sweep, [round(v, 1) for v in SWEEP], title),
        "training": figures.training_curves(read_log(out / "log.jsonl"), title),
    }
    return [save(figure, out, name) for name, figure in drawn.items()] + [draw_reconstructions(run, out, seed)]


def draw_reconstructions(run: "Run", out: Path, seed: int | None = None, number: int = 10) -> Path:
    """Draw images, neighbours and reconstructions by meta and by local weights, with the weights of this moment."""
    from hierarchical_lvae import figures

    with seeded(run, seed):
        x, x_N = _references(run, number)
        meta, local = (run.decode(run.encode(x, given).unsqueeze(1), given).squeeze(1) for given in (None, x_N))
    return save(figures.reconstructions(x, x_N[:, 0], meta, local, describe(run)), out, "reconstructions")


def describe(run: "Run") -> str:
    """Say in two lines what was trained, and on what."""
    options = run.options
    reached = f" ({run.vae.alpha:.2g} now)" if options.alpha == "auto" else ""
    model = f"Local VAE, α = {said(options)}{reached}, {options.local}" if options.alpha else "VAE (α = 0)"
    return (
        f"{model}, {options.steps:,} steps of B = {options.batch}, K = {options.num_neighbours} "
        f"(preset {options.preset}, seed {options.seed})\n{run.dataset.source}, {options.neighbourhood} neighbours"
    )


def said(options: "FitOptions") -> str:
    """Say α, with its unit if that is not the pixel."""
    if isinstance(options.alpha, str):
        return options.alpha
    return f"{options.alpha:g}" + ("" if options.alpha_unit == "pixel" else f" (per {options.alpha_unit})")


def save(figure: "Figure", out: Path, name: str) -> Path:
    """Write figures/NAME.png, whole or not at all."""
    from hierarchical_lvae.checkpoints import atomic

    path = out / "figures" / f"{name}.png"
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path


@contextmanager
def seeded(run: "Run", seed: int | None) -> Iterator[None]:
    """Draw by `seed` (the run's own if None), and leave the random state as it was."""
    import torch

    from hierarchical_lvae.types import random_state_kept

    with random_state_kept():
        torch.manual_seed(run.options.seed if seed is None else seed)
        yield


def _references(run: "Run", number: int) -> "tuple[Tensor, Tensor]":
    """Random images of the data set, and fresh neighbours of each."""
    import torch

    index = torch.randint(len(run.dataset), (number,)).to(run.options.device)
    x = run.dataset.batch(index)
    return x, run.neighbourhood(index, x)


def _images(run: "Run") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
    """The samples of Figure 2, the references and samples of Figure 3, and the sweep of Figure 4."""
    import torch

    x, x_N = _references(run, 8)
    shared = torch.randn(10, run.options.latent_dim).to(x.device)
    conditional = run.decode(shared.expand(len(x), -1, -1), x_N)
    many, many_N = _references(run, 100)
    samples = run.sample(many, many_N, 1).view(10, 10, *x.shape[1:])
    swept = run.encode(x[:1], x_N[:1]).repeat(run.options.latent_dim, len(SWEEP), 1)
    for i in range(run.options.latent_dim):
        swept[i, :, i] = torch.tensor(SWEEP)
    sweep = run.decode(swept.view(1, -1, run.options.latent_dim), x_N[:1]).view(*swept.shape[:2], *x.shape[1:])
    return samples, x, conditional, sweep
