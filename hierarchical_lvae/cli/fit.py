"""`hlvae fit`: train or resume a run, and draw its figures."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hierarchical_lvae.cli.failures import in_flags
from hierarchical_lvae.cli.names import (
    DataDirectory,
    Finite,
    Location,
    Name,
    NameOrPath,
    NeighbourhoodName,
    PenaltyName,
    device_option,
    option_of,
)
from hierarchical_lvae.data import DATASETS, FRAMES
from hierarchical_lvae.data.paths import is_path
from hierarchical_lvae.inference import LOCAL_INFERENCE
from hierarchical_lvae.models import ACTIVATIONS, LIKELIHOODS
from hierarchical_lvae.neighbourhoods import NEIGHBOURHOODS
from hierarchical_lvae.penalties import PENALTIES
from hierarchical_lvae.presentation.titles import alpha_text
from hierarchical_lvae.runs.options import ALPHA_UNITS, CHECKPOINT_EVERY, PRECISIONS, PRESETS, FitOptions
from hierarchical_lvae.types import Interrupted

if TYPE_CHECKING:
    from hierarchical_lvae.runs import Run

MAY_CHANGE = ("steps", "dataset", "data_dir", "device")
"""Options that may change when a fit is resumed. Your own data may have moved; another named data set is refused."""
ENOUGH_CODES = 64  # per batch, for a penalty: the batch size of Locatello et al. (2019)


class Alpha(click.ParamType):
    """A number or "auto"."""

    name = "FLOAT|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Parse a number; keep "auto"."""
        try:
            return value if value == "auto" else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)


option = partial(option_of, FitOptions)


