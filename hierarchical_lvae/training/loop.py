"""Algorithm 1 as one flat loop, with checkpoints and a clear exit status."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.inference import reestimate
from hierarchical_lvae.models.likelihoods import Bernoulli
from hierarchical_lvae.runs.checkpoint import pack, unpack
from hierarchical_lvae.runs.directory import (
    CHECKPOINT,
    MODEL,
    State,
    append_log,
    claimed,
    command,
    read_checkpoint,
    read_options,
    read_state,
    truncate_log,
    write_checkpoint,
    write_options,
    write_state,
)  # fmt: skip
from hierarchical_lvae.runs.options import AUTO, CHECKPOINT_EVERY, FitOptions
from hierarchical_lvae.runs.run import Run, load_data, moved, prepare
from hierarchical_lvae.training.gradient import check_compiled, needs_host, shared
from hierarchical_lvae.training.numerics import numerics
from hierarchical_lvae.training.ranks import Ranks
from hierarchical_lvae.training.step import TOLERATED, Step
from hierarchical_lvae.types import Diverged, Interrupted, random_state_kept, single_precision

LOG_EVERY, DIAGNOSE_EVERY = 50, 500
DIAGNOSE_EVERY_REPLAYED = 5_000
"""On a GPU, where step 500 and the last are diagnosed, too: a diagnosis takes 0.3 s of Python, 500 steps about 1 s."""
REESTIMATE_EVERY, REESTIMATE_ON = 200, 4  # steps, neighbourhoods
ALPHA_RANGE = 1e-3, 10.0  # of `alpha="auto"`: the paper's fits train in this range and overshoot at 100
log = logging.getLogger(__name__)
Watcher = Callable[[Run, dict[str, Any]], None]


@single_precision()
def fit(
    options: FitOptions,
    out: str | Path,
    checkpoint_every: float = CHECKPOINT_EVERY,
    watchers: tuple[Watcher, ...] = (),
    ready: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Train by Algorithm 1 and write a run directory.

    The directory holds `options.json`, `model.safetensors`, the checkpoint (`state.safetensors`, `state.json`) and
    `log.jsonl`. Every 50 steps the log gets the loss and the norm of the meta-gradient (nats per image), the images per
    second and the last value of the penalty, if any; every 500 steps (5,000 on a GPU) it also gets the diagnosis.
    A step whose loss or gradient is not finite is skipped: it changes no weight, and the log counts it.

    Args:
        options: the data, the model and the schedule.
        out: the run directory, new or empty.
        checkpoint_every: seconds between checkpoints; the first is written before step 1.
        watchers: called with the run and each line of the log.
        ready: called with the run before the first step.

    Raises:
        Diverged: the loss or its gradient is not finite for ten steps in a row, a weight is not finite, or the local
            step overshoots; the last checkpoint is kept.
        Interrupted: SIGINT or SIGTERM arrived; a checkpoint was written after the last step.
        OSError: `out` is not empty, is locked by another process, or cannot be written.
        ValueError, FileNotFoundError: the data, the model or the neighbourhood cannot be built from the options.
    """
    out, ranks = Path(out), Ranks()
    options = shared(options, ranks)
    with numerics(options), claimed(out, new=True) if ranks.writes else progress.hidden():
        run = replace(prepare(options), path=out)
        check_compiled(run)
        run.neighbourhood.check()
        ready(run)
        return _train(run, ranks, checkpoint_every, watchers)


@single_precision()
def resume(
    path: str | Path,
    steps: int | None = None,
    data_dir: str | Path | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    watchers: tuple[Watcher, ...] = (),
    device: str | None = None,
    dataset: str | Path | None = None,
) -> Run:
    """Resume a fit from its last checkpoint; unless on a GPU without `deterministic`, to the same bytes. See `fit`.

    On another device, or on several processes for the first time, the fit continues with different random draws. On a
    CPU or on several processes, the gradient is no longer compiled.

    Args:
        path: a run directory, finished or not.
        steps: the new number of steps in total, at least the old one; by default unchanged.
        data_dir, device, dataset: as for `load_run`.

    Raises:
        ValueError: `steps` is less than before, or the data have changed.
        Diverged, Interrupted, OSError: see `fit`.
    """
    path, ranks = Path(path), Ranks()
    options = read_options(path)
    if steps is not None and steps < options.steps:
        raise ValueError(
            f"{path} has {options.steps} steps and cannot be shortened to {steps}: leave out `steps`, or give more"
        )
    with claimed(path, new=False) if ranks.writes else progress.hidden():
        options = replace(moved(options, device, data_dir, dataset), steps=steps or options.steps)
        if options.compiled and (ranks.world > 1 or not options.device.startswith("cuda")):
            log.info("from now on the gradient is not compiled")
            options = replace(options, compiled=False)
        alone, options = options, shared(options, ranks)
        if options != alone and ranks.writes:
            log.info("from now on %d processes share each batch, with different random draws", ranks.world)
        with numerics(options):
            run = replace(prepare(options, load_data(options, path)), path=path)
            return _train(run, ranks, checkpoint_every, watchers)


