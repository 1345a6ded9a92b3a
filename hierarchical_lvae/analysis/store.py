"""`metrics.json` of a run directory: its scores by name, which several processes may add to at the same time."""

import errno
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hierarchical_lvae.analysis import SCORES
from hierarchical_lvae.evaluation import METRICS
from hierarchical_lvae.files import locked, read_json, write_json

META = "-meta"
"""How the name of a score of meta codes ends."""
LOCK = ".hlvae.metrics.lock"
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a directory that its owner has closed to writing."""

log = logging.getLogger(__name__)


def key_of(name: str, codes: str) -> str:
    """The key of a score in metrics.json, for `codes` of `CODES`.

    >>> key_of("dci", "meta"), key_of("swap", "meta")
    ('dci-meta', 'swap')
    """
    return name + META if name in METRICS and codes == "meta" else name


class Store:
    """The scores in a run directory. Each is merged, under a lock, into those that are there at that moment.

    Raises:
        ValueError: the file there holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.locks = Path(path), True
        self.error: OSError | ValueError | None = None
        """Why scores are not saved, if they are not."""
        read_scores(path)

    def find(self, key: str, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The score `key` by these settings, if it is there."""
        try:
            found = read_scores(self.path).get(key, {})
        except (OSError, ValueError):  # it was damaged since; saving will say so
            return None
        return found if found.get("settings") == settings else None

    def add(self, key: str, values: dict[str, Any]) -> None:
        """Save a score; if that fails, log it once, keep the error, and leave the file as it is."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path / LOCK) if self.locks else nullcontext(False) as self.locks:
                merged = {**read_scores(self.path), key: values}
                write_json(self.path / "metrics.json", {name: merged[name] for name in sorted(merged, key=_place)})
        except (OSError, ValueError) as error:
            if self.error is None:
                log.warning("scores are not saved: %s", error)
            self.error = error

    def check(self) -> None:
        """Check that the scores were saved, or that the directory is read-only on purpose.

        Raises:
            OSError: they could not be written.
            ValueError: the file was damaged in the meantime.
        """
        if self.error is not None and not is_read_only(self.error):
            raise self.error


def _place(key: str) -> tuple[int, str]:
    """Where a score stands in the file, in whatever order they were computed."""
    name = key.removesuffix(META)
    return SCORES.index(name) if name in SCORES else len(SCORES), key


def is_read_only(error: Exception) -> bool:
    """Whether a file could not be written because its place is read-only: then results are shown all the same."""
    return isinstance(error, OSError) and error.errno in READ_ONLY


def read_scores(path: str | Path) -> dict[str, Any]:
    """Read metrics.json of a run directory, if there is one.

    Raises:
        ValueError: it holds something else.
    """
    file = Path(path) / "metrics.json"
    saved = read_json(file) if file.is_file() else {}
    if not all(isinstance(values, dict) for values in saved.values()):
        raise ValueError(f"{file} does not hold scores: move it away to score again")
    return saved
