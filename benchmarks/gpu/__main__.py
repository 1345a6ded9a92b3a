"""Is a step correct on a GPU, how fast is it, and what can be trained in the remaining time?

    python benchmarks/gpu OUT [--seconds 520] [--fits benchmarks/gpu/fits.jsonl]

Each part is a process with its own time limit; a failure is reported and does not stop the others:

    exact          both gradients against the CPU in float64: in float32, in TF32, with other forms of the layers
    graph          a step as a CUDA graph against the same step without a graph; run twice; not finite; resumed
    deterministic  what PyTorch's deterministic algorithms cost, and whether two fits then give the same bytes
    compile        the gradient compiled by Inductor: how long that takes, and whether it is correct
    rates          steps per second, memory, kernels (graphs, compiled, plain VAE, loop over tasks); the card's peak
    train          the fits in a file, one JSON object per line (`name`, `preset`, options), `--workers` at a time

`fits.jsonl` lists the pairs of docs/results.md at 64×64, and the same with α = 1. Several workers share a card well
under NVIDIA's MPS (`nvidia-cuda-mps-control -d`).

OUT then holds report.txt (read it first), a log of each part, and the run directories. `--device cpu --small` rehearses
everything without a GPU, in seconds; graphs are then plain calls.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from correct import compile_, exact, graph
from shared import SMALL, Report
from speed import deterministic, rates

from hierarchical_lvae import progress
from hierarchical_lvae.data import load_dataset
from hierarchical_lvae.runs import FitOptions
from hierarchical_lvae.runs import run as run_module
from hierarchical_lvae.training import fit

LIMITS = {"exact": 90, "graph": 200, "compile": 300, "rates": 200, "deterministic": 90}
"""Seconds for each part on a GPU; in a rehearsal each has all of `--seconds`."""
ARGUMENTS = argparse.ArgumentParser(description="Check, measure and train on one GPU.")
ARGUMENTS.add_argument("out", type=Path)
ARGUMENTS.add_argument("--seconds", type=float, default=520.0, help="Time limit of all parts together.")
ARGUMENTS.add_argument("--device", default="cuda")
ARGUMENTS.add_argument("--small", action="store_true", help="Rehearse with tiny images.")
ARGUMENTS.add_argument("--parts", nargs="*", default=[*LIMITS, "train"])
ARGUMENTS.add_argument("--fits", type=Path, help="The fits to train, one JSON object per line.")
ARGUMENTS.add_argument("--workers", type=int, default=1)
ARGUMENTS.add_argument("--part", help=argparse.SUPPRESS)


def train(args: argparse.Namespace, report: Report) -> None:
    """Train fits from the list, which the workers share, until none is left."""
    run_module.load_dataset = cache(load_dataset)  # load each data set once
    for line in args.fits.read_text(encoding="utf-8").splitlines():
        given = json.loads(line)
        name = given.pop("name")
        try:
            (args.out / f"{name}.taken").touch(exist_ok=False)
        except FileExistsError:
            continue
        with report.trying(name):
            preset = given.pop("preset", "quick")
            given = {"dataset": "3dshapes"} | given | (SMALL | {"steps": 2} if args.small else {})
            built = FitOptions.of(preset, **given)
            start = time.perf_counter()
            with progress.hidden():
                fit(replace(built, device=args.device), args.out / "runs" / name)
            report(name, round(time.perf_counter() - start, 1))


PARTS = {
    "exact": exact, "graph": graph, "compile": compile_, "rates": rates, "deterministic": deterministic, "train": train
}  # fmt: skip


ENVIRONMENT = {"deterministic": {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}}
"""What cuBLAS needs in order to be deterministic."""


def main() -> None:
    """Run the parts (those that measure no time side by side) and write the report."""
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
            environment = {**os.environ, **ENVIRONMENT.get(part, {})}
            return part, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

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
    for part in ("rates", "deterministic"):
        if part in args.parts:
            end(*begin(part), limit(part))
    if "train" in args.parts and args.fits:
        for worker in [begin("train") for _ in range(args.workers)]:
            end(*worker, args.seconds)
    lines = [json.loads(line) for part in PARTS for path in [args.out / f"{part}.jsonl"] if path.exists()
             for line in path.read_text(encoding="utf-8").splitlines()]  # fmt: skip
    report = "\n".join(f"[{line['part']}] {line['name']}: {line['value']}" for line in lines)
    (args.out / "report.txt").write_text(report + "\n", encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
