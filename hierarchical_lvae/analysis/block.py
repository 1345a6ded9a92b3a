"""Laplace and NUTS for a block of the local weights, with the others held at a point.

In a few hundred dimensions, unlike in hundreds of thousands, NUTS can sample the true posterior, and importance ratios
can be meaningful. If only the head is local, the point is the exact mode, and the block is the first output channel
where that is small enough. Otherwise the point is the one-step estimate, and the block consists of biases.
"""

import statistics
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor

from hierarchical_lvae.analysis.measure import Measured, Points, predict, timed
from hierarchical_lvae.analysis.settings import ComparisonSettings
from hierarchical_lvae.evaluation import loo, pareto_k, to_arviz
from hierarchical_lvae.inference import Dense, ExactMAP, Laplace, LocalELBO, OneStepMAP, estimate_evidence
from hierarchical_lvae.inference.gaussians import Embedded
from hierarchical_lvae.inference.nuts import LARGEST, nuts
from hierarchical_lvae.inference.predictive import log_likelihoods
from hierarchical_lvae.runs import Run

BIASES = 50
DIMS = {
    "theta_N": ["neighbourhood", "parameter"],
    "z": ["neighbourhood", "point", "latent"],
    "x": ["neighbourhood", "point"],
    "intensity": ["neighbourhood", "point", "channel"],
}


def default_block(run: Run) -> tuple[str, ...]:
    """The patterns of the first channel of a local head, if it is small enough; else biases of the last layers.

    Raises:
        ValueError: none of the local layers has a bias.
    """
    layout = run.vae.decoder.layout
    if has_exact_mode(run) and len(layout.positions(*layout.channels()[0])) <= room(run):
        return layout.channels()[0]
    biases = [(name, shape) for name, shape in layout.shapes.items() if name.endswith(".bias")]
    names, size = list[str](), 0
    for name, (number,) in reversed(biases):
        size += number
        if size > BIASES:
            break
        names.append(name)
    if not names:
        raise ValueError(
            f"none of the local layers has few enough biases for a block ({BIASES}): choose a block among "
            + ", ".join(layout.shapes)
        )
    return tuple(names)


def has_exact_mode(run: Run) -> bool:
    """Whether only the head is local, so that `ExactMAP` applies."""
    decoder = run.vae.decoder
    head = list(decoder.whole.shapes)[-1].rpartition(".")[0]
    return not run.vae.adapts["encoder"] and all(name.startswith(f"{head}.") for name in decoder.layout.shapes)


def centre_name(run: Run) -> str:
    """The name of the point estimate at which the other weights are held."""
    return "exact" if has_exact_mode(run) else "one-step"


def room(run: Run) -> int:
    """The largest block: NUTS also samples the codes of the K neighbours."""
    return max(BIASES, LARGEST - run.options.num_neighbours * run.options.latent_dim)


def find_block(run: Run, patterns: tuple[str, ...]) -> Tensor:
    """The positions in the flat vector of the decoder parameters that match `patterns`: (p,).

    Raises:
        ValueError: no parameter matches, or too many do.
    """
    layout = run.vae.decoder.layout
    positions = layout.positions(*patterns).to(run.options.device)
    if len(positions) > room(run):
        raise ValueError(
            f"the block {' '.join(patterns)} has {len(positions):,} parameters, more than {room(run)}: choose biases "
            f"of the last layers, such as {list(layout.shapes)[-1]}"
        )
    return positions