def _train(run: Run, ranks: Ranks, checkpoint_every: float, watchers: tuple[Watcher, ...]) -> Run:
    options, vae, elbo, dataset, out = run.options, run.vae, run.elbo, run.dataset, run.directory
    penalty, step = elbo.penalty, Step(run, ranks)
    if ranks.writes and options.device.startswith("cuda") and (why := needs_host(run, ranks)):
        log.info("the step runs without a CUDA graph, more slowly: %s", why)
    done, losses = 0, list[float]()
    if (saved := read_checkpoint(out)) is not None:
        try:
            done, losses = unpack(saved, vae, step.optimizer, run.stateful)
        except ValueError as error:
            raise ValueError(f"{out / CHECKPOINT} cannot be resumed ({error}): restore it, or fit again") from error
    elif (out / MODEL).exists():
        raise FileNotFoundError(
            f"{out} has weights, but no checkpoint to resume from (state.safetensors): "
            "restore it, or fit into another directory"
        )
    with ranks.in_turn():
        run.neighbourhood.prepare()
    if ranks.writes:
        write_options(out, options, dataset)
        truncate_log(out, done)

    def checkpoint(status: str) -> float:
        if not ranks.writes:
            return math.inf
        for name, parameter in vae.named_parameters():
            if not parameter.isfinite().all():
                raise Diverged(f"{name} is not finite after step {done}: lower `lr`; the last good checkpoint is kept")
        checkpoint = pack(vae, step.optimizer, run.stateful, done, losses)
        write_checkpoint(out, checkpoint, vae.state_dict(), State(status, done, options.steps))
        return time.monotonic()

    written = checkpoint("running" if done < options.steps else "finished")
    if ranks.writes and done >= options.steps:
        log.info("nothing to train: all %d steps are done; to train further, give more `steps`", done)
    logged, start, in_a_row = done, time.perf_counter(), 0
    with (
        progress.bar(desc="fit", total=options.steps, initial=done, unit="step", smoothing=0.05) as bar,
        _noted_divergence(out if ranks.writes else None),
        _noted_signals() as signals,
        pyro.validation_enabled(False),  # a divergence shows in the loss and is reported with its step
        pyro.get_param_store().scope(),  # leave the caller's parameters alone
    ):
        while done < options.steps:
            number = min(step.at_once, options.steps - done, LOG_EVERY - done % LOG_EVERY)
            for i, seen in enumerate(taken := step.take(done, number)):
                done += 1
                losses.append(seen.loss if seen.is_finite else math.nan)
                in_a_row = 0 if seen.is_finite else in_a_row + 1
                is_logged = done % LOG_EVERY == 0 or done == options.steps
                if in_a_row and (in_a_row == TOLERATED or not _may_recover(vae, losses, is_logged)):
                    alpha = vae.alpha if options.alpha == AUTO else options.alpha  # in its unit
                    raise Diverged(
                        f"the loss is {seen.loss:g} nats and its gradient {seen.norm:g} at step {done}"
                        f"{f', as in the {in_a_row - 1} steps before it' if in_a_row > 1 else ''} "
                        f"(first non-finite quantity: {step.why(i, number)}): "
                        f"lower {f'`alpha` (here {alpha:g}) or ' if alpha else ''}`lr` (here {options.lr:g})"
                        f"{'' if options.clip else ', or clip the gradient with `clip`'}; "
                        "the last good checkpoint is kept"
                    )
            if penalty is not None and not in_a_row:
                penalty.update()
            if options.alpha == AUTO and done % REESTIMATE_EVERY == 0:
                factor = reestimate(elbo, vae.model, vae.guide, step.x_N[:REESTIMATE_ON])
                vae.alpha = min(max(vae.alpha * factor, ALPHA_RANGE[0]), ALPHA_RANGE[1])
            if is_logged:
                seconds = time.perf_counter() - start
                finite = [loss for loss in losses if math.isfinite(loss)]
                norm = seen.norm if seen.is_finite else math.nan
                entry = {"step": done, "loss": sum(finite) / len(finite), "gradient_norm": norm}
                if skipped := len(losses) - len(finite):
                    entry["skipped"] = skipped
                    if ranks.writes:
                        why = "loss or gradient not finite"
                        log.warning("skipped %d of %d steps up to step %d: %s", skipped, len(losses), done, why)
                if options.alpha == AUTO:
                    entry["alpha"] = vae.alpha
                if taken[-1].penalty is not None:
                    entry["penalty"] = taken[-1].penalty
                entry["images_per_second"] = (done - logged) * options.batch * (options.num_neighbours + 1) / seconds
                if _is_diagnosed(done, options.steps, step.is_replayed) and (found := step.diagnose()):
                    entry |= found
                    # a penalty is part of the loss of the queries, but not of the loss of a neighbourhood
                    after = entry["loss"] if penalty is None else entry["loss_after"] / options.num_neighbours
                    if vae.is_local:
                        _refuse_overshoot(after, entry["loss_before"] / options.num_neighbours, done, _floor(run))
                if ranks.writes:
                    append_log(out, entry)
                speed = f"{entry['images_per_second']:.0f} images/s"
                bar.set_postfix_str(f"{entry['loss']:.0f} nats per image, {speed}", refresh=False)
                with random_state_kept():
                    for watch in watchers if ranks.writes else ():
                        watch(run, entry)
                losses, logged, start = [], done, time.perf_counter()
            bar.update(number)
            if ranks.any(bool(signals)):
                break
            if time.monotonic() - written >= checkpoint_every:
                written = checkpoint("running")
        checkpoint("interrupted" if done < options.steps else "finished")
        if ranks.any(bool(signals)):
            how = f"resume with `{command('resume', out)}`"
            if done == options.steps:
                how = f"the fit is finished, and `{command('figures', out)}` draws its figures"
            raise Interrupted(signals[0] if signals else signal.SIGTERM, f"stopped after step {done}: {how}")
    return run


