"""Meta-train the sinusoid regression with SVI, and print by what factor one step reduces the error.

python benchmarks/sinusoid.py --steps 20000
"""

import click
import pyro
import torch
from pyro.infer import SVI
from tqdm import trange

from hierarchical_lvae.inference import LocalELBO, MultiStepMAP, OneStepMAP, Shared
from hierarchical_lvae.models import Sinusoid
from hierarchical_lvae.models.sinusoid import draw_tasks


@click.command()
@click.option("--steps", default=20_000, show_default=True, help="Meta-steps of 25 tasks.")
@click.option("--lr", default=1e-3, show_default=True, help="Learning rate of Adam.")
@click.option("--seed", default=0, show_default=True)
def main(steps: int, lr: float, seed: int) -> None:
    """Report the squared error on 10 query points of 1,000 new tasks, adapted on 10 support points."""
    torch.manual_seed(seed)
    program = Sinusoid()
    svi = SVI(program.model, program.guide, pyro.optim.Adam({"lr": lr}), LocalELBO(OneStepMAP()))
    for _ in trange(steps, desc="meta-training"):
        svi.step(*draw_tasks(25))
    query, support = draw_tasks(1_000)
    errors = {}
    mode = MultiStepMAP(200, step_size=program.tau**2 / 20)
    for name, local in {"0 steps": Shared(), "1 step": OneStepMAP(), "the mode": mode}.items():
        posterior = LocalELBO(local).local_posterior(program.model, program.guide, support)
        weights = posterior["theta_N"].mean if posterior else program.theta.expand(1_000, 1, -1)
        with torch.no_grad():
            errors[name] = (program.predict(query[0], weights) - query[1]).square().mean().item()
    for name, error in errors.items():
        click.echo(
            f"{name:>8}: squared error {error:.3f}, {errors['0 steps'] / error:.1f} times less than with 0 steps"
        )


if __name__ == "__main__":
    main()
