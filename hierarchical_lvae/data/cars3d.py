"""Cars3D (Reed et al., 2015): 183 car models, each seen from 4 elevations and 24 azimuths; 17,568 images, 64 × 64 RGB.

The grid is row-major: elevation (4), azimuth (24), object (183), with the object fastest (bases 4392, 183, 1). Each
object is a MATLAB file whose `im` is (128, 128, 3, 24, 4) uint8: row, column, colour, azimuth, elevation. Objects are
numbered in the order of `list.txt`; if it is missing, or does not match the files, they are sorted by name.

The files are read from `cars/` or `data/cars/` (as the archive unpacks) in the data directory, or else from the archive
itself. The images are decoded once and cached in the data directory, in `hlvae-cars3d-64.npz`.
"""

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.data.archive import read_members
from hierarchical_lvae.data.cache import cached
from hierarchical_lvae.data.factor_images import FactorImages, factor_grid
from hierarchical_lvae.data.framing import framed
from hierarchical_lvae.data.paths import missing

ARCHIVE = "nips2015-analogy-data.tar.gz"
FOLDERS = ("cars", "data/cars")
LIST = "list.txt"
FACTOR_NAMES = ("elevation", "azimuth", "object")
ELEVATIONS, AZIMUTHS, OBJECTS = 4, 24, 183
VIEWS_SHAPE = (128, 128, 3, AZIMUTHS, ELEVATIONS)
MAX_BYTES = 2**25  # of one .mat, compressed or not: `im` takes 4.7 MB, and `mask` at most 12.6 MB
HEADER, PACKED = 128, 15  # bytes before the first element; type of an element compressed by zlib
SIZE = 64

log = logging.getLogger(__name__)


def load(data_dir: Path, num_objects: int = OBJECTS) -> FactorImages:
    """Load Cars3D, or files in the same layout with another number of objects, from `data_dir`.

    Raises:
        FileNotFoundError: it is not in `data_dir`.
        ValueError: a file does not have the published format, or there are not that many of them.
    """
    files = find(data_dir)
    sizes = (ELEVATIONS, AZIMUTHS, num_objects)
    shape = (*sizes, 3, SIZE, SIZE)
    cache = data_dir / "hlvae-cars3d-64.npz"
    pixels = cached(cache, "images", shape, np.uint8, lambda: _decode(files, num_objects), files)
    return FactorImages(
        images=torch.from_numpy(pixels).flatten(0, 2),
        factors=factor_grid(sizes),
        factor_names=FACTOR_NAMES,
        factor_sizes=sizes,
        source="Cars3D",
    )


def find(data_dir: Path) -> list[Path]:
    """Find the `.mat` files, with `list.txt` if there is one, or else the archive.

    Raises:
        FileNotFoundError: neither is in `data_dir`.
    """
    for folder in FOLDERS:
        mats = [path for path in sorted((data_dir / folder).glob("*.mat")) if not path.name.startswith(".")]
        if mats:
            return mats + [path for path in [data_dir / folder / LIST] if path.exists()]
    if not (data_dir / ARCHIVE).exists():
        raise missing(ARCHIVE, data_dir, "cars3d")
    return [data_dir / ARCHIVE]


def _decode(files: list[Path], num_objects: int) -> np.ndarray:
    """The images of all objects: (4, 24, num_objects, 3, 64, 64) uint8."""
    where = files[0] if files[0].name == ARCHIVE else files[0].parent
    pixels = np.empty((ELEVATIONS, AZIMUTHS, num_objects, 3, SIZE, SIZE), np.uint8)
    names: list[str] = []
    listed: list[str] = []
    with progress.bar(total=num_objects, desc="reading Cars3D", leave=False, delay=2) as bar:
        for name, content in _contents(files):
            if name == LIST:
                listed = content.decode(errors="replace").split()
                continue
            if len(names) < num_objects:
                pixels[:, :, len(names)] = read_views(content, where / name)
            names.append(name.removesuffix(".mat"))
            bar.update()
    if len(set(names)) != num_objects or len(names) != num_objects:
        remedy = "unpack or download the archive again"
        raise ValueError(f"{where} holds {len(names)} .mat files, not {num_objects}: {remedy}")
    if listed and sorted(listed) != sorted(names):
        log.warning("%s in %s does not match the files there: sorting them by name", LIST, where)
        listed = []
    order = [names.index(name) for name in listed or sorted(names)]
    for row in pixels.reshape(-1, num_objects, 3, SIZE, SIZE):  # row by row, so as not to copy everything at once
        row[:] = row[order]
    return pixels


def _contents(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield the name (without its folder) and the content of each `.mat` file and of `list.txt`."""
    if files[0].name == ARCHIVE:
        for path, content in read_members(files[0], _is_car, MAX_BYTES):
            yield path.name, content
        return
    for file in files:
        if file.stat().st_size > MAX_BYTES:
            size = file.stat().st_size
            raise ValueError(f"{file} has {size:,} bytes, more than {MAX_BYTES:,}: download the archive again")
        yield file.name, file.read_bytes()


def _is_car(path: PurePosixPath) -> bool:
    return path.parent.name == "cars" and (path.suffix == ".mat" or path.name == LIST) and path.name[0] != "."


def _inflated(content: bytes) -> bytes:
    """Decompress the elements of a MATLAB v5 file, to at most `MAX_BYTES` in all; scipy itself has no limit."""
    order = ">" if content[HEADER - 2 : HEADER] == b"MI" else "<"
    parts, at, left = [content[:HEADER]], HEADER, MAX_BYTES
    while len(tag := content[at : at + 8]) == 8:
        kind, size = struct.unpack(f"{order}II", tag)
        end = at + 8 + size
        if kind == PACKED:
            parts.append(zlib.decompressobj().decompress(content[at + 8 : end], left + 1))
        else:
            parts.append(content[at:end])
        left -= len(parts[-1])
        if left < 0:
            raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")
        at = end
    return b"".join(parts)


def read_views(content: bytes, path: Path) -> np.ndarray:
    """Read the views of one object from the content of its `.mat` file: (4, 24, 3, 64, 64) uint8.

    Raises:
        ValueError: it is not a MATLAB file, or its `im` is missing or has another shape or type.
    """
    from PIL import Image
    from scipy.io import loadmat, whosmat

    try:
        content = _inflated(content)
        found = {name: (shape, kind) for name, shape, kind in whosmat(io.BytesIO(content))}
        if found.get("im") == (VIEWS_SHAPE, "uint8"):
            views = loadmat(io.BytesIO(content), variable_names=["im"])["im"].transpose(4, 3, 0, 1, 2)
    except Exception as error:  # scipy raises many types of errors for damaged files
        raise ValueError(f"{path} cannot be read as a MATLAB file ({error}): download the archive again") from error
    if "im" not in found:
        raise ValueError(f"{path} has no 'im': each file of Cars3D has 'im' and 'mask'")
    if found["im"] != (VIEWS_SHAPE, "uint8"):
        raise ValueError(f"'im' in {path} is {found['im'][1]} {found['im'][0]}, not uint8 {VIEWS_SHAPE}")
    small = [framed(Image.fromarray(view), SIZE) for row in views for view in row]
    return np.stack(small).reshape(ELEVATIONS, AZIMUTHS, 3, SIZE, SIZE)
