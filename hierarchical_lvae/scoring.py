"""A trained run, scored: its codes by the measures of disentanglement, its images by their likelihood.

Codes are means of the encoder, local (adapted on fresh, seeded neighbours of each point) or meta. Points are drawn with
replacement, as the field does, from the data that the run was trained on: there is no split.
Results go to `metrics.json` one by one, and what stands there by the same settings is not computed again.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from hierarchical_lvae.checkpoints import write_json
from hierarchical_lvae.comparison.measure import draw_points
from hierarchical_lvae.evaluation import METRICS, Dci, active_units, bits_per_dimension, iwae
from hierarchical_lvae.inference.bound import log_weights
from hierarchical_lvae.runs import Run
from hierarchical_lvae.types import lookup, random_state_kept

CODES = ("local", "meta")
SCORES = (*METRICS, "iwae")
TRAIN, TEST = 10_000, 5_000
IWAE_DRAWS = (1, 10, 100, 1_000, 5_000)
SPLIT = ("dci", "sap", "modularity")
"""Measures that fit on some points and test on others."""


class Settings(NamedTuple):
    """How the points are drawn; part of each result."""

    codes: str = "local"
    seed: int = 0
    train: int = TRAIN
    test: int = TEST
    neighbourhoods: int = 16
    """For the likelihood."""
    draws: int = IWAE_DRAWS[-1]
    """Of the codes, for the likelihood."""


class Encoded(NamedTuple):
    """Points of the data, as a run encodes them."""

    codes: NDArray[np.float32]
    """(n, D)."""
    factors: NDArray[np.int64]
    """(n, F)."""


def score(
    run: Run, path: Path, names: Sequence[str] = SCORES, settings: Settings | None = None, progress: bool = True
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compute the scores `names` of a run, each written to path/metrics.json as it is there; give them one by one.

    A score that does not apply (the data have no factors) gives {"not_available": why}.

    Raises:
        ValueError: no such score or codes; or codes that are not finite.
    """
    settings = settings or Settings()
    if settings.codes not in CODES:
        raise ValueError(f"no codes are called {settings.codes!r}: there are {' and '.join(CODES)}")
    saved = read_scores(path)
    encoded: list[Encoded] = []

    def points() -> Encoded:
        if not encoded:
            encoded.append(encode(run, settings.train + settings.test, settings.codes, settings.seed, progress))
        return encoded[0]

    for name in names:
        about = _about(run, path, name, settings)
        key = name if name == "iwae" or settings.codes == "local" else f"{name}-{settings.codes}"
        if saved.get(key, {}).get("settings") != about:
            if name == "iwae":
                values = likelihood(run, settings, progress)
            else:
                values = _disentanglement(run, name, points, settings, progress)
            saved[key] = {"settings": about, **values}
            write_json(path / "metrics.json", saved)
        yield name, saved[key]


def _about(run: Run, path: Path, name: str, settings: Settings) -> dict[str, Any]:
    """All that a score depends on: what stands by the same is not computed again."""
    kept = ("seed", "neighbourhoods", "draws") if name == "iwae" else ("seed", "codes", "train", "test")
    about = {key: value for key, value in settings._asdict().items() if key in kept}
    weights = path / "model.safetensors"
    model = hashlib.sha256(weights.read_bytes()).hexdigest()[:16] if weights.is_file() else None
    return {**about, "model": model, "data": run.dataset.fingerprint, "versions": _versions()}


