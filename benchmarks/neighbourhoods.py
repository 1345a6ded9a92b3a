"""What neighbours cost: nearest codes relative to a meta-step, and the table of nearest images by pixels.

    python benchmarks/neighbourhoods.py [codes|pixels]

On the 480,000 images of 3D Shapes (or its replica), with the networks of Table 3: B = 25, K = 10, D = 10, 64×64×3.
Codes: the step, the search and the update of codes are interleaved; medians over `ROUNDS` rounds, after one to warm up.
Pixels: the time and the memory to find all neighbours, and their recall.
"""

import resource
import statistics
import sys
import time

import torch

from hierarchical_lvae.inference import LocalELBO, OneStepMAP
from hierarchical_lvae.neighbourhoods.pixels import describe_steps
from hierarchical_lvae.neighbourhoods.search import all_neighbours, choose_index, recall
from hierarchical_lvae.runs import FitOptions, prepare

ROUNDS = 7


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


def codes():
    run = prepare(FitOptions.of("paper", dataset="3dshapes", neighbourhood="latent-knn"))
    run.neighbourhood.load_state_dict({"codes": torch.randn(len(run.dataset), 10)})
    elbo, seconds = LocalELBO(OneStepMAP()), []
    for _ in range(ROUNDS + 1):
        index = torch.randint(len(run.dataset), (25,))
        x = run.dataset.batch(index)
        _, update = timed(run.neighbourhood.update, index, x)
        x_N, search = timed(run.neighbourhood, index, x)
        _, step = timed(elbo.loss_and_grads, run.vae.model, run.vae.guide, x, x_N)
        seconds.append((update, search, step))
    update, search, step = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
    share = f"{(update + search) / step:.1%} of a step"
    print(f"update of 25 codes {update:.4f} s, search {search:.4f} s, step {step:.4f} s: neighbours cost {share}")
    sample = torch.arange(10_000)
    _, seconds = timed(lambda: [run.neighbourhood._encode(run.dataset.batch(part)) for part in sample.split(1_000)])
    print(f"a refresh of all {len(run.dataset):,} codes: about {seconds * len(run.dataset) / len(sample):.0f} s")


def pixels():
    dataset = prepare(FitOptions.of("paper", dataset="3dshapes")).dataset
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    index = choose_index(len(dataset), 64 * 64 * 3)
    ids, seconds = timed(all_neighbours, dataset, 10, index)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{index}: {seconds:.0f} s, peak memory {peak / 2**20:.2f} GiB ({before / 2**20:.2f} GiB before)")
    print(f"recall@10 {recall(dataset, ids):.3f} on 200 images")
    print(describe_steps(dataset.factors, dataset.factor_names, ids))


if __name__ == "__main__":
    for name in sys.argv[1:] or ("codes", "pixels"):
        {"codes": codes, "pixels": pixels}[name]()
