"""Time and memory of a Laplace meta-step against a MAP step, on the networks of Table 3: B = 25, K = 10, 64×64×3.

    python benchmarks/laplace.py

Times are medians over `ROUNDS` interleaved rounds, after one warm-up round; memory is measured in one process per
method.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from hierarchical_lvae.inference import LOCAL_INFERENCE, LocalELBO
from hierarchical_lvae.models import LocalVAE
from hierarchical_lvae.types import lookup

METHODS = ("one-step", "laplace", "shared")
ROUNDS = 7


def step(elbo, vae, query, support):
    """Seconds of one meta-step, without the optimizer."""
    start = time.perf_counter()
    elbo.loss_and_grads(vae.model, vae.guide, query, support)
    return time.perf_counter() - start


def prepare():
    torch.manual_seed(0)
    return LocalVAE(alpha=1.0), torch.rand(25, 3, 64, 64), torch.rand(25, 10, 3, 64, 64).bernoulli()


def main():
    if len(sys.argv) > 1:
        elbo = LocalELBO(lookup(LOCAL_INFERENCE, sys.argv[1], "local inference")())
        for _ in range(2):
            step(elbo, *prepare())
        status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage would include the parent's peak
        print(int(status.split("VmHWM:")[1].split()[0]) / 2**20)
        return
    data = prepare()
    elbos = {name: LocalELBO(lookup(LOCAL_INFERENCE, name, "local inference")()) for name in METHODS}
    seconds = {name: [] for name in METHODS}
    for i in range(ROUNDS + 1):
        for name, elbo in elbos.items():
            taken = step(elbo, *data)
            if i:
                seconds[name].append(taken)
    for name in METHODS:
        command = [sys.executable, "-W", "ignore", __file__, name]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        median = statistics.median(seconds[name])
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["one-step"], strict=True))
        print(f"{name:10}  {median:6.2f} s  {ratio:5.2f} × one-step  peak memory of the process {peak:.1f} GiB")


if __name__ == "__main__":
    main()
