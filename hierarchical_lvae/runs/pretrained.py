"""Pretrained runs, which the package ships: read in place as "pretrained:NAME", and copied before anything is written.

The directory of each holds `options.json`, `state.json`, `log.jsonl` and `model.safetensors`, and no checkpoint.
"""

import logging
from pathlib import Path

from hierarchical_lvae.files import atomic
from hierarchical_lvae.runs import PRETRAINED
from hierarchical_lvae.types import suggestion

PREFIX = "pretrained:"
PLACE = Path(__file__).resolve().parents[1] / "pretrained"

log = logging.getLogger(__name__)


def located(path: str | Path) -> Path:
    """The run directory at `path`, or that of the pretrained run which "pretrained:NAME" names.

    >>> located("runs/first").as_posix(), located("pretrained:3dshapes-local").name
    ('runs/first', '3dshapes-local')

    Raises:
        ValueError: no pretrained run has that name.
    """
    if not is_name(path):
        return Path(path)
    name = str(path).removeprefix(PREFIX)
    if name not in PRETRAINED:
        raise ValueError(f"no pretrained run is called {name!r}: {suggestion(name, PRETRAINED)}")
    return PLACE / name


def is_name(path: str | Path) -> bool:
    """Whether a path is the name of a pretrained run: "pretrained:NAME"."""
    return str(path).startswith(PREFIX)


def check_writable(path: str | Path) -> None:
    """Check that a run directory is not one of the package, where nothing is ever written.

    Raises:
        ValueError: it is, or no pretrained run has that name.
    """
    place = located(path).resolve()
    if place != PLACE and PLACE not in place.parents:
        return
    name = place.relative_to(PLACE).parts[0] if place != PLACE else "NAME"
    again = f", or train it again by `{PRETRAINED[name][1]}`" if name in PRETRAINED else ""
    raise ValueError(
        f"{PREFIX}{name} is part of the package, where nothing is written: "
        f"copy it by `copy_pretrained({name!r}, 'runs/{name}')` and use the copy{again}"
    )


def copy_pretrained(name: str, out: str | Path | None = None) -> Path:
    """Copy a pretrained run to a directory of its own, where scores and figures can be saved; returns the directory.

    A copy that is there already is kept, with all that was added to it.

    Args:
        name: a key of `PRETRAINED`.
        out: the new directory; `runs/NAME` if None.

    Raises:
        ValueError: no pretrained run has that name, or `out` is in the package.
        FileExistsError: `out` holds something else.
        OSError: it cannot be written.
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
            f"or copy the run elsewhere by `copy_pretrained({name!r}, …)`"
        )
    for file in sorted(files.keys() - there):
        with atomic(out / file) as temporary:
            temporary.write_bytes(files[file])
    if not there:
        what, command = PRETRAINED[name]
        log.info("%s%s is copied to %s: %s. It was trained by `%s`", PREFIX, name, out, what, command)
    return out


def own_copy(path: str | Path) -> Path:
    """The run directory at `path`; of a pretrained run, its copy in `runs/NAME`.

    Raises:
        ValueError, OSError: as `copy_pretrained`.
    """
    return copy_pretrained(str(path).removeprefix(PREFIX)) if is_name(path) else Path(path)