def read_scores(path: Path) -> dict[str, Any]:
    """Read metrics.json of a run directory, if there is one.

    Raises:
        ValueError: it is not what was written.
    """
    file = path / "metrics.json"
    if not file.is_file():
        return {}
    try:
        saved = json.loads(file.read_text())
        if not isinstance(saved, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise ValueError(f"{file} cannot be read ({error}): move it away to score anew") from error
    return saved


@torch.no_grad()
def encode(run: Run, number: int, codes: str = "local", seed: int = 0, progress: bool = True) -> Encoded:
    """Encode random points of the run's data: the random state is left as it was."""
    found, batch = [], 50
    with random_state_kept(), pyro.validation_enabled(False), tqdm(
        desc=f"encode ({codes})", total=number, unit="image", disable=not progress
    ) as bar:  # fmt: skip
        torch.manual_seed(seed)
        index = torch.randint(len(run.dataset), (number,))
        for part in index.split(batch):
            part = part.to(run.options.device)
            x = run.dataset.batch(part)
            found.append(run.encode(x, run.neighbourhood(part, x) if codes == "local" else None).cpu())
            bar.update(len(part))
    return Encoded(torch.cat(found).numpy(), run.dataset.factors[index.numpy()])


@torch.no_grad()
def likelihood(run: Run, settings: Settings, progress: bool = True) -> dict[str, Any]:
    """ELBO and IWAE bounds under local weights, of points that were adapted on and of points that were not.

    Their difference is what peeking gains. Nats an image; also bits a dimension, squared errors of reconstructions
    (a pixel) and active units.
    """
    vae = run.vae
    values: dict[str, Any] = {}
    with random_state_kept(), pyro.validation_enabled(False), pyro.get_param_store().scope():
        torch.manual_seed(settings.seed)
        points = draw_points(run, settings.neighbourhoods)
        local = {name: q.mean for name, q in run.adapt(points.x, points.support).items()}
        parts = {"adapted_on": points.support, "held_out": points.held_out, "reference": points.x.unsqueeze(1)}
        for part, x in parts.items():
            bar = tqdm(range(settings.draws), desc=f"IWAE ({part})", unit="draw", disable=not progress)
            weights = np.stack([log_weights(vae.model, vae.guide, x, run.elbo.sites, local).cpu().numpy() for _ in bar])
            bounds = {k: iwae(weights, k) for k in IWAE_DRAWS if k <= settings.draws}
            largest = bounds[max(bounds)]
            values[part] = {
                "nats": {f"k={k}": float(bound.mean()) for k, bound in bounds.items()},
                "standard_error": float(largest.mean(1).std(ddof=1) / math.sqrt(len(largest))),
                "bits_per_dimension": bits_per_dimension(float(largest.mean()), math.prod(x.shape[2:])),
            }
        pairs = (("local", points.support), ("meta", None))
        z = {name: run.encode(points.x, x_N) for name, x_N in pairs}
        values["squared_error"] = {
            name: float((run.decode(z[name].unsqueeze(1), x_N).squeeze(1) - points.x).square().mean())
            for name, x_N in pairs
        }
    sample = encode(run, 1_000, "local", settings.seed, progress=False)
    values["active_units"] = active_units(sample.codes)
    return values


def geometry(factor_names: Sequence[str]) -> list[int]:
    """The numbers of the factors that are no colours: "without colour"."""
    return [k for k, name in enumerate(factor_names) if not ("hue" in name or "colour" in name or "color" in name)]


def _disentanglement(run: Run, name: str, points: Any, settings: Settings, progress: bool) -> dict[str, Any]:
    names = run.dataset.factor_names
    if not names:
        return {"not_available": "the data have no factors"}
    encoded, metric, n = points(), lookup(METRICS, name, "metric"), settings.train
    codes, factors = encoded
    if name in SPLIT:
        more = {"progress": progress} if name == "dci" else {}
        result = metric(codes[:n], factors[:n], codes[n:], factors[n:], seed=settings.seed, **more)
    elif name == "mig":
        result = metric(codes[:n], factors[:n])
    else:
        result = metric(codes[:n], factors[:n], seed=settings.seed)
    values = _plain(result)
    if isinstance(result, Dci):
        values["factors"] = list(names)
        kept = geometry(names)
        if 0 < len(kept) < len(names):
            part = _plain(result.of_factors(kept))
            values["without_colour"] = {key: value for key, value in part.items() if isinstance(value, float)}
    return values


def _plain(result: Any) -> dict[str, Any]:
    return {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in result._asdict().items()}


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("hierarchical-lvae", "scikit-learn", "torch", "numpy")}