@click.command(short_help="Train a Local VAE, or resume a run.")
@option(
    "dataset",
    type=NameOrPath(DATASETS),
    help="Data set name, or your own image folder, .npz file or .h5 file [required, except with --resume]",
)
@option("data_dir", type=DataDirectory(), help="Directory of data and caches [default: $HLVAE_DATA or user cache]")
@click.option("--preset", type=Name(PRESETS), help="Training protocol [default: paper on a GPU, quick on a CPU]")
@option(
    "alpha",
    type=Alpha(),
    default=None,
    help="Inner step size; 0 is the plain VAE; auto re-estimates it during training from the evidence of the "
    "neighbourhoods [default: by preset]",
)
@option("alpha_unit", type=Name(ALPHA_UNITS), help="Average (pixel) or sum (sum) the inner loss over pixels.")
@option(
    "local", type=Name(LOCAL_INFERENCE), default=None, help="Local inference [default: one-step; shared at alpha 0]"
)
@option(
    "local_layers", help="Local weights: all, decoder, encoder, head (the last layer), or names such as decoder.9.*"
)
@option("first_order", help="Do not differentiate through the inner step.")
@option("clip", help="Clip the norm of the meta-gradient (nats per image) [default: by preset]")
@option(
    "neighbourhood",
    type=NeighbourhoodName(NEIGHBOURHOODS),
    default=None,
    help="How neighbours are chosen; graph:FILE reads your own neighbour graph [default: by preset and data set]",
)
@option("index", help='Faiss index for input-knn, such as "Flat" [default: by the size of the data]')
@option("refresh", help="Steps between re-encodings of all points for latent-knn; 0 turns them off.")
@option("num_neighbours", "-K", default=None, help="Neighbours per point [default: by preset]")
@option("batch", "-B", default=None, help="Neighbourhoods per batch [default: by preset]")
@option("micro_batch", help="Neighbourhoods processed at a time, to save memory [default: all]")
@option("steps", default=None, help="Number of meta-steps [default: by preset]")
@option("lr", default=None, help="Adam learning rate [default: by preset]")
@option("warm_up", default=None, help="Steps over which the learning rate rises linearly to --lr [default: by preset]")
@option("beta", default=None, help="Weight of the KL divergence of the codes [default: by preset]")
@option("penalty", type=PenaltyName(PENALTIES), help="Penalty on the codes; needs large batches [default: none]")
@option("likelihood", type=Name(LIKELIHOODS), help="Likelihood of the pixels.")
@option("latent_dim", help="Dimension of the codes.")
@option("activation", type=Name(ACTIVATIONS), help="Activation function of the networks.")
@option("image_size", help="Shrink larger images to this side length, in pixels [default: by preset]")
@option("frame", type=Name(FRAMES), help="How to make your own images square.")
@option("skip_bad", help="Skip unreadable image files in a folder.")
@option("seed", help="Random seed for parameters, batches and noise.")
@device_option
@option("precision", type=Name(PRECISIONS), help='Matrix-multiplication precision; "high" enables TF32.')
@option("compiled", help="Compile the gradient, for GPUs: takes a minute at first, then speeds up training.")
@option("deterministic", help="On a GPU, repeat and resume fits to the same bytes, more slowly. (CPUs always do.)")
@click.option("--out", type=Location(), help="Run directory [default: runs/DATASET-ALPHA-SEED-TIME]")
@click.option(
    "--checkpoint-every",
    type=Finite(),
    default=CHECKPOINT_EVERY,
    show_default=True,
    help="Seconds between checkpoints.",
)
@click.option("--resume", type=Location(), help="Resume this run; no other option is needed.")
@click.pass_context
def fit(ctx: click.Context, out: Path | None, checkpoint_every: float, resume: Path | None, **given: Any) -> None:
    """Train a Local VAE and save its weights, log, checkpoint and figures in a run directory.

    \b
    Examples:
      hlvae fit --dataset 3dshapes --preset quick
      hlvae fit --dataset digits --alpha 0 --steps 500 --out runs/plain
      hlvae fit --dataset photos/ --image-size 32 --neighbourhood input-knn
      hlvae fit --resume runs/plain --steps 1000
    """
    from hierarchical_lvae.presentation.figures import draw_all
    from hierarchical_lvae.runs.directory import MODEL, command, count_skipped, read_log
    from hierarchical_lvae.training.memory import keep_freed_memory
    from hierarchical_lvae.training.ranks import joined

    keep_freed_memory()
    with joined(given["device"]) as ranks:
        run = train(ctx, out, checkpoint_every, resume, announce if ranks.writes else lambda run: None, given)
        if ranks.writes:
            click.echo(f"trained on {run.dataset.source}; weights in {run.directory / MODEL}")
            if skipped := count_skipped(read_log(run.directory)):
                click.echo(f"skipped {skipped:,} of {run.options.steps:,} steps: loss or gradient not finite")
            with interruption(lambda: f"`{command('figures', run.directory)}` draws the figures"):
                for path in draw_all(run):
                    click.echo(path)