class Block:
    """Local posteriors of the parameters that match `patterns`, on some neighbourhoods of a run."""

    def __init__(self, run: Run, patterns: tuple[str, ...], points: Points, settings: ComparisonSettings) -> None:
        self.run, self.points, self.settings, self.patterns = run, points, settings, patterns
        self.positions = find_block(run, patterns)
        pair = run.vae.model, run.vae.guide
        centre = ExactMAP() if has_exact_mode(run) else OneStepMAP()
        point = LocalELBO(centre, beta=run.elbo.beta)
        _, self.point_seconds = timed(lambda: point.local_posterior(*pair, points.support), 5)
        self.elbo = LocalELBO(Laplace(centre, Dense(), patterns), beta=run.elbo.beta)
        self.posterior, self.laplace_seconds = timed(lambda: self.elbo.local_posterior(*pair, points.support), 1)
        self.point = {name: q.mean for name, q in self.posterior.items()}

    def centre(self) -> Measured:
        """The point estimate at which the other weights are held."""
        codes = self.settings.num_codes * self.settings.num_draws
        result = predict(self.run, f"{centre_name(self.run)} (block)", [self.point], self.points, codes)
        result.seconds = self.point_seconds / len(self.points.x)
        block = self.point["theta_N"][..., self.positions]
        result.arviz = to_arviz(
            {"theta_N": block.cpu().movedim(1, 0).expand(1, self.settings.num_draws, -1, -1)},
            inference_method=centre_name(self.run),
            dims=DIMS,
            coords={"parameter": self._names()},
        )
        return result

    def laplace(self) -> Measured:
        """The dense Laplace approximation."""
        run, points, settings = self.run, self.points, self.settings
        q = self.posterior["theta_N"]
        assert isinstance(q, Embedded)
        draws = q.block.sample((settings.num_draws,))  # (S, R, 1, p)
        phi_N = self.point["phi_N"] if run.vae.adapts["encoder"] else run.vae.phi.expand(len(points.x), 1, -1)
        codes = run.vae.encode(points.support, phi_N).sample((settings.num_draws,))
        result, log_p = self._measure("laplace-block", draws, codes, chains=1)
        tau = run.vae.tau
        prior = dist.Normal(run.vae.theta[self.positions], tau).to_event(1)
        ratios = (log_p.sum(-1) + (prior.log_prob(draws) - q.block.log_prob(draws)).squeeze(-1)).T
        result.k_hat = statistics.median(pareto_k(ratio.cpu()) for ratio in ratios)
        pair = run.vae.model, run.vae.guide
        result.evidence = estimate_evidence(self.elbo, *pair, points.support).log_evidence.mean().item()
        result.seconds = self.laplace_seconds / len(points.x)
        return result

    def nuts(self) -> Measured:
        """The true posterior, up to Monte Carlo error."""
        run, settings = self.run, self.settings
        draws, codes, seconds = [], [], 0.0
        for r, support in enumerate(self.points.support.split(1)):
            centre = {name: value[r : r + 1] for name, value in self.point.items()}
            chains = partial(
                nuts, run.vae.model, run.vae.guide, support, centre=centre, positions=self.positions,
                num_samples=settings.num_draws // 2, warmup_steps=settings.warmup_steps, seed=settings.seed + 100 * r,
            )  # fmt: skip
            drawn, taken = timed(chains, 1)
            draws.append(drawn["theta_N"].flatten(0, 1).unsqueeze(1))
            codes.append(drawn["z"].flatten(0, 1).squeeze(1))
            seconds += taken / len(self.points.x)
        result, _ = self._measure("nuts", torch.stack(draws, 1), torch.stack(codes, 1), chains=2)
        result.seconds = seconds
        return result

    def _measure(self, method: str, draws: Tensor, codes: Tensor, chains: int) -> tuple[Measured, Tensor]:
        """Measure draws of the block (S, R, 1, p) and of the codes (S, R, K, D).

        Also returns log p(x_k | θ_N), (S, R, K).
        """
        run, points, settings = self.run, self.points, self.settings
        whole = self.point["theta_N"]
        values = [{**self.point, "theta_N": whole.index_copy(-1, self.positions, draw)} for draw in draws]
        result = predict(run, method, values, points, settings.num_codes)
        result.random_parameters = len(self.positions)
        log_p = log_likelihoods(run.vae.model, run.vae.guide, points.support, values, settings.num_codes, common=True)
        replicates = [
            run.vae.decode(z, v["theta_N"]).sample().mean((-2, -1)) for z, v in zip(codes, values, strict=True)
        ]

        def by_chain(values: Tensor) -> Tensor:
            return values.unflatten(0, (chains, -1)).cpu()

        result.arviz = to_arviz(
            {"theta_N": by_chain(draws.squeeze(2)), "z": by_chain(codes)},
            inference_method=method.removesuffix("-block"),
            log_likelihood={"x": by_chain(log_p)},
            posterior_predictive={"intensity": by_chain(torch.stack(replicates))},
            observed_data={"intensity": points.support.mean((-2, -1)).cpu()},
            dims=DIMS,
            coords={"parameter": self._names()},
        )
        result.loo = loo(result.arviz).mean
        return result, log_p

    def _names(self) -> list[str]:
        layout = self.run.vae.decoder.layout
        names = [f"{name}[{i}]" for name, shape in layout.shapes.items() for i in range(torch.Size(shape).numel())]
        return [names[i] for i in self.positions]
