"""Small files in the formats of the published data sets, written byte by byte."""

import gzip
import math
import struct
import zlib
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from hierarchical_lvae.data import cars3d, dsprites, smallnorb
from hierarchical_lvae.data.factor_images import factor_grid

MI = {"int8": 1, "uint8": 2, "int32": 5, "uint32": 6, "double": 9, "matrix": 14, "compressed": 15}
MX = {"float64": 6, "int8": 8, "uint8": 9}
NORB_MAGIC = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}
NORB_STATES = (2, 2, 2, 2, 2)
SPRITES = (2, 2, 2, 2, 2)


def element(kind, content):
    """An element of a MATLAB v5 file: its tag, and its content filled up to a multiple of eight bytes."""
    return struct.pack("<II", MI[kind], len(content)) + content + b"\0" * (-len(content) % 8)


def matrix(name, array):
    """A numeric array of a MATLAB v5 file: flags, sizes, name (in the short form of up to four bytes), numbers."""
    flags = element("uint32", struct.pack("<II", MX[array.dtype.name], 0))
    sizes = element("int32", struct.pack(f"<{array.ndim}i", *array.shape))
    if len(name) <= 4:
        label = struct.pack("<HH4s", MI["int8"], len(name), name.encode())
    else:
        label = element("int8", name.encode())
    numbers = element({"float64": "double"}.get(array.dtype.name, array.dtype.name), array.tobytes(order="F"))
    return element("matrix", flags + sizes + label + numbers)


def mat_bytes(compress=False, **arrays):
    """A MATLAB v5 file."""
    header = b"MATLAB 5.0 MAT-file, by hand".ljust(116) + b" " * 8 + struct.pack("<H2s", 0x0100, b"IM")
    elements = [matrix(name, array) for name, array in arrays.items()]
    if compress:
        packed = [zlib.compress(content) for content in elements]
        elements = [struct.pack("<II", MI["compressed"], len(content)) + content for content in packed]
    return header + b"".join(elements)


def car_views(number):
    """`im` of a car: each view in a colour that tells object, azimuth and elevation; (128, 128, 3, 24, 4)."""
    views = np.empty((128, 128, 3, 24, 4), np.uint8)
    views[:, :, 0] = 10 + number
    views[:, :, 1] = (np.arange(24) * 10)[:, None]
    views[:, :, 2] = np.arange(4) * 60
    return views


def write_cars(folder, numbers=(1, 2), compress=False):
    """Files `car_00N_mesh.mat`, in the folder of the archive."""
    folder.mkdir(parents=True)
    for number in numbers:
        mask = np.ones((16, 16, 24, 4), np.uint8)
        content = mat_bytes(compress, im=car_views(number), masks=mask)
        (folder / f"car_{number:03}_mesh.mat").write_bytes(content)


def norb_matrix(array, magic=None, sizes=None):
    """A binary matrix of NORB: magic number, dimensions, at least three sizes, numbers."""
    sizes = sizes or array.shape
    header = struct.pack("<ii", magic or NORB_MAGIC[array.dtype.name], len(sizes))
    padded = [*sizes, *(1 for _ in range(3 - len(sizes)))]
    return header + struct.pack(f"<{len(padded)}i", *padded) + array.tobytes()


def norb_files():
    """The six files of a small NORB, unpacked, by name: images in a random order, one grey each, of camera 0.

    The grey of a state is 8 times its row-major index over all five columns; camera 1 shows 255 minus that.
    """
    rng = np.random.default_rng(0)
    grid = factor_grid(NORB_STATES).astype(np.int32)
    files = {}
    for half, instance in zip(smallnorb.HALVES, (1, 0), strict=True):
        index = rng.permutation(np.flatnonzero(grid[:, 1] == instance))
        images = np.empty((len(index), 2, 96, 96), np.uint8)
        images[:, 0] = 8 * index[:, None, None]
        images[:, 1] = 255 - 8 * index[:, None, None]
        states = grid[index] * np.array([1, 1, 1, 2, 1], np.int32)
        files[f"{half}-dat.mat"] = norb_matrix(images)
        files[f"{half}-cat.mat"] = norb_matrix(states[:, 0].copy())
        files[f"{half}-info.mat"] = norb_matrix(states[:, 1:].copy())
    return files


def write_norb(directory, files=None, packed=True):
    for name, content in (files or norb_files()).items():
        if packed:
            (directory / f"{name}.gz").write_bytes(gzip.compress(content, 1))
        else:
            (directory / name).write_bytes(content)


class Trap:
    """Notes when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def sprites_arrays():
    """The arrays of a small dSprites: image i has i white pixels."""
    n = math.prod(SPRITES)
    classes = np.column_stack([np.zeros(n, np.int64), factor_grid(SPRITES).astype(np.int64)])
    imgs = (np.arange(64 * 64).reshape(64, 64) < np.arange(n)[:, None, None]).astype(np.uint8)
    return {
        "metadata": np.array({"author": Trap()}, dtype=object),
        "imgs": imgs,
        "latents_classes": classes,
        "latents_values": classes.astype(float),
    }


def write_sprites(directory, **changes):
    arrays = {key: array for key, array in (sprites_arrays() | changes).items() if array is not None}
    np.savez_compressed(directory / dsprites.FILE, **arrays)


@pytest.fixture
def make():
    """What writes the files, as one object."""
    writers = (mat_bytes, car_views, write_cars, norb_matrix, norb_files, write_norb, sprites_arrays, write_sprites)
    return SimpleNamespace(**{writer.__name__: writer for writer in writers}, Trap=Trap)


@pytest.fixture
def small_sizes(monkeypatch):
    """Lets the data sets that are not shipped be as small as these files."""
    monkeypatch.setattr(cars3d, "load", partial(cars3d.load, num_objects=2))
    monkeypatch.setattr(smallnorb, "load", partial(smallnorb.load, states=NORB_STATES))
    monkeypatch.setattr(dsprites, "load", partial(dsprites.load, factor_sizes=SPRITES))
