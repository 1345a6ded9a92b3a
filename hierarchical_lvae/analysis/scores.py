"""The scores of a run, one by one, in `metrics.json`: a score saved there with the same settings is reused."""

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from hierarchical_lvae import __version__
from hierarchical_lvae.analysis import OF_RUN, SCORES
from hierarchical_lvae.analysis.codes import Encoded, disentanglement, encode
from hierarchical_lvae.analysis.images import choose_features
from hierarchical_lvae.analysis.settings import ScoreSettings
from hierarchical_lvae.analysis.store import Store, key_of
from hierarchical_lvae.evaluation import METRICS
from hierarchical_lvae.runs import Run
from hierarchical_lvae.runs.directory import read_weights
from hierarchical_lvae.types import accepted, check_name, lookup, reason

POINTS = ("seed", "codes", "train", "test")
"""The settings that scores of the codes depend on; scores of the whole run depend on their arguments."""
VERSION = 2
"""Version of the scores: increase it when one of them changes, and saved scores are computed again. A new release alone
does not cause that."""

log = logging.getLogger(__name__)


def score(
    run: Run,
    names: Sequence[str] = SCORES,
    settings: ScoreSettings | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compute the scores `names` of a run one by one; each is saved in metrics.json of its directory and then yielded.

    A score that does not apply (the data have no factors) is {"not_available": why}. Codes of a union of data sets are
    scored part by part, each on its own factors: {"parts": {name: score}}. A score that fails or is not finite is
    {"failed": why}: it is not saved, and the others are still computed. In a read-only directory, a warning is logged
    and nothing is saved.

    Raises:
        ValueError: a score does not exist, a setting is out of range, or metrics.json does not hold scores.
        OSError: the scores could not be saved for another reason; raised after the last score.
    """
    settings = settings or ScoreSettings()
    for name in names:
        check_name("score", name, SCORES)
    settings.check()
    store, model = Store(run.directory), digest(run.vae.state_dict())
    parts = run.dataset.sub_sets

    @cache
    def points(i: int) -> Encoded:
        some = settings.within(parts[i].stop - parts[i].start)
        return encode(run, some.train + some.test, settings.codes, settings.seed, parts[i])

    for name in names:
        key = key_of(name, settings.codes)
        try:
            features = choose_features(run, settings) if name == "fid" else None
            if name in METRICS:
                compute = partial(_of_codes, run, name, settings, points)
                about = {key: getattr(settings, key) for key in POINTS}
            else:
                compute = partial(lookup(OF_RUN, name, "score"), run, *([features] if name == "fid" else []))
                about = accepted(compute, **vars(settings))
                compute = partial(compute, **about)
            about |= {"model": model, "data": run.dataset.fingerprint, "versions": _versions(name)}
            about |= {"features": features.name, "weights": features.digest} if features else {}
            values = store.find(key, about)
            if values is None:
                values = {"settings": about, **compute()}
                _refuse_infinite(values)
                store.add(key, values)
        except Exception as error:
            log.debug("%s failed", name, exc_info=True)
            values = {"failed": reason(error)}
        yield name, values
    store.check()


def _of_codes(run: Run, name: str, settings: ScoreSettings, points: Callable[[int], Encoded]) -> dict[str, Any]:
    parts = run.dataset.sub_sets
    if not any(part.factor_names for part in parts):
        return {"not_available": "the data have no factors"}
    each = {
        part.name: disentanglement(name, points(i), part.factor_names, settings.within(part.stop - part.start))
        for i, part in enumerate(parts)
    }
    return {"parts": each} if run.dataset.parts else each[""]


def _versions(name: str) -> dict[str, str]:
    of_images = ("torch-fidelity",) if name == "fid" else ()
    of_others = {name: version(name) for name in ("scikit-learn", "torch", "numpy", *of_images)}
    return {"scores": str(VERSION), "hierarchical-lvae": __version__, **of_others}


def _refuse_infinite(values: Any, place: str = "") -> None:
    """Raise an error that names the first number of a score that is not finite: JSON cannot represent it."""
    if isinstance(values, float) and not math.isfinite(values):
        raise ValueError(f"{place!r} is {values}: has the fit diverged?")
    entries = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for key, inner in entries:
        _refuse_infinite(inner, f"{place} {key}".strip().replace("_", " "))


def outdated(values: Mapping[str, Any], model: str | None) -> str:
    """Why a saved score is not current: it was computed with other weights than `model`, or defined differently then.

    Args:
        values: the score.
        model: the `model_digest` of the run.

    Returns:
        What the score belongs to, "earlier weights" or "an earlier definition"; empty if it is current.
    """
    about = values.get("settings", {})
    if about.get("model") != model:
        return "earlier weights"
    return "" if about.get("versions", {}).get("scores") == str(VERSION) else "an earlier definition"


def model_digest(path: str | Path) -> str | None:
    """A hash of the weights in a run directory, or None if there are none.

    Raises:
        ValueError: the file of the weights is damaged.
    """
    try:
        return digest(read_weights(Path(path)))
    except FileNotFoundError:
        return None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of named tensors: 16 hexadecimal digits."""
    content = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return hashlib.sha256(content).hexdigest()[:16]
