"""Where each data set's files are to be had, and how to tell that they came whole."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from hierarchical_lvae.types import nearest


class Source(NamedTuple):
    """One file of a data set, as its authors publish it."""

    file: str
    url: str
    checksum: str
    """ "md5:…", as published."""
    size: str


SOURCES: dict[str, tuple[Source, ...]] = {
    "3dshapes": (
        Source(
            file="3dshapes.h5",
            url="https://storage.googleapis.com/3d-shapes/3dshapes.h5",
            checksum="md5:099a2078d58cec4daad0702c55d06868",
            size="255 MiB",
        ),
    ),
    "digits": (),  # shipped with scikit-learn
}


def download(name: str, directory: Path) -> list[Path]:
    """Download the files of a data set into `directory`, with a progress bar; what is there whole is left alone.

    A broken download is kept as FILE.part and gone on with the next time.

    Raises:
        ValueError: there is nothing to download by that name, or a file has another checksum than is published.
        OSError: the network or the disk failed.
    """
    if name not in SOURCES:
        raise ValueError(f"no data set is called {name!r}: {nearest(name, SOURCES)}")
    if not SOURCES[name]:
        raise ValueError(f"{name} needs no download: it is shipped with a library")
    return [_retrieve(source, directory) for source in SOURCES[name]]


def _retrieve(source: Source, directory: Path) -> Path:
    import pooch

    directory.mkdir(parents=True, exist_ok=True)
    path, part = directory / source.file, directory / f"{source.file}.part"
    if not (path.exists() and pooch.hashes.hash_matches(path, source.checksum)):
        _fetch(source.url, part)
        if not pooch.hashes.hash_matches(part, source.checksum):
            part.unlink()
            raise ValueError(
                f"{source.url} has not the published checksum {source.checksum}: try again, or get it by hand"
            )
        os.replace(part, path)
    return path


def _fetch(url: str, part: Path) -> None:
    """Append to `part` what it lacks of `url`."""
    import requests
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=30) as response:
            if response.status_code == 416:  # nothing is lacking
                return
            response.raise_for_status()
            resumed = response.status_code == 206
            total = int(response.headers.get("Content-Length", 0)) + (have if resumed else 0)
            bar: Any = tqdm(
                total=total or None, initial=have if resumed else 0, unit="B", unit_scale=True, desc=part.stem
            )
            with part.open("ab" if resumed else "wb") as file, bar:
                for chunk in response.iter_content(2**16):
                    file.write(chunk)
                    bar.update(len(chunk))
    except requests.RequestException as error:
        raise OSError(
            f"{url} cannot be fetched ({type(error).__name__}): try again, and it goes on where it broke"
        ) from error
