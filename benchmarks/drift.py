"""How much the meta-gradient depends on the precision, and on the number of threads.

    python benchmarks/drift.py [--dataset digits] [--image-size 32] [--steps 100]

For each α, the second-order gradient of Equation 6 in float32 is compared with that in float64, at the same weights,
images and draws of the codes (B = 8, K = 5 noise neighbours). The table gives the relative error of the norm, the angle
between the two gradients in radians, and the relative error of the gradient itself. The weights are those after
`--steps` steps of the quick protocol (0: as initialised). Then one gradient, and the weights after `--steps` steps, are
compared between two threads and one.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import torch
from torch.distributions import normal

from hierarchical_lvae.inference import LocalELBO, OneStepMAP
from hierarchical_lvae.runs import prepare
from hierarchical_lvae.runs.options import FitOptions
from hierarchical_lvae.training import fit

ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
B, K = 8, 5


def in_both_precisions(shape, dtype, device):
    """Draws of the codes that do not depend on the precision."""
    return torch.randn(shape, dtype=torch.float64).to(dtype)


def meta_gradient(vae, x, x_N, alpha, dtype):
    """The loss in nats per image, and its gradient as one vector in float64."""
    vae = copy.deepcopy(vae).to(dtype)
    vae.alpha = alpha
    torch.manual_seed(1)
    loss = LocalELBO(OneStepMAP()).differentiable_loss(vae.model, vae.guide, x.to(dtype), x_N.to(dtype)) / len(x)
    loss.backward()
    return loss.item(), torch.cat([p.grad.double().flatten() for p in (vae.theta, vae.phi)])


def error(found, truth):
    """Errors of the norm, of the direction (in radians) and of the whole gradient."""
    norm, angle = abs(found.norm() / truth.norm() - 1), (found / found.norm() - truth / truth.norm()).norm()
    return norm.item(), angle.item(), ((found - truth).norm() / truth.norm()).item()


def trained(options, threads=1):
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as place:
        return fit(options, Path(place, "run"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    common = {"dataset": given.dataset, "image_size": given.image_size, "neighbourhood": "noise"}
    options = FitOptions.of("quick", **common, steps=max(given.steps, 1))
    run = trained(options) if given.steps else prepare(options)
    index = torch.randint(len(run.dataset), (B,), generator=torch.Generator().manual_seed(0))
    x = run.dataset.batch(index)
    torch.manual_seed(0)
    x_N = run.vae.likelihood.around(x).sample((K,)).transpose(0, 1)
    draw, normal._standard_normal = normal._standard_normal, in_both_precisions
    print(f"{run.dataset.source}, {tuple(x.shape[1:])}, after {given.steps} steps, activation relu")
    print("| α | loss (nats) | ‖gradient‖ | error of the norm | angle | ‖difference‖ / ‖gradient‖ |")
    print("|---|---|---|---|---|---|")
    for alpha in ALPHAS:
        (loss, truth), (_, found) = (meta_gradient(run.vae, x, x_N, alpha, t) for t in (torch.float64, torch.float32))
        errors = " | ".join(f"{e:.1e}" for e in error(found, truth))
        print(f"| {alpha:g} | {loss:.2f} | {truth.norm():.4g} | {errors} |")
    gradients = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        gradients.append(meta_gradient(run.vae, x, x_N, 1.0, torch.float32)[1])
    print(f"one gradient, 2 threads against 1: ‖difference‖ / ‖gradient‖ = {error(*gradients)[2]:.1e}")
    normal._standard_normal = draw
    if given.steps:
        one, two = (torch.cat([p.detach().flatten() for p in trained(options, n).vae.parameters()]) for n in (1, 2))
        print(f"weights after {given.steps} steps, 2 threads against 1: {error(two, one)[2]:.1e}")


if __name__ == "__main__":
    main()
