"""The scores of a run, one by one, in `metrics.json`: what stands there by the same settings is not computed again."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hierarchical_lvae.files import read_json, write_json
from hierarchical_lvae.runs import Run
from hierarchical_lvae.scoring import CODES, SCORES
from hierarchical_lvae.scoring.bounds import likelihood
from hierarchical_lvae.scoring.codes import Encoded, disentanglement, encode
from hierarchical_lvae.scoring.images import choose_features, closeness, distance
from hierarchical_lvae.scoring.settings import Settings
from hierarchical_lvae.types import nearest

DEPENDS = {
    "fid": ("seed", "images"),
    "samples": ("seed", "neighbourhoods"),
    "iwae": ("seed", "neighbourhoods", "draws"),
}
"""The settings that a score of a run depends on; the others, on these:"""
POINTS = ("seed", "codes", "train", "test")


def score(
    run: Run, path: Path, names: Sequence[str] = SCORES, settings: Settings | None = None, progress: bool = True
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compute the scores `names` of a run, each written to path/metrics.json as it is there; give them one by one.

    A score that does not apply (the data have no factors) gives {"not_available": why}; codes of a union of data sets
    are scored part by part, each on its own factors: {"parts": {name: score}}.

    Raises:
        ValueError: no such score or codes; or codes that are not finite.
    """
    settings = settings or Settings()
    for given, known, kind in ((names, SCORES, "score is"), ([settings.codes], CODES, "codes are")):
        for name in given:
            if name not in known:
                raise ValueError(f"no {kind} called {name!r}: {nearest(name, known)}")
    saved = read_scores(path)
    parts = run.dataset.sub_sets
    of_part = [settings.within(part.stop - part.start) for part in parts]

    @cache
    def points(i: int) -> Encoded:
        number = of_part[i].train + of_part[i].test
        return encode(run, number, settings.codes, settings.seed, progress, parts[i])

    for name in names:
        features = choose_features(run, settings, progress) if name == "fid" else None
        about = _about(run, path, name, settings)
        if features:
            about |= {"features": features.name, "weights": features.digest}
        key = name if name in DEPENDS or settings.codes == "local" else f"{name}-{settings.codes}"
        if saved.get(key, {}).get("settings") != about:
            if name == "iwae":
                values = likelihood(run, settings, progress)
            elif name == "samples":
                values = closeness(run, settings, progress)
            elif features:
                values = distance(run, features, settings, progress)
            elif name == "fid":
                values = {"not_available": "no weights of Inception, and the data as a whole have no factors"}
            elif not any(part.factor_names for part in parts):
                values = {"not_available": "the data have no factors"}
            else:
                each = {
                    part.name: disentanglement(name, points(i), part.factor_names, of_part[i], progress)
                    for i, part in enumerate(parts)
                }
                values = {"parts": each} if run.dataset.parts else each[""]
            saved[key] = {"settings": about, **values}
            write_json(path / "metrics.json", saved)
        yield name, saved[key]


def _about(run: Run, path: Path, name: str, settings: Settings) -> dict[str, Any]:
    """All that a score depends on: what stands by the same is not computed again."""
    about = {key: getattr(settings, key) for key in DEPENDS.get(name, POINTS)}
    return {**about, "model": model_digest(path), "data": run.dataset.fingerprint, "versions": _versions(name)}


def model_digest(path: Path) -> str | None:
    """A hash of the weights in a run directory, if there are any."""
    weights = path / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16] if weights.is_file() else None


def read_scores(path: Path) -> dict[str, Any]:
    """Read metrics.json of a run directory, if there is one.

    Raises:
        ValueError: it is not what was written.
    """
    file = path / "metrics.json"
    saved = read_json(file) if file.is_file() else {}
    if not all(isinstance(values, dict) for values in saved.values()):
        raise ValueError(f"{file} holds no scores: move it away to score anew")
    return saved


def _versions(name: str) -> dict[str, str]:
    of_images = ("torch-fidelity",) if name == "fid" else ()
    return {name: version(name) for name in ("hierarchical-lvae", "scikit-learn", "torch", "numpy", *of_images)}
