"""Files out of a `.tar.gz`, in memory: nothing is ever extracted, so no member can land where it should not."""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from hierarchical_lvae.data.packing import MAX_RATIO, max_unpacked


class _Bounded:
    """A stream that refuses to give more bytes than `limit`: headers, too, are unpacked into memory."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self.stream, self.left = stream, limit

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise tarfile.TarError(f"it unpacks to more than {MAX_RATIO} times its size, as the published one does not")
        return content


def read_members(
    path: Path, wanted: Callable[[PurePosixPath], bool], max_bytes: int
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield name and content of the wanted files, in the order of the archive, which is read to its end.

    Raises:
        ValueError: the archive is broken, a wanted file is larger than `max_bytes`, or a member is a link, a device, or
            named so that it would lie outside of the folder that the archive is unpacked in.
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
                        f"{path} is not the published archive, {member.name!r} in it {fault}: get it again"
                    )
                if wanted(name) and (file := archive.extractfile(member)):
                    yield name, file.read()
            while stream.read(2**20):  # the checksum is at the end
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): is the download complete?") from error


def _fault(member: tarfile.TarInfo, name: PurePosixPath, max_bytes: int | None) -> str | None:
    if name.is_absolute() or ".." in name.parts:
        return "leads out of its folder"
    if not (member.isfile() or member.isdir()):
        return "is a link or a device"
    if max_bytes is not None and member.size > max_bytes:
        return f"has {member.size:,} bytes, over {max_bytes:,}"
    return None
