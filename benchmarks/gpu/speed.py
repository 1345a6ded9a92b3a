"""How fast is a step, and what does determinism cost?"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from shared import SETTINGS, Report, as_in_a_fit, is_resumed_alike, options, stepper, wait, weights

from hierarchical_lvae import progress
from hierarchical_lvae.bench.step import bench
from hierarchical_lvae.inference import diagnose
from hierarchical_lvae.runs import prepare
from hierarchical_lvae.training import numerics
from hierarchical_lvae.training.numerics import precision
from hierarchical_lvae.training.step import Step


def rates(args: argparse.Namespace, report: Report) -> None:
    """Steps per second, back to back; peak memory; kernels and their time."""
    ceilings(args, report)
    for setting in ("highest", "high"):
        for name in SETTINGS:
            rate_of(name, setting, args, report)
    with report.trying("diagnose"), as_in_a_fit():
        one = stepper(prepare(options("noise-mean, 64×64", args)))
        one.take(0, 1)
        look = partial(diagnose, one.run.elbo, one.run.vae.model, one.run.vae.guide, one.x_N)
        look()
        start = time.perf_counter()
        look()
        wait(args.device)
        report("seconds of a diagnosis", round(time.perf_counter() - start, 3))
    for number in (1, 10):
        with report.trying(f"eager, K={number}"), precision("high"), progress.hidden():
            shape, batch = ((3, 16, 16), 2) if args.small else ((3, 64, 64), 25)
            timings = bench(batch, number, shape, 5, args.device, methods=("plain", "local-second-order", "loop"))
            report(f"eager, K={number}: ms per step", {n: round(1e3 * t.seconds, 1) for n, t in timings.items() if t})
    for name in SETTINGS:
        if name != "plain, Table 4":
            rate_of(name, "high", args, report, compiled=True)  # compiling takes a minute or more


def rate_of(name: str, setting: str, args: argparse.Namespace, report: Report, compiled: bool = False) -> None:
    """Steps per second and peak memory of a setting; in TF32, also its kernels."""
    label = f"{name}, {'TF32' if setting == 'high' else 'float32'}, {'compiled' if compiled else 'graph'}"
    with report.trying(label), precision(setting), as_in_a_fit():
        forget_peak(args.device)
        one = stepper(prepare(options(name, args)), compiled)
        report(f"{label}: steps/s", round(rate(partial(one.take, 10_000, 10), args), 1))
        if args.device.startswith("cuda"):
            report(f"{label}: peak GiB", round(torch.cuda.max_memory_allocated() / 2**30, 2))
            if setting == "high":
                profile(label, one, args, report)


def deterministic(args: argparse.Namespace, report: Report) -> None:
    """What PyTorch's deterministic algorithms cost, and whether graphs and resumed fits then give the same bytes."""
    with report.trying("deterministic fit"):
        report("deterministic: resumed to the same bytes", is_resumed_alike("deterministic", args, deterministic=True))
    for name in ("quick", "noise-mean, 64×64", "Table 4"):
        for setting in (False, True):
            label = f"{name}, {'deterministic' if setting else 'usual'} algorithms"
            with report.trying(label), as_in_a_fit(), precision("high"), numerics.deterministic(setting):
                ends = []
                for _ in range(2):
                    torch.manual_seed(7)
                    one = stepper(prepare(options(name, args)))
                    one.take(0, 6)
                    ends.append(weights(one.run))
                alike = all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
                report(f"{label}: two graphs give the same bytes", alike)
                report(f"{label}: steps/s", round(rate(partial(one.take, 10_000, 10), args), 1))


def rate(take: Callable[[], list], args: argparse.Namespace) -> float:
    """Steps per second."""
    take()
    wait(args.device)
    start, taken = time.perf_counter(), 0
    while time.perf_counter() - start < (0.05 if args.small else 1.5):
        taken += len(take())
    wait(args.device)
    return taken / (time.perf_counter() - start)


def ceilings(args: argparse.Namespace, report: Report) -> None:
    """Peak rates of matrix products, and of a copy (bytes read and written)."""
    side = 64 if args.small else 8192
    for setting in ("highest", "high"):
        with precision(setting):
            a, b = (torch.randn(side, side, device=args.device) for _ in range(2))
            calls = rate(partial(lambda a, b: [a @ b for _ in range(5)], a, b), args)
            report(f"TFLOP/s, {'TF32' if setting == 'high' else 'float32'}", round(2 * side**3 * calls / 1e12, 1))
    a, b = (torch.empty(4 * side, side, device=args.device) for _ in range(2))
    calls = rate(lambda: [a.copy_(b) for _ in range(5)], args)
    report("GB/s of a copy", round(2 * a.nbytes * calls / 1e9))


def forget_peak(device: str) -> None:
    """Free unused memory, and reset the peak."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def profile(label: str, one: Step, args: argparse.Namespace, report: Report) -> None:
    """Profile the kernels of three replays."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        one.take(10_000, 3)
        wait(args.device)
    events = found.key_averages()
    report(f"{label}: kernels per step", round(sum(e.count for e in events) / 3))
    report(f"{label}: ms of kernels per step", round(sum(e.self_device_time_total for e in events) / 3e3, 3))
    table = events.table(sort_by="cuda_time_total", row_limit=40, max_name_column_width=100)
    with (args.out / "profile.txt").open("a", encoding="utf-8") as file:
        file.write(f"===== {label}\n{table}\n")
