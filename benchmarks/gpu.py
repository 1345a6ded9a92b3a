"""Is a step correct on a GPU, how fast is it, and what can be trained in the remaining time?

    python benchmarks/gpu.py OUT [--seconds 520] [--runs runs.jsonl]

Each part is a process with its own time limit; a failure is reported and does not stop the others:

    exact     both gradients on the GPU against the CPU in float64: in float32, in TF32, with other forms of the layers
    graph     a step as a CUDA graph against the same step without a graph; run twice; not finite; resumed
    compile   the gradient compiled by Inductor: how long that takes, and whether it is correct
    rates     steps per second, memory and kernels (graphs, compiled, a plain VAE, a loop over tasks); the card's peak
    train     the fits in `runs.jsonl`, one object per line (`name`, and options for `quick`), `--workers` at a time

OUT then holds report.txt (read it first), a log of each part, and the run directories. `--device cpu --small` rehearses
everything without a GPU, in seconds; graphs are then plain calls.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pyro
import torch
from torch import Tensor
from torch.distributions import normal

from hierarchical_lvae import progress
from hierarchical_lvae.bench.step import bench
from hierarchical_lvae.data import load_dataset
from hierarchical_lvae.inference import LocalELBO, OneStepMAP, diagnose
from hierarchical_lvae.models import LIKELIHOODS, LocalVAE, forms
from hierarchical_lvae.runs import FitOptions, Run, prepare
from hierarchical_lvae.runs import run as run_module
from hierarchical_lvae.training import fit, resume
from hierarchical_lvae.training.compiled import Compiled
from hierarchical_lvae.training.gradient import precision
from hierarchical_lvae.training.ranks import Ranks
from hierarchical_lvae.training.step import Step

SETTINGS = {
    "quick": {"preset": "quick"},
    "noise-mean, 64×64": {"preset": "paper", "neighbourhood": "noise-mean"},
    "Table 4": {"preset": "paper"},
    "plain, Table 4": {"preset": "paper", "alpha": 0.0},
}
LIMITS = {"exact": 90, "graph": 90, "compile": 200, "rates": 120}
"""Seconds for each part on a GPU; in a rehearsal each has all of `--seconds`."""
SMALL = {"dataset": "digits", "batch": 2, "num_neighbours": 1}
ARGUMENTS = argparse.ArgumentParser(description="Check, measure and train on one GPU.")
ARGUMENTS.add_argument("out", type=Path)
ARGUMENTS.add_argument("--seconds", type=float, default=520.0, help="Time limit of all parts together.")
ARGUMENTS.add_argument("--device", default="cuda")
ARGUMENTS.add_argument("--small", action="store_true", help="Rehearse with tiny images.")
ARGUMENTS.add_argument("--parts", nargs="*", default=[*LIMITS, "train"])
ARGUMENTS.add_argument("--runs", type=Path, help="The fits to train, one JSON object per line.")
ARGUMENTS.add_argument("--workers", type=int, default=1)
ARGUMENTS.add_argument("--part", help=argparse.SUPPRESS)


# --------------------------------------------------------------------------------------------------- shared


class Report:
    """The results of a part, by name. Each is written at once, so that a part that is stopped keeps its results."""

    def __init__(self, out: Path, part: str) -> None:
        self.path, self.part = out / f"{part}.jsonl", part

    def __call__(self, name: str, value: object) -> None:
        """Write one result."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": self.part, "name": name, "value": value}) + "\n")

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Report a failure as a result; raise it again if it is a CUDA error, which leaves the process unusable."""
        try:
            yield
        except Exception as error:
            self(name, f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            if "CUDA error" in str(error):
                raise


def options(name: str, args: argparse.Namespace, **changes: object) -> FitOptions:
    """The options of a setting, for the device in `args`."""
    given = {"dataset": "3dshapes"} | SETTINGS[name] | (SMALL if args.small else {}) | changes
    built = FitOptions.of(str(given.pop("preset")), **given)
    return replace(built, device=args.device)


@contextmanager
def as_in_a_fit() -> Iterator[None]:
    """As in a fit: without Pyro's validation, and with a parameter store of its own."""
    with pyro.validation_enabled(False), pyro.get_param_store().scope():
        yield


