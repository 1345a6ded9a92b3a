"""An hour of fits, checkpoints, resumes, scores and figures in one process: does anything grow?

    python benchmarks/soak.py [--minutes 60] [--dataset digits]

Each round trains a run with the quick protocol, with each local inference in turn, and resumes, scores and draws it in
a directory of its own. After each round, the script prints the process's memory (RSS, and its peak in the round) and
its numbers of open files, threads and child processes. The first third of the rounds fills caches and is ignored. From
the second third to the last, the median memory may grow by 5 %, and the medians of open files, threads and children not
at all. Freed memory that a fit keeps (`hierarchical_lvae.training.memory`) counts, too; the last line reports how much
that is. Linux only; exit code 1 if anything grew.
"""

import argparse
import gc
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from hierarchical_lvae.analysis import ScoreSettings, score
from hierarchical_lvae.presentation.figures import draw_all
from hierarchical_lvae.runs import FitOptions, load_run
from hierarchical_lvae.training import fit, resume
from hierarchical_lvae.training.memory import give_back_freed_memory

LOCAL = ("one-step", "multi-step", "laplace", "shared")
LEAST = 12  # rounds: four in each third, one for each local inference
METRICS = ("mig", "sap", "iwae", "samples")


class Sample(NamedTuple):
    """The resources that the process holds."""

    megabytes: float
    peak: float
    files: int
    threads: int
    children: int


def sample():
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    tasks = list(Path("/proc/self/task").iterdir())
    children = sum(len((task / "children").read_text().split()) for task in tasks)
    held = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return Sample(held, int(peak[1]) / 1024, len(os.listdir("/proc/self/fd")), len(tasks), children)


def one_round(number, dataset, place):
    local = LOCAL[number % len(LOCAL)]
    alpha = 0.0 if local == "shared" else 1.0
    out = place / f"run-{number}"
    options = FitOptions.of("quick", dataset=dataset, local=local, alpha=alpha, seed=number, steps=40)
    fit(options, out, checkpoint_every=1.0)
    resume(out, steps=60, checkpoint_every=1.0)
    run = load_run(out)
    settings = ScoreSettings(train=100, test=50, draws=5, neighbourhoods=4)
    for name, values in score(run, METRICS, settings):
        assert "failed" not in values, f"{name}: {values['failed']}"
    draw_all(run)


def verdict(samples):
    """One line for each resource that grew."""
    third = len(samples) // 3
    found = []
    for name in Sample._fields:
        values = [getattr(s, name) for s in samples]
        before, after = statistics.median(values[third : 2 * third]), statistics.median(values[2 * third :])
        if after > before * (1.05 if name in ("megabytes", "peak") else 1):
            found.append(f"{name} grew: {before:g} in the second third, {after:g} in the last")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--dataset", default="digits")
    given = parser.parse_args()
    samples, start = [], time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        while time.monotonic() - start < 60 * given.minutes:
            one_round(len(samples), given.dataset, Path(place))
            gc.collect()
            samples.append(sample())
            minutes = (time.monotonic() - start) / 60
            held = ", ".join(f"{name} {value:.0f}" for name, value in samples[-1]._asdict().items())
            print(f"{minutes:5.1f} min, round {len(samples)}: {held}", flush=True)
    grown = verdict(samples) if len(samples) >= LEAST else ["too few for a verdict: give more --minutes"]
    print(
        f"{len(samples)} rounds in {(time.monotonic() - start) / 60:.1f} minutes: {'; '.join(grown) or 'nothing grew'}"
    )
    give_back_freed_memory()
    print(
        f"{sample().megabytes:.0f} of {samples[-1].megabytes:.0f} MB are in use; the rest is freed memory that is kept"
    )
    return bool(grown)


if __name__ == "__main__":
    sys.exit(main())
