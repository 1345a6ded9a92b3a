"""How good are the approximations of a local head's posterior, and which α does its evidence choose?

    python benchmarks/head_posterior.py truth RUN --out head-posterior.csv      # against NUTS, image by image
    python benchmarks/head_posterior.py evidence RUN --out head-evidence.csv    # α by evidence and by held-out density

RUN was trained with `--local-layers head`. `truth` looks at the weights of the first colour channel, given the codes:
one logistic regression per image. It writes one row per image and Gaussian: Pareto k̂ of the Gaussian as a proposal for
the posterior, and the error of its predicted pixel means against NUTS. NUTS takes one to three minutes per image.
"""

import argparse
import csv
from pathlib import Path

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.poutine import block, condition
from torch import Tensor

from hierarchical_lvae import progress
from hierarchical_lvae.analysis.measure import draw_points, measure
from hierarchical_lvae.analysis.settings import ComparisonSettings
from hierarchical_lvae.evaluation import pareto_k
from hierarchical_lvae.inference import (
    ByChannel,
    Dense,
    Diagonal,
    ExactMAP,
    Laplace,
    LocalELBO,
    LowRank,
    OneStepMAP,
    reestimate,
)
from hierarchical_lvae.inference.nuts import nuts
from hierarchical_lvae.runs import Run, load_run

DRAWS = 2_000
STRUCTURES = {"diagonal": Diagonal(64), "rank 10": LowRank(10), "rank 50": LowRank(50), "dense": Dense()}
CENTRES = {"one-step": OneStepMAP(), "mode": ExactMAP()}
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0)


class Channel:
    """The posterior of one channel's weights for one image, given its code."""

    def __init__(self, run: Run, x: Tensor, channel: int = 0) -> None:
        self.vae, self.x, self.channel = run.vae, x, channel
        self.patterns = run.vae.decoder.layout.channels()[channel]
        self.positions = run.vae.decoder.layout.positions(*self.patterns)
        with torch.no_grad():
            self.z = run.vae.encode(x, run.vae.phi.expand(1, 1, -1)).sample()
        self.model, self.guide = condition(run.vae.model, {"z": self.z}), block(run.vae.guide, hide=["z"])
        self.mode = self.centre(ExactMAP())

    def centre(self, local: object) -> Tensor:
        """All local weights, as one inference finds them: (1, 1, P)."""
        return LocalELBO(local).local_posterior(self.model, self.guide, self.x)["theta_N"].mean.detach()

    def gaussians(self) -> dict[str, dist.TorchDistribution]:
        """The Gaussian approximations: batch (), event (p,)."""
        found = {}
        for name, centre in CENTRES.items():
            point = self.centre(centre)[0, 0, self.positions]
            found[f"{name}, prior's width"] = dist.Normal(point, self.vae.tau).to_event(1)
            for label, structure in STRUCTURES.items():
                elbo = LocalELBO(Laplace(centre, structure, self.patterns))
                found[f"{name}, {label}"] = elbo.local_posterior(self.model, self.guide, self.x)["theta_N"].block
        return found

    def decode(self, weights: Tensor) -> dist.TorchDistribution:
        """p(x | z, θ_N) for S draws of the channel's weights (S, p)."""
        whole = self.mode.expand(len(weights), 1, -1).index_copy(-1, self.positions, weights.unsqueeze(1))
        return self.vae.decode(self.z.expand(len(weights), -1, -1), whole)

    def log_joint(self, weights: Tensor) -> Tensor:
        """log p(x, θ_N | z) of S draws of the channel's weights, up to a constant: (S,)."""
        likelihood = self.decode(weights).log_prob(self.x.expand(len(weights), *self.x.shape[1:]))
        prior = dist.Normal(self.vae.theta[self.positions], self.vae.tau)
        return likelihood.flatten(1).sum(1) + prior.log_prob(weights).sum(-1)

    def pixels(self, weights: Tensor) -> Tensor:
        """Predicted means of the channel's pixels: (S, H·W)."""
        return self.decode(weights).mean.squeeze(1)[:, self.channel].flatten(1)


