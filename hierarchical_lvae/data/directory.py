"""The data directory, for downloads and caches."""

import logging
import os
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from hierarchical_lvae.data.paths import printable
from hierarchical_lvae.files import scratch

log = logging.getLogger(__name__)


def default_data_dir() -> Path:
    """The directory for downloads and caches: $HLVAE_DATA, or else the user's cache directory.

    If there is no home directory, it is a temporary directory, which is deleted when the process ends.
    """
    if place := os.environ.get("HLVAE_DATA"):
        return Path(place)
    try:
        path = user_cache_path("hlvae")
    except RuntimeError:  # no home directory; older versions of platformdirs return a path that begins with ~
        return _temporary_dir()
    return path if path.is_absolute() else _temporary_dir()


@cache
def _temporary_dir() -> Path:
    log.warning(
        "there is no home directory for downloads and caches: using %s until this process ends; "
        "to keep them, set HLVAE_DATA or give `data_dir`",
        scratch(),
    )
    return scratch()


def data_directory(data_dir: str | Path | None) -> Path:
    """Return `data_dir`, or the default data directory, which need not exist.

    Raises:
        FileNotFoundError: `data_dir` does not exist.
        NotADirectoryError: `data_dir` or the default data directory is a file.
    """
    directory = default_data_dir() if data_dir is None else Path(data_dir)
    if data_dir is not None and not directory.exists():
        raise FileNotFoundError(
            f"the data directory {printable(directory)} does not exist: create it, or leave `data_dir` out"
        )
    if directory.exists() and not directory.is_dir():
        remedy = "set `data_dir` or HLVAE_DATA to a directory"
        raise NotADirectoryError(f"the data directory {printable(directory)} is not a directory: {remedy}")
    return directory
