"""Pretrained runs shipped with the package: read in place as "pretrained:NAME", and copied before anything is written.

The directory of each holds `options.json`, `state.json`, `log.jsonl` and `model.safetensors`, but no checkpoint.
"""

import logging
from pathlib import Path

from hierarchical_lvae.files import atomic
from hierarchical_lvae.runs import PRETRAINED
from hierarchical_lvae.types import check_name

PREFIX = "pretrained:"
PLACE = Path(__file__).resolve().parents[1] / "pretrained"

log = logging.getLogger(__name__)


def located(path: str | Path) -> Path:
    """Return the run directory at `path`, or that of a pretrained run if `path` is "pretrained:NAME".

    >>> located("runs/first").as_posix(), located("pretrained:3dshapes-local").name
    ('runs/first', '3dshapes-local')

    Raises:
        ValueError: no pretrained run has that name.
    """
    if not is_name(path):
        return Path(path)
    name = str(path).removeprefix(PREFIX)
    check_name("pretrained run", name, PRETRAINED)
    return PLACE / name


def is_name(path: str | Path) -> bool:
    """Whether a path is the name of a pretrained run: "pretrained:NAME"."""
    return str(path).startswith(PREFIX)


def check_writable(path: str | Path) -> None:
    """Check that a run directory is not inside the package, which is read-only.

    Raises:
        ValueError: it is inside the package, or no pretrained run has that name.
    """
    place = located(path).resolve()
    if place != PLACE and PLACE not in place.parents:
        return
    name = place.relative_to(PLACE).parts[0] if place != PLACE else "NAME"
    again = f", or train it again with `{PRETRAINED[name][1]}`" if name in PRETRAINED else ""
    raise ValueError(
        f"{PREFIX}{name} is part of the package and read-only: "
        f"copy it with `copy_pretrained({name!r}, 'runs/{name}')` and use the copy{again}"
    )


def copy_pretrained(name: str, out: str | Path | None = None) -> Path:
    """Copy a pretrained run to a directory of its own, where scores and figures can be saved; return that directory.

    An existing copy is kept, with everything that was added to it.

    Args:
        name: a key of `PRETRAINED`.
        out: the new directory; `runs/NAME` if None.

    Raises:
        ValueError: no pretrained run has that name, or `out` is inside the package.
        FileExistsError: `out` holds something else.
        OSError: `out` cannot be written.
    """
    source = located(PREFIX + name)
    out = Path("runs", name) if out is None else Path(out)
    check_writable(out)
    files = {file.name: file.read_bytes() for file in sorted(source.iterdir()) if file.is_file()}
    there = {file.name for file in out.iterdir()} if out.exists() else set()
    others = [file for file in there & files.keys() if (out / file).read_bytes() != files[file]]
    if others or (there and not there & files.keys()):
        raise FileExistsError(
            f"{out} holds something other than {PREFIX}{name} ({min(others or there)}): move it away, "
            f"or copy the run elsewhere with `copy_pretrained({name!r}, …)`"
        )
    for file in sorted(files.keys() - there):
        with atomic(out / file) as temporary:
            temporary.write_bytes(files[file])
    if not there:
        what, command = PRETRAINED[name]
        log.info("copied %s%s to %s: %s. It was trained with `%s`", PREFIX, name, out, what, command)
    return out


def own_copy(path: str | Path) -> Path:
    """Return the run directory at `path`; a pretrained run is copied to `runs/NAME` first.

    Raises:
        ValueError, OSError: as `copy_pretrained`.
    """
    return copy_pretrained(str(path).removeprefix(PREFIX)) if is_name(path) else Path(path)
