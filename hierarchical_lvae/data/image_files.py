"""Find the image files in a folder and its sub-folders, including linked folders.

Each folder is read once, and before any link to it, so that the files in it keep their own paths.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from hierarchical_lvae.data.paths import printable, some
from hierarchical_lvae.data.pictures import SUFFIXES

log = logging.getLogger(__name__)


def find_image_files(path: Path, skip_bad: bool) -> list[Path]:
    """The sorted paths of the image files, relative to the folder; hidden files and folders are ignored.

    Raises:
        ValueError: there are none, or a folder cannot be read and `skip_bad` is not set.
    """
    unreadable: list[OSError] = []
    broken, others, found = [], 0, []
    for place, name in _walk(path, unreadable):
        file = Path(os.path.relpath(os.path.join(place, name), path))
        if name.lower().endswith(SUFFIXES):
            found.append(file)
        elif os.path.exists(path / file):
            others += 1
        else:
            broken.append(file)
    where, suffixes = printable(path), ", ".join(SUFFIXES)
    if unreadable and (not skip_bad or not found):
        error = unreadable[0]
        remedy = "make it readable" if skip_bad else "make it readable, or skip it with `skip_bad`"
        raise ValueError(
            f"the folder {printable(error.filename)} cannot be read ({error.strerror}): {remedy}"
        ) from error
    if unreadable:
        names = [os.path.relpath(str(error.filename), path) for error in unreadable]
        log.warning("skipping folders in %s that cannot be read (%d): %s", where, len(names), some(names))
    if broken:
        log.warning("skipping links in %s whose targets are missing (%d): %s", where, len(broken), some(broken))
    if not found:
        raise ValueError(f"{where} contains no images ({others} other files): give files that end in {suffixes}")
    if others:
        log.info("ignoring %d files in %s that do not end in %s", others, where, suffixes)
    return sorted(found, key=lambda file: file.as_posix())


def _walk(path: Path, unreadable: list[OSError]) -> Iterator[tuple[str, str]]:
    """Yield the folder and name of each file, including those in linked folders."""
    seen = {_identity(folder) for folder in Path(os.path.realpath(path)).parents}
    links, twice = [str(path)], []
    while links:
        top = links.pop(0)
        if _identity(top) in seen:
            twice.append(os.path.relpath(top, path))
            continue
        for place, folders, files in os.walk(top, onerror=unreadable.append):
            seen.add(_identity(place))
            inner = [os.path.join(place, folder) for folder in sorted(folders) if not folder.startswith(".")]
            links += filter(os.path.islink, inner)
            folders[:] = [os.path.basename(folder) for folder in inner if not os.path.islink(folder)]
            folders[:] = [folder for folder in folders if _identity(os.path.join(place, folder)) not in seen]
            yield from ((place, file) for file in files if not file.startswith("."))
    if twice:
        what = "to folders above it or already read"
        log.warning("skipping links in %s %s (%d): %s", printable(path), what, len(twice), some(twice))


def _identity(folder: str | Path) -> tuple[int, int] | str:
    """A key that all paths to one folder share; the path itself if the folder cannot be examined."""
    try:
        state = os.stat(folder)
    except OSError:
        return str(folder)
    return state.st_dev, state.st_ino
