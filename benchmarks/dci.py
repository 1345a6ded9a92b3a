"""Time the full DCI of 3D Shapes on two cores and on one: 10,000 points to train on, 5,000 to test on, six factors.

    python benchmarks/dci.py [RUN]

The codes are those of RUN's meta encoder or, without RUN, mixtures of the factors with noise. On one core and on two,
the scores must be equal.
"""

import sys
import time

import numpy as np

from hierarchical_lvae.analysis import encode
from hierarchical_lvae.data.replica import FACTOR_SIZES
from hierarchical_lvae.evaluation import dci
from hierarchical_lvae.runs import load_run

TRAIN, TEST = 10_000, 5_000


def points():
    if len(sys.argv) > 1:
        return encode(load_run(sys.argv[1]), TRAIN + TEST, codes="meta")
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(size, size=TRAIN + TEST) for size in FACTOR_SIZES], 1)
    return factors @ rng.normal(size=(len(FACTOR_SIZES), 10)) + rng.normal(size=(TRAIN + TEST, 10)), factors


def main():
    codes, factors = points()
    halves = codes[:TRAIN], factors[:TRAIN], codes[TRAIN:], factors[TRAIN:]
    seconds, scores = {}, {}
    for jobs in (2, 1):
        start = time.perf_counter()
        scores[jobs] = dci(*halves, n_jobs=jobs)[:4]
        seconds[jobs] = time.perf_counter() - start
        print(f"{jobs} process{'es' * (jobs > 1)}: {seconds[jobs]:.0f} s", scores[jobs], flush=True)
    assert scores[1] == scores[2]
    print(f"two processes take {seconds[2] / seconds[1]:.2f} of the time of one")


if __name__ == "__main__":
    main()
