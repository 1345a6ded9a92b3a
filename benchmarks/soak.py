"""An hour of fits, checkpoints, resumes, scores and figures in one process: does anything grow?

    python benchmarks/soak.py [--minutes 60] [--dataset digits]

Each round trains a run of the quick protocol (a local inference after the other), goes on with it, scores it and draws
it, in a directory of its own. Each minute the process's memory (RSS), open files, threads and child processes are
noted. The verdict: after the first third, which fills caches, the median of the last third may stand above that of the
second by 5 % in memory, and by none in open files, threads and children. Linux only; exit code 1 if it does.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from hierarchical_lvae.drawing import draw_all
from hierarchical_lvae.scoring import Settings, score
from hierarchical_lvae.training import FitOptions, fit, load_run, resume

LOCAL = ("one-step", "multi-step", "laplace", "shared")
LEAST = 9  # rounds and samples, three of each in a third
METRICS = ("mig", "sap", "iwae", "samples")


class Sample(NamedTuple):
    """What the process holds."""

    megabytes: float
    files: int
    threads: int
    children: int


def sample():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    tasks = list(Path("/proc/self/task").iterdir())
    children = sum(len((task / "children").read_text().split()) for task in tasks)
    return Sample(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd")), len(tasks), children)


def one_round(number, dataset, place):
    local = LOCAL[number % len(LOCAL)]
    alpha = 0.0 if local == "shared" else 1.0
    out = place / f"run-{number}"
    options = FitOptions.of("quick", dataset=dataset, local=local, alpha=alpha, seed=number, steps=40)
    fit(options, out, progress=False, checkpoint_every=1.0)
    resume(out, steps=60, progress=False, checkpoint_every=1.0)
    run = load_run(out)
    settings = Settings(train=100, test=50, draws=5, neighbourhoods=4)
    for _ in score(run, out, METRICS, settings, progress=False):
        pass
    draw_all(run, out)


def verdict(samples):
    """The lines that say what grew, and none if nothing did."""
    third = len(samples) // 3
    found = []
    for name in Sample._fields:
        values = [getattr(s, name) for s in samples]
        before, after = statistics.median(values[third : 2 * third]), statistics.median(values[2 * third :])
        if after > before * (1.05 if name == "megabytes" else 1):
            found.append(f"{name} grew: {before:g} in the second third, {after:g} in the last")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--dataset", default="digits")
    given = parser.parse_args()
    samples, stop, start = [], threading.Event(), time.monotonic()

    def watch():
        while not stop.wait(60):
            samples.append(sample())
            minutes = (time.monotonic() - start) / 60
            held = ", ".join(f"{name} {value:g}" for name, value in samples[-1]._asdict().items())
            print(f"{minutes:5.1f} min, round {rounds}: {held}", flush=True)

    watcher = threading.Thread(target=watch, daemon=True)
    rounds = 0
    watcher.start()
    with tempfile.TemporaryDirectory() as place:
        while time.monotonic() - start < 60 * given.minutes:
            one_round(rounds, given.dataset, Path(place))
            rounds += 1
    stop.set()
    watcher.join()
    grown = verdict(samples) if min(len(samples), rounds) >= LEAST else ["too few to tell: give more --minutes"]
    print(f"{rounds} rounds in {(time.monotonic() - start) / 60:.1f} minutes: {'; '.join(grown) or 'nothing grew'}")
    return bool(grown)


if __name__ == "__main__":
    sys.exit(main())