@torch.no_grad()
def truth(run: Run, args: argparse.Namespace) -> list[dict]:
    """One row per image and Gaussian."""
    rows = []
    for number, x in enumerate(progress.bar(draw_points(run, args.images).support.split(1), desc="images")):
        torch.manual_seed(number)
        one = Channel(run, x)
        draws = nuts(
            one.model, one.guide, x, centre={"theta_N": one.mode}, positions=one.positions, num_samples=args.draws,
            warmup_steps=args.warmup, seed=number,
        )["theta_N"]  # fmt: skip
        chains = torch.stack([one.pixels(chain) for chain in draws])
        flat = chains.flatten(0, 1)
        named = {"mean": chains[..., ::16], "square": (chains[..., ::16] - flat[..., ::16].mean(0)).square()}
        ess = {name: float(np.median(arviz.ess(arviz.convert_to_dataset({"v": v.numpy()}))["v"]))
               for name, v in named.items()}  # fmt: skip
        for name, q in one.gaussians().items():
            weights = q.sample((DRAWS,)).reshape(DRAWS, -1)
            log_q = q.log_prob(weights.reshape(DRAWS, *q.batch_shape, -1)).reshape(DRAWS)
            ratios = one.log_joint(weights) - log_q
            drawn = one.pixels(weights)
            share = ratios.softmax(0)
            corrected = (share.unsqueeze(1) * drawn).sum(0)
            z = (flat.mean(0) - drawn.mean(0)) / (flat.var(0) / ess["mean"] + drawn.var(0) / DRAWS).sqrt()
            rows.append({
                "run": args.run.name, "image": number, "gaussian": name, "k_hat": float(pareto_k(ratios)),
                "error": (drawn.mean(0) - flat.mean(0)).abs().mean().item(),
                "error_reweighted": (corrected - flat.mean(0)).abs().mean().item(),
                "z": z.square().mean().sqrt().item(),
                "sd": flat.std(0).mean().item(), "sd_ratio": (drawn.std(0) / flat.std(0)).median().item(),
                "ess_mean": ess["mean"], "ess_square": ess["square"],
            })  # fmt: skip
        write(args.out, rows)
    return rows


def evidence(run: Run, args: argparse.Namespace) -> list[dict]:
    """One row per α: evidence and held-out density of the head's posterior, with all meta-parameters held."""
    rows, points, trained = [], draw_points(run, args.images), run.options.alpha
    settings = ComparisonSettings(neighbourhoods=args.images, num_draws=50)
    for alpha in progress.bar(ALPHAS, desc="α"):
        run.vae.alpha = alpha
        exact = measure(run, "laplace-exact", points, settings)
        one = measure(run, "one-step", points, settings)
        rows.append({
            "run": args.run.name, "trained_at": trained, "alpha": alpha, "evidence": exact.evidence,
            "held_out": exact.held_out, "held_out_one_step": one.held_out,
        })  # fmt: skip
        write(args.out, rows)
    run.vae.alpha = trained
    for _ in range(12):
        elbo = LocalELBO(Laplace(ExactMAP(), ByChannel()), beta=run.elbo.beta)
        run.vae.alpha *= reestimate(elbo, run.vae.model, run.vae.guide, points.support)
        print(f"re-estimated: α = {run.vae.alpha:.3g}", flush=True)
    return rows


def write(path: Path, rows: list[dict]) -> None:
    """Write the rows so far."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def main() -> None:
    """Compute one of the two tables."""
    parser = argparse.ArgumentParser(description="Approximations of a local head's posterior.")
    parser.add_argument("what", choices=("truth", "evidence"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    run = load_run(args.run)
    torch.manual_seed(0)
    with pyro.validation_enabled(False):
        {"truth": truth, "evidence": evidence}[args.what](run, args)


if __name__ == "__main__":
    main()
