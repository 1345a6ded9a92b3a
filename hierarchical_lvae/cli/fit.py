"""`hlvae fit`: train, and draw Figure 3."""

import time
from pathlib import Path
from typing import Any

import click

from hierarchical_lvae.cli.names import Name
from hierarchical_lvae.data import DATASETS
from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.models import ACTIVATIONS, LIKELIHOODS
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS


@click.command()
@click.option("--dataset", type=Name(DATASETS), required=True, help="What to train on.")
@click.option(
    "--data-dir", type=click.Path(), help="Where data files and caches lie [default: $HLVAE_DATA or user cache]"
)
@click.option("--preset", type=Name(["paper", "quick"]), help="Protocol [default: paper on a GPU, quick on a CPU]")
@click.option("--alpha", type=float, default=1.0, show_default=True, help="Inner step size; 0 is the plain VAE.")
@click.option("--local", type=Name(LOCAL_INFERENCE), help="Local inference [default: one-step; shared if alpha is 0]")
@click.option("--first-order", is_flag=True, help="Do not differentiate through the inner step.")
@click.option("--clip", type=float, help="Clip the norm of the meta-gradient (nats an image) [default: by preset]")
@click.option("--neighbourhood", type=Name(NEIGHBOURHOODS), default="noise", show_default=True, help="What is local.")
@click.option("-K", "num_neighbours", type=click.IntRange(1), help="Neighbours of each point [default: by preset]")
@click.option("-B", "batch", type=click.IntRange(1), help="Neighbourhoods in a batch [default: by preset]")
@click.option("--steps", type=click.IntRange(1), help="Meta-steps [default: by preset]")
@click.option("--lr", type=float, help="Learning rate of Adam [default: by preset]")
@click.option("--beta", type=float, default=1.0, show_default=True, help="Weight of the KL of the codes.")
@click.option("--likelihood", type=Name(LIKELIHOODS), default="bernoulli", show_default=True, help="Of the pixels.")
@click.option("--latent-dim", type=click.IntRange(1), default=10, show_default=True, help="Size of a code.")
@click.option("--activation", type=Name(ACTIVATIONS), default="relu", show_default=True, help="Of the networks.")
@click.option("--image-size", type=click.IntRange(8), help="Shrink larger images to this side [default: by preset]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of parameters, batches and noise.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory [default: runs/DATASET-ALPHA-SEED-TIME]")
def fit(preset: str | None, device: str, out: Path | None, **options: Any) -> None:
    """Train a Local VAE, and leave a run directory with its weights, log and Figure 3.

    \b
    Examples:
      hlvae fit --dataset 3dshapes --preset quick
      hlvae fit --dataset digits --alpha 0 --steps 500 --out runs/plain
    """
    import torch

    from hierarchical_lvae import training

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"there is no device {device!r} here ({str(error).splitlines()[0]}): try --device cpu"
        ) from None
    preset = preset or ("paper" if device.startswith("cuda") else "quick")
    resolved = training.FitOptions.of(preset, device=device, **options)
    now = time.strftime("%Y%m%d-%H%M%S")
    out = out or Path("runs", f"{resolved.dataset}-{resolved.alpha:g}-{resolved.seed}-{now}")

    click.echo(
        f"preset {preset}: {resolved.steps:,} steps of B = {resolved.batch} neighbourhoods, "
        f"K = {resolved.num_neighbours}, α = {resolved.alpha:g}, {resolved.local}, on {device}; writing to {out}"
    )
    run = training.fit(resolved, out)
    click.echo(f"trained on {run.dataset.source}; weights in {out / 'model.safetensors'}")
    click.echo(f"Figure 3 in {draw_figure_3(run, out)}")


def draw_figure_3(run: Any, out: Path, num_references: int = 8, num_codes: int = 10) -> Path:
    """Decode shared codes by the local weights of seeded references, and write figures/figure3.png."""
    import torch

    from hierarchical_lvae import figures
    from hierarchical_lvae.checkpoints import atomic
    from hierarchical_lvae.types import random_state_kept

    options = run.options
    with random_state_kept():
        torch.manual_seed(options.seed)
        index = torch.randint(len(run.dataset), (num_references,)).to(options.device)
        references = run.dataset.batch(index)
        z = torch.randn(num_codes, options.latent_dim).to(options.device)
        samples = run.decode(z.expand(num_references, -1, -1), run.neighbourhood(index, references))
    figure = figures.conditional_samples(
        references,
        samples,
        f"Local VAE, α = {options.alpha:g}, {options.local}, {options.steps:,} steps (preset {options.preset})\n"
        f"{run.dataset.source}, {options.neighbourhood} neighbours",
    )
    path = out / "figures" / "figure3.png"
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path
