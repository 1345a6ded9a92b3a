"""Read files of a `.tar.gz` in memory. Nothing is extracted to disk, so no member can escape its folder."""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from hierarchical_lvae.data.packing import MAX_RATIO, max_unpacked


class _Bounded:
    """A stream that fails after `limit` bytes. Headers count, because they are also decompressed into memory."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self.stream, self.left = stream, limit

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise tarfile.TarError(f"it unpacks to more than {MAX_RATIO} times its size, unlike the published archive")
        return content


def read_members(
    path: Path, wanted: Callable[[PurePosixPath], bool], max_bytes: int
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the name and content of each wanted file, in archive order; the archive is read to its end.

    Raises:
        ValueError: the archive is damaged, a wanted file is larger than `max_bytes`, or a member is a link, a device,
            or has a name that points outside the folder in which the archive is unpacked.
    """
    try:
        limit = max_unpacked(path.stat().st_size)
        with gzip.open(path) as unpacked:
            stream = _Bounded(unpacked, limit)
            archive = tarfile.TarFile.open(fileobj=stream, mode="r|")  # type: ignore[call-overload]
            for member in archive:
                name = PurePosixPath(member.name)
                if fault := _fault(member, name, max_bytes if wanted(name) else None):
                    raise ValueError(
                        f"{path} is not the published archive ({member.name!r} {fault}): download it again"
                    )
                if wanted(name) and (file := archive.extractfile(member)):
                    yield name, file.read()
            while stream.read(2**20):  # the checksum is at the end
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): is the download complete?") from error


def _fault(member: tarfile.TarInfo, name: PurePosixPath, max_bytes: int | None) -> str | None:
    if name.is_absolute() or ".." in name.parts:
        return "points outside its folder"
    if not (member.isfile() or member.isdir()):
        return "is a link or a device"
    if max_bytes is not None and member.size > max_bytes:
        return f"has {member.size:,} bytes, more than {max_bytes:,}"
    return None