def wait(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def errors(found: list[Tensor], truth: list[Tensor]) -> list[float]:
    """Relative errors, by norm."""
    return [float(f"{((a - b).norm() / b.norm()).item():.1e}") for a, b in zip(found, truth, strict=True)]


def weights(run: Run) -> list[Tensor]:
    """Copies of the meta-parameters, in float64, on the CPU."""
    return [p.detach().double().cpu().clone() for p in run.vae.parameters()]


def stepper(run: Run, compiled: bool = False, replayed: bool = True) -> Step:
    """The step of a run, as a graph or not, compiled or not."""
    one = Step(run, Ranks())
    one.is_replayed &= replayed
    if compiled:
        one.gradient = Compiled(run)
    return one


# ------------------------------------------------------------------------------------------------------------ exact


def gradient(
    side: int, number: int, dtype: torch.dtype, device: str, likelihood: str = "bernoulli", local: bool = True
) -> list:
    """Loss and gradients, as float64 on the CPU, for images, weights and noise that are the same on all devices."""
    batch = 4
    torch.manual_seed(0)
    vae = LocalVAE(1.0 if likelihood == "bernoulli" else 1e-3, number, (3, side, side), 10, likelihood)
    x = torch.rand(batch, 3, side, side)
    x_N = x.expand(number, *x.shape).bernoulli().transpose(0, 1)
    noise = [torch.randn(batch, number, 10), torch.randn(batch, 1, 10)]
    vae = vae.to(device, dtype)
    x, x_N, *noise = (tensor.to(device, dtype) for tensor in (x, x_N, *noise))
    elbo = LocalELBO(OneStepMAP())
    usual = normal._standard_normal
    normal._standard_normal = lambda shape, dtype, device: noise.pop(0).expand(shape)
    try:
        with as_in_a_fit():
            loss = elbo.differentiable_loss(vae.model, vae.guide, x, x_N) / batch
            slopes = torch.autograd.grad(loss, [vae.theta, vae.phi])
    finally:
        normal._standard_normal = usual
    return [tensor.detach().double().cpu() for tensor in (loss, *slopes)]


def exact(args: argparse.Namespace, report: Report) -> None:
    """Gradients against the CPU in float64: errors of the loss, ∂θ and ∂φ."""
    usual, side = forms.by_products, 16 if args.small else 32
    for number in (1, 3):
        truth = gradient(side, number, torch.float64, "cpu")
        report(f"K={number}: float32 on the CPU", errors(gradient(side, number, torch.float32, "cpu"), truth))
        for label, dtype, setting, by_products in (
            ("float64", torch.float64, "highest", usual),
            ("float64, in groups", torch.float64, "highest", lambda x: False),
            ("float32", torch.float32, "highest", usual),
            ("TF32", torch.float32, "high", usual),
        ):
            with report.trying(f"K={number}: {label}"), precision(setting):
                forms.by_products = by_products
                report(f"K={number}: {label}", errors(gradient(side, number, dtype, args.device), truth))
    forms.by_products = usual
    for likelihood in LIKELIHOODS:
        with report.trying(likelihood):
            truth = gradient(side, 2, torch.float64, "cpu", likelihood)
            report(f"{likelihood}: float64", errors(gradient(side, 2, torch.float64, args.device, likelihood), truth))
    with report.trying("images"):
        host = load_dataset("digits" if args.small else "3dshapes").images
        index = torch.randint(len(host), (200,), generator=torch.Generator().manual_seed(0))
        for setting in ("highest", "high"):
            with precision(setting):
                alike = torch.equal(host[index], host.to(args.device)[index.to(args.device)].cpu())
                report(f"images equal the CPU's, {setting}", alike)


# ------------------------------------------------------------------------------------------------------------ graph


def graph(args: argparse.Namespace, report: Report) -> None:
    """Compare a step as a graph with the same step without."""
    for name, changes in (
        ("quick", {}),
        ("Table 4", {}),
        ("quick", {"alpha": 0.0}),
        ("quick", {"neighbourhood": "labels"}),
    ):
        label = f"{name} {changes or ''}"
        with report.trying(label), as_in_a_fit():
            found = {}
            for way in ("graph", "again", "eager"):
                one = stepper(prepare(options(name, args, **changes)), replayed=way != "eager")
                torch.manual_seed(7)
                losses = [seen.loss for seen in [*one.take(0, 3), *one.take(3, 3)]]
                found[way] = losses, weights(one.run)
                report(f"{label}: {way}: losses", [round(loss, 3) for loss in losses])
            report(f"{label}: weights after 6 steps, graph twice", errors(found["again"][1], found["graph"][1]))
            report(f"{label}: weights after 6 steps, graph and eager", errors(found["graph"][1], found["eager"][1]))
    with report.trying("not finite"), as_in_a_fit():
        one = stepper(prepare(options("quick", args)))
        one.take(0, 2)
        one.run.vae.alpha = 1e30
        before, seen = weights(one.run), one.take(2, 4)
        report("not finite", [taken.is_finite for taken in seen])
        report("not finite: the weights are the last good ones", errors(weights(one.run), before))
        failed = [taken.is_finite for taken in seen].index(False)
        report("not finite: why", one.why(failed, 4))
    with report.trying("fit"), progress.hidden():
        steps = 4 if args.small else 300
        changes = {"steps": 2 * steps}
        start = time.perf_counter()
        fit(options("quick", args, **changes), args.out / "graph-whole")
        report(f"seconds of a fit of {2 * steps} steps", round(time.perf_counter() - start, 1))
        fit(options("quick", args, steps=steps), args.out / "graph-part")
        resume(args.out / "graph-part", steps=2 * steps)
        files = [(args.out / run / "model.safetensors").read_bytes() for run in ("graph-whole", "graph-part")]
        report("resumed to the same bytes", files[0] == files[1])
        moved = resume(args.out / "graph-part", steps=2 * steps + 2, device="cpu")
        report("resumed on a CPU", moved.options.device)


# ------------------------------------------------------------------------------------------------- compile and rates


def compile_(args: argparse.Namespace, report: Report) -> None:
    """Inductor: how long it takes, and whether the gradient is correct. The compiled code stays in its cache."""
    for name in ("quick", "noise-mean, 64×64"):
        with report.trying(name), as_in_a_fit(), precision("high"):
            run = prepare(options(name, args))
            one, other = stepper(run, replayed=False), Compiled(run)
            x, x_N = one._draw()
            start = time.perf_counter()
            other(x, x_N)
            wait(args.device)
            report(f"{name}: seconds to compile", round(time.perf_counter() - start, 1))
            found = []
            for way in (other, one.gradient):
                torch.manual_seed(3)
                found.append([way(x, x_N), *(p.grad.clone() for p in run.vae.parameters())])
            report(f"{name}: compiled against eager, both in TF32", errors(*found))


def rates(args: argparse.Namespace, report: Report) -> None:
    """Steps per second, back to back; peak memory; kernels and their time."""
    ways: list[tuple[str, str, bool]] = [
        ("highest", "graph", False),
        ("high", "graph", False),
        ("high", "compiled", True),
    ]
    ceilings(args, report)
    for name in SETTINGS:
        for setting, way, compiled in ways:
            if compiled and name in ("plain, Table 4", "Table 4"):
                continue
            label = f"{name}, {'TF32' if setting == 'high' else 'float32'}, {way}"
            with (
                report.trying(label),
                precision(setting),
                pyro.validation_enabled(False),
                pyro.get_param_store().scope(),
            ):
                forget_peak(args.device)
                one = stepper(prepare(options(name, args)), compiled)
                report(f"{label}: steps/s", round(rate(partial(one.take, 10_000, 10), args), 1))
                if args.device.startswith("cuda"):
                    report(f"{label}: peak GiB", round(torch.cuda.max_memory_allocated() / 2**30, 2))
                    if setting == "high":
                        profile(label, one, args, report)
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
    """Peak rate of matrix products."""
    side = 64 if args.small else 8192
    for setting in ("highest", "high"):
        with precision(setting):
            a, b = (torch.randn(side, side, device=args.device) for _ in range(2))
            calls = rate(partial(lambda a, b: [a @ b for _ in range(5)], a, b), args)
            report(f"TFLOP/s, {'TF32' if setting == 'high' else 'float32'}", round(2 * side**3 * calls / 1e12, 1))


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


# ------------------------------------------------------------------------------------------------------------ train


def train(args: argparse.Namespace, report: Report) -> None:
    """Train fits from the list, which the workers share, until none is left."""
    run_module.load_dataset = cache(load_dataset)  # load each data set once
    for line in args.runs.read_text(encoding="utf-8").splitlines():
        given = json.loads(line)
        name = given.pop("name")
        try:
            (args.out / f"{name}.taken").touch(exist_ok=False)
        except FileExistsError:
            continue
        with report.trying(name):
            given = {"dataset": "3dshapes"} | given | (SMALL | {"steps": 2} if args.small else {})
            built = FitOptions.of("quick", **given)
            start = time.perf_counter()
            with progress.hidden():
                fit(replace(built, device=args.device), args.out / "runs" / name)
            report(name, round(time.perf_counter() - start, 1))


# -------------------------------------------------------------------------------------------------------------- all

PARTS = {"exact": exact, "graph": graph, "compile": compile_, "rates": rates, "train": train}


def main() -> None:
    """Run the parts (all but `rates` and `train` side by side) and write the report."""
    args = ARGUMENTS.parse_args()
    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        torch.set_num_threads(1)  # the parts run side by side
        if not args.device.startswith("cuda"):
            torch.compile = lambda traced, **options: traced  # Inductor takes minutes on a CPU
        PARTS[args.part](args, Report(args.out, args.part))
        return
    if any(args.out.iterdir()):
        ARGUMENTS.error(f"{args.out} is not empty: give a new directory")
    start = time.monotonic()

    def begin(part: str) -> tuple[str, subprocess.Popen]:
        with (args.out / f"{part}.log").open("a", encoding="utf-8") as log:
            command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
            return part, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def end(part: str, process: subprocess.Popen, limit: float) -> None:
        left = args.seconds - (time.monotonic() - start)
        try:
            code: object = process.wait(max(1.0, min(limit, left)))
        except subprocess.TimeoutExpired:
            process.kill()
            code = "stopped at its limit"
        print(f"{time.monotonic() - start:.0f} s: {part} ended: {code}", flush=True)

    def limit(part: str) -> float:
        return LIMITS[part] if args.device.startswith("cuda") else args.seconds

    together = [begin(part) for part in ("exact", "graph", "compile") if part in args.parts]
    for part, process in together:
        end(part, process, limit(part))
    if "rates" in args.parts:
        end(*begin("rates"), limit("rates"))
    if "train" in args.parts and args.runs:
        for worker in [begin("train") for _ in range(args.workers)]:
            end(*worker, args.seconds)
    lines = [json.loads(line) for part in PARTS for path in [args.out / f"{part}.jsonl"] if path.exists()
             for line in path.read_text(encoding="utf-8").splitlines()]  # fmt: skip
    report = "\n".join(f"[{line['part']}] {line['name']}: {line['value']}" for line in lines)
    (args.out / "report.txt").write_text(report + "\n", encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