def _may_recover(vae: torch.nn.Module, losses: list[float], is_logged: bool) -> bool:
    """Whether a fit can go on after a step that was not finite: its weights are, and there is a loss to log."""
    is_intact = all(parameter.isfinite().all() for parameter in vae.parameters())
    return is_intact and (not is_logged or any(map(math.isfinite, losses)))


def _is_diagnosed(done: int, steps: int, is_replayed: bool) -> bool:
    if is_replayed:
        return done in (DIAGNOSE_EVERY, steps) or done % DIAGNOSE_EVERY_REPLAYED == 0
    return done % DIAGNOSE_EVERY == 0


def _floor(run: Run) -> float:
    """The smallest scale of the loss, in nats per image: 0 for a Bernoulli, whose loss is never negative.

    The loss of a density on pixels can pass through 0, where it is no scale; we use 1 nat per dimension instead.
    """
    return 0.0 if isinstance(run.vae.likelihood, Bernoulli) else float(math.prod(run.vae.image_shape))


def _refuse_overshoot(adapted: float, plain: float, step: int, floor: float) -> None:
    """Raise if the adapted loss exceeds ten times the unadapted one: clipping can keep even such a fit finite.

    The unadapted loss counts as at least `floor`.
    """
    if adapted - plain > 9 * max(abs(plain), floor):
        raise Diverged(
            f"at step {step} the loss is {adapted:,.0f} nats per image with the local step and {plain:,.0f} without: "
            "lower `alpha`; the last good checkpoint is kept"
        )


@contextmanager
def _noted_divergence(out: Path | None) -> Iterator[None]:
    """Record in `state.json` that the fit diverged, and how; the step stays that of the last checkpoint."""
    try:
        yield
    except Diverged as error:
        if out is not None:
            write_state(out, read_state(out)._replace(status="diverged", why=str(error)))
        raise


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, which are handled between two steps; a second signal has its usual effect."""
    noted, usual = list[int](), dict[int, Any]()

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        signal.signal(number, usual[number])

    if threading.current_thread() is threading.main_thread():
        usual = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