@contextmanager
def interruption(remedy: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into a message on how to continue, where the training loop does not."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT, f"interrupted: {remedy()}") from None


def how_to_continue(out: Path) -> str:
    """How to continue a fit that was interrupted between two steps, or before the first."""
    from hierarchical_lvae.runs.directory import command, is_run

    if is_run(out):
        return f"`{command('resume', out)}` resumes the fit"
    return "no step was completed and nothing was saved; run the same command again"


def train(
    ctx: click.Context, out: Path | None, checkpoint_every: float, resume: Path | None, ready: Callable[["Run"], None],
    given: dict[str, Any],
) -> "Run":  # fmt: skip
    """Start a fit or resume one."""
    from hierarchical_lvae import training
    from hierarchical_lvae.cli.watchers import ContactSheets, tensorboard

    watchers = (ContactSheets(), *tensorboard())
    if resume is not None:
        chosen = {n: v for n, v in given.items() if ctx.get_parameter_source(n) is ParameterSource.COMMANDLINE}
        if out is not None:
            raise click.UsageError("--out contradicts --resume: a resumed run stays in its directory; leave out --out")
        refuse_contradictions(resume, chosen)
        changed: dict[str, Any] = {name: chosen.get(name) for name in MAY_CHANGE}
        with interruption(lambda: how_to_continue(resume)):
            return training.resume(resume, checkpoint_every=checkpoint_every, watchers=watchers, **changed)
    if given["dataset"] is None:
        raise click.UsageError(f"Missing option '--dataset'. Choose from {', '.join(DATASETS)}.")
    options = resolve(**given)
    now = time.strftime("%Y%m%d-%H%M%S")
    name = f"{Path(options.dataset).stem}-{alpha_text(options, usual=options.alpha_unit)}-{options.seed}-{now}"
    out = out or Path("runs", name)
    with interruption(lambda: how_to_continue(out)):
        return training.fit(options, out, checkpoint_every=checkpoint_every, watchers=watchers, ready=ready)


def resolve(preset: str | None, device: str, data_dir: Path | None, **options: Any) -> FitOptions:
    """Choose the preset if none is given, and fill in its options."""
    preset = preset or ("paper" if device.startswith("cuda") else "quick")
    try:
        return FitOptions.of(preset, device=device, data_dir=data_dir, **options)
    except ValueError as error:
        raise click.UsageError(in_flags(str(error))) from error


def announce(run: "Run") -> None:
    """Print what will be done, and how long it and the presets would take on this machine.

    Raises:
        MemoryError: a step does not fit in memory.
    """
    from hierarchical_lvae.training import estimate_seconds
    from hierarchical_lvae.training.memory import check_step_fits

    options = run.options
    at_a_time = min(options.batch, options.micro_batch or options.batch)
    check_step_fits(at_a_time, options.num_neighbours, run.dataset.image_shape, options.device)
    click.echo(f"data: {run.dataset.source}")
    for name in dict.fromkeys([options.preset, *PRESETS]):
        hint = "selected" if name == options.preset else f"--preset {name}"
        try:
            seconds = estimate_seconds(run, options if name == options.preset else options.under(name))
        except MemoryError:
            click.echo(f"preset {name}: does not fit in the memory of this {options.device} ({hint})")
        else:
            click.echo(f"preset {name}: about {duration(seconds)} on this {options.device} ({hint})")
    click.echo(
        f"{options.steps:,} steps, B = {options.batch} neighbourhoods, K = {options.num_neighbours}, "
        f"α = {alpha_text(options)}, β = {options.beta:g}, {options.local}, {options.local_layers} layers local, "
        f"{options.neighbourhood} neighbours, "
        f"{options.likelihood}, {f'penalty {options.penalty}, ' if options.penalty else ''}preset {options.preset}, "
        f"seed {options.seed}"
    )
    if options.device == "mps":
        click.echo(
            "nothing has been run on MPS yet: compare the first losses in log.jsonl with those of --device cpu",
            err=True,
        )
    if options.penalty and options.batch < ENOUGH_CODES:
        click.echo(
            f"the penalty is estimated from the {options.batch} codes of a batch, which are few: "
            f"use -B {ENOUGH_CODES} or more",
            err=True,
        )
    if options.likelihood.startswith("gaussian") and run.vae.alpha > 0.01:
        click.echo(
            "a Gaussian likelihood has more curvature than the paper's Bernoulli: "
            "if the loss explodes, try --alpha 0.001",
            err=True,
        )


def duration(seconds: float) -> str:
    """Format a duration in words.

    >>> duration(0.2), duration(600), duration(9_000), duration(400_000)
    ('1 second', '10 minutes', '2.5 hours', '4.6 days')
    """
    for unit, size, limit in (("second", 1, 60), ("minute", 60, 120), ("hour", 3600, 48), ("day", 86400, math.inf)):
        if seconds / size < limit:
            number = round(seconds / size, 1) if size > 60 else max(1, round(seconds / size))
            return f"{number:g} {unit}{'' if number == 1 else 's'}"
    raise AssertionError


def refuse_contradictions(path: Path, chosen: dict[str, Any]) -> None:
    """Refuse options that differ from the run's; only --steps may grow (and the data and the device may change)."""
    from hierarchical_lvae.runs import read_options

    options = read_options(path)
    for name, value in chosen.items():
        was = getattr(options, name)
        was = was.partition(",")[0] if name == "preset" else was  # "quick, changed" is still quick
        elsewhere = name in MAY_CHANGE and (name != "dataset" or is_path(value))
        if value != was and not elsewhere:
            why = f"`{name}` {value} contradicts {path}, which was started with {was}: leave it out"
            raise click.UsageError(in_flags(why))
