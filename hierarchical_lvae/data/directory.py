"""The data directory: where downloads and caches lie."""

import logging
import os
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from hierarchical_lvae.data.paths import printable
from hierarchical_lvae.files import scratch

log = logging.getLogger(__name__)


def default_data_dir() -> Path:
    """Where downloads and caches lie: $HLVAE_DATA, else the user's cache directory.

    Where there is no home directory, it is a temporary one, which is deleted when the process ends.
    """
    if place := os.environ.get("HLVAE_DATA"):
        return Path(place)
    try:
        path = user_cache_path("hlvae")
    except RuntimeError:  # no home directory; older versions return a path that begins with ~
        return _temporary_dir()
    return path if path.is_absolute() else _temporary_dir()


@cache
def _temporary_dir() -> Path:
    log.warning(
        "there is no home directory for downloads and caches: %s takes its place until this process ends; "
        "to keep them, set HLVAE_DATA or give `data_dir`",
        scratch(),
    )
    return scratch()


def data_directory(data_dir: str | Path | None) -> Path:
    """The data directory that is asked for, or the default one, which need not exist.

    Raises:
        FileNotFoundError: `data_dir` does not exist.
        NotADirectoryError: it, or the default one, is a file.
    """
    directory = default_data_dir() if data_dir is None else Path(data_dir)
    if data_dir is not None and not directory.exists():
        raise FileNotFoundError(
            f"the data directory {printable(directory)} does not exist: create it, or leave `data_dir` out"
        )
    if directory.exists() and not directory.is_dir():
        remedy = "give a directory by `data_dir` or HLVAE_DATA"
        raise NotADirectoryError(f"the data directory {printable(directory)} is not a directory: {remedy}")
    return directory
