"""Download the published files of each data set."""

import hashlib
import logging
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from hierarchical_lvae.files import delete_lock, explained, locked, occupied
from hierarchical_lvae.types import check_name

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """One file of a data set, as published by its authors."""

    file: str
    url: str
    checksum: str
    """ "md5:…" as published, or "" if none is published."""
    size: str
    unpacked: tuple[str, ...] = ()
    """Patterns of the files that it contains, which are read if they are there."""

    def find(self, data_dir: Path) -> Path | None:
        """Find the file, or one that was unpacked from it; None if there is neither."""
        return next((path for name in (self.file, *self.unpacked) for path in sorted(data_dir.glob(name))), None)


def _source(place: str, file: str, checksum: str, size: str, *unpacked: str) -> Source:
    return Source(file, f"{place}/{file}", checksum, size, unpacked)


def _norb(matrix: str, md5: str, size: str) -> Source:
    place = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small"
    return _source(place, f"smallnorb-5x{matrix}.mat.gz", f"md5:{md5}", size, f"smallnorb-5x{matrix}.mat")


_3DSHAPES = _source(
    "https://storage.googleapis.com/3d-shapes", "3dshapes.h5", "md5:099a2078d58cec4daad0702c55d06868", "255 MiB"
)
_CARS3D = _source(
    "http://www.scottreed.info/files",
    "nips2015-analogy-data.tar.gz",
    "md5:4e866a7919c1beedf53964e6f7a23686",
    "about 300 MB",
    "cars/*.mat",
    "data/cars/*.mat",
)
_DSPRITES = _source(
    "https://raw.githubusercontent.com/google-deepmind/dsprites-dataset/master",
    "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
    "",
    "about 26 MB",
)
_SMALLNORB = (
    _norb("46789x9x18x6x2x96x96-training-dat", "66054832f9accfe74a0f4c36a75bc0a2", "about 125 MiB"),
    _norb("46789x9x18x6x2x96x96-training-cat", "23c8b86101fbf0904a000b43d3ed2fd9", "under 1 MiB"),
    _norb("46789x9x18x6x2x96x96-training-info", "51dee1210a742582ff607dfd94e332e3", "under 1 MiB"),
    _norb("01235x9x18x6x2x96x96-testing-dat", "e4ad715691ed5a3a5f138751a4ceb071", "about 125 MiB"),
    _norb("01235x9x18x6x2x96x96-testing-cat", "5aa791cd7e6016cf957ce9bdb93b8603", "under 1 MiB"),
    _norb("01235x9x18x6x2x96x96-testing-info", "a9454f3864d7fd4bb3ea7fc3eb84924e", "under 1 MiB"),
)

SOURCES: dict[str, tuple[Source, ...]] = {
    "3dshapes": (_3DSHAPES,),
    "digits": (),  # shipped with scikit-learn
    "cars3d": (_CARS3D,),
    "smallnorb": _SMALLNORB,
    "carsnorb": (_CARS3D, *_SMALLNORB),
    "dsprites": (_DSPRITES,),
}


def download(name: str, data_dir: Path) -> list[Path]:
    """Download the files of a data set into `data_dir`, with a progress bar; complete files are kept.

    An incomplete download is kept as FILE.hlvae-part and resumed the next time. No other file is ever replaced.

    Raises:
        ValueError: there is nothing to download by that name, or a file differs from the published one.
        FileExistsError: another file has the name of a published one.
        BlockingIOError: another process is downloading the same file.
        OSError: the network or the disk failed.
    """
    check_name("data set", name, SOURCES)
    if not SOURCES[name]:
        raise ValueError(f"{name} needs no download: it is shipped with scikit-learn")
    return [_retrieve(source, data_dir) for source in SOURCES[name]]


def _retrieve(source: Source, directory: Path) -> Path:
    path, part, lock = (directory / f"{source.file}{suffix}" for suffix in ("", ".hlvae-part", ".hlvae-lock"))
    if occupied(path):
        if not _is_whole(path, source):
            raise FileExistsError(f"{path} is not the published file: move it away, or give another `data_dir`")
        return path
    directory.mkdir(parents=True, exist_ok=True)
    with locked(lock, f"another process is downloading {path}: wait for it"):
        try:
            if not occupied(path):  # by a download that ended in the meantime
                _fill(part, source)
                part.rename(path)
        finally:
            if part.exists() and part.stat().st_size == 0:
                part.unlink()
            delete_lock(lock)
    if not source.checksum:
        log.warning("no checksum is published for %s: only those inside the file were verified", source.file)
    return path


def _fill(part: Path, source: Source) -> None:
    """Complete a download; start over if the partial file is not the beginning of the published one."""
    for _ in range(2 if part.exists() and part.stat().st_size else 1):
        _fetch(source.url, part)
        if _is_whole(part, source):
            return
        os.truncate(part, 0)
    wrong = f"does not have the published checksum {source.checksum}" if source.checksum else "is not a complete .npz"
    raise ValueError(f"{source.url} {wrong}: try again, or download it manually")


def _is_whole(path: Path, source: Source) -> bool:
    """Verify the published checksum; if there is none, verify those of the arrays inside the `.npz`."""
    if not path.is_file():
        return False
    if source.checksum:
        with path.open("rb") as file:
            return f"md5:{hashlib.file_digest(file, 'md5').hexdigest()}" == source.checksum
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
        return False


def _fetch(url: str, part: Path) -> None:
    """Append the rest of `url` to `part`, or write all of it if the server cannot send a part."""
    import requests

    from hierarchical_lvae import progress

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=30) as response:
            if response.status_code == 416:  # nothing is left to download
                return
            response.raise_for_status()
            response.raw.headers.pop("Content-Encoding", None)  # some servers label .gz files so: do not unpack them
            have = have if response.status_code == 206 else 0
            total = int(response.headers.get("Content-Length", 0)) + have
            bar: Any = progress.bar(total=total or None, initial=have, unit="B", unit_scale=True, desc=part.stem)
            with part.open("ab" if have else "wb") as file, bar:
                for chunk in response.iter_content(2**16):
                    file.write(chunk)
                    bar.update(len(chunk))
    except requests.RequestException as error:
        raise ConnectionError(
            f"{url} cannot be downloaded ({type(error).__name__}): try again to continue where it stopped"
        ) from error
    except OSError as error:
        raise explained(part, error) from error
