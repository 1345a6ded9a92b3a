"""Measures of one local posterior: held-out density, evidence, pixels and cost."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from hierarchical_lvae.analysis.settings import ComparisonSettings
from hierarchical_lvae.evaluation import calibration_error, coverage
from hierarchical_lvae.inference import (
    LOCAL_INFERENCE,
    Laplace,
    LocalELBO,
    MultiStepMAP,
    OneStepMAP,
    diagnose,
    estimate_evidence,
)
from hierarchical_lvae.inference.predictive import Values, draws, log_likelihoods
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import LocalInference, lookup

log = logging.getLogger(__name__)
ROUNDS, ENOUGH = 5, 5.0  # timed inferences at most, and seconds after which they stop


class Points(NamedTuple):
    """Neighbourhoods of a run, with held-out points to predict."""

    x: Tensor
    """The references: (R, C, H, W)."""
    support: Tensor
    """Adapted on: (R, K, C, H, W)."""
    held_out: Tensor
    """Not adapted on: (R, K', C, H, W)."""


@dataclass(eq=False)
class Measured:
    """One method of a comparison, measured on some neighbourhoods; values that do not apply are None."""

    method: str
    log_p: Tensor = field(repr=False)
    """log p(x | N) of held-out points: (R, K'), nats."""
    pixels: Tensor = field(repr=False)
    """Predicted pixel means of the references at each draw of the local weights: (S, R, C, H, W)."""
    held_out: float
    """The mean of `log_p`, in nats per image."""
    calibration: float
    """Expected calibration error of the held-out points' pixel means, decoded from their mean codes, in pixel units."""
    coverage: float | None
    """Share of the references' pixels inside the 90 % interval of their predicted means over the local weights."""
    random_parameters: int = 0
    """Number of local parameters per neighbourhood that have a distribution instead of a point estimate."""
    seconds: float = math.nan
    """Time of the inference per neighbourhood."""
    evidence: float | None = None
    """log p(N) by Laplace's formula, in nats per neighbourhood; for a block, given the other weights. Covariance
    structures differ in what they ignore, so it is comparable only within one."""
    k_hat: float | None = None
    """Pareto k̂ of the draws as a proposal for the posterior: the median over neighbourhoods."""
    loo: float | None = None
    """Leave-one-out density of the support points under the draws of the block, in nats per image. The other weights
    are held at an estimate from *all* support points, so this does not estimate `held_out`."""
    arviz: Any = field(default=None, repr=False)
    """For a method of the block, its draws as an ArviZ object."""
    gain: float = math.nan
    """Gain in `held_out` over the table's point estimate (one-step; exact for a block of a head), in nats per image."""
    gain_error: float | None = None
    """Standard error of the gain, over neighbourhoods."""
    cost: float = math.nan
    """Time of the inference, in multiples of that estimate's."""

    def relative_to(self, point: "Measured") -> "Measured":
        """The same with gain and cost relative to a point estimate on the same points."""
        gains = (self.log_p - point.log_p).mean(1)
        error = gains.std().item() / len(gains) ** 0.5 if len(gains) > 1 else None
        return replace(self, gain=gains.mean().item(), gain_error=error, cost=self.seconds / point.seconds)


def draw_points(run: Run, number: int) -> Points:
    """Draw references, neighbours to adapt on, and held-out neighbours: half of them if no others can be drawn.

    Raises:
        ValueError: there is no neighbour to hold out, or it would be a copy of the image.
    """
    index = torch.randint(len(run.dataset), (number,)).to(run.options.device)
    x = run.dataset.batch(index)
    support = run.neighbourhood(index, x)
    held_out = run.neighbourhood.held_out(index, x)
    if held_out is None:
        if support.shape[1] < 2:
            raise ValueError("K = 1 leaves no neighbour to hold out: use a run with more neighbours")
        support, held_out = support.tensor_split(2, dim=1)
        given = support.shape[1]
        log.info("adapting to %d of %d neighbours: the others are held out", given, given + held_out.shape[1])
    if torch.equal(support[:, 0], held_out[:, 0]):
        raise ValueError("the neighbours are copies of the images (0 or 1 pixels have no noise): none can be held out")
    return Points(x, support, held_out)


def measure(run: Run, method: str, points: Points, settings: ComparisonSettings) -> Measured:
    """Infer all local weights by a method of `LOCAL_INFERENCE`, and measure the result."""
    pair = run.vae.model, run.vae.guide

    def infer() -> tuple[LocalELBO, dict[str, dist.TorchDistribution]]:
        torch.manual_seed(settings.seed)  # each method's step uses the same draws of the codes
        elbo = LocalELBO(_local_inference(run, method, points.support), beta=run.elbo.beta)
        torch.manual_seed(settings.seed)
        return elbo, elbo.local_posterior(*pair, points.support)

    (elbo, posterior), seconds = timed(infer, ROUNDS, ENOUGH)
    if "theta_N" not in posterior:
        posterior["theta_N"] = dist.Delta(run.vae.theta.expand(len(points.x), 1, -1), event_dim=1)
    random = int((posterior["theta_N"].variance[0] > 0).sum())
    number = settings.num_draws if random else 1
    codes = settings.num_codes * settings.num_draws // number
    result = predict(run, method, draws(posterior, number), points, codes)
    result.random_parameters, result.seconds = random, seconds / len(points.x)
    if isinstance(elbo.local, Laplace):
        result.evidence = estimate_evidence(elbo, *pair, points.support).log_evidence.mean().item()
    return result


def predict(run: Run, method: str, values: Iterable[Values], points: Points, num_codes: int) -> Measured:
    """Predict the held-out points and the references with S draws of the local values."""
    vae, pixels, predicted = run.vae, list[Tensor](), torch.zeros_like(points.held_out)

    def mean_pixels(value: Values, x: Tensor) -> Tensor:
        phi_N = value.get("phi_N", vae.phi.expand(len(x), 1, -1))
        return vae.decode(vae.encode(x, phi_N).mean, value["theta_N"]).mean.clamp(0, 1)

    def recorded() -> Iterator[Values]:
        for value in values:
            pixels.append(mean_pixels(value, points.x.unsqueeze(1)).squeeze(1))
            predicted.add_(mean_pixels(value, points.held_out))
            yield value

    log_p = log_likelihoods(vae.model, vae.guide, points.held_out, recorded(), num_codes)
    log_p, drawn = log_p.logsumexp(0) - math.log(len(log_p)), torch.stack(pixels)
    return Measured(
        method,
        log_p,
        drawn,
        log_p.mean().item(),
        calibration_error((predicted / len(pixels)).cpu(), points.held_out.cpu()),
        coverage(drawn.cpu(), points.x.cpu()) if len(drawn) > 1 else None,
    )


def timed(function: Callable[[], Any], rounds: int, enough: float = math.inf) -> tuple[Any, float]:
    """The last result of a function and its median seconds, over `rounds` calls or until they took `enough` seconds."""
    seconds = list[float]()
    while len(seconds) < rounds and sum(seconds) < enough:
        start = time.perf_counter()
        result = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


def _local_inference(run: Run, method: str, support: Tensor) -> LocalInference:
    if method == "multi-step":  # to the mode, in steps that are stable at this curvature: the one step is too long
        info = diagnose(LocalELBO(OneStepMAP(), beta=run.elbo.beta), run.vae.model, run.vae.guide, support)
        shorter = 1 + 1.5 * info.sharpness.abs().max().item()
        number = min(500, math.ceil(5 * shorter))  # where only the prior pulls, e⁻⁵ of the distance remains
        return MultiStepMAP(number, step_size=float(run.vae.tau) ** 2 / shorter)
    return lookup(LOCAL_INFERENCE, method, "local inference")()
