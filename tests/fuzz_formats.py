"""What strangers give: by name, small valid files, and how they are read."""

import gzip
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae import files
from hierarchical_lvae.analysis import read_scores
from hierarchical_lvae.data import archive, cars3d, dsprites, load_own, norb_matrix, shapes3d
from hierarchical_lvae.data import cache as data_cache
from hierarchical_lvae.neighbourhoods import graph, latent
from hierarchical_lvae.runs import checkpoint as packing
from hierarchical_lvae.runs import directory, read_options
from hierarchical_lvae.runs.options import FitOptions

POINTS, GRID = 12, (2, 2, 1, 1, 1)


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    file: str
    """Its name."""
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    share: int = 8
    """Of all inputs."""
    packing: Callable | None = None
    """Takes a packed file, a change of bytes and a random state; gives it packed again, changed within."""
    slack: int = 2**26
    """Bytes that reading may take, whatever the size of the file."""

    def read_once(self, path: Path) -> None:
        """Read each valid file, which must succeed."""
        for seed in self.seeds():
            path.write_bytes(seed)
            self.read(path)


def saved(save: Callable, *args, **kwargs) -> bytes:
    """What a function writes into a file that it is given first."""
    buffer = io.BytesIO()
    save(buffer, *args, **kwargs)
    return buffer.getvalue()


def rezipped(content, change, rng) -> bytes:
    """A zip file with one member changed (and its checksum right)."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    chosen = rng.choice(sorted(members))
    members[chosen] = change(members[chosen])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as new:
        for name, member in members.items():
            new.writestr(name, member)
    return buffer.getvalue()


def regzipped(content, change, rng) -> bytes:
    return gzip.compress(change(gzip.decompress(content)), 1)


def repacked_mat(content, change, rng) -> bytes:
    """A MATLAB file whose one packed element is changed beneath its packing: its first bytes, not the pixels."""
    inner = zlib.decompress(content[136:])
    packed = zlib.compress(change(inner[:400]) + inner[400:], 1)
    return content[:132] + len(packed).to_bytes(4, "little") + packed


RUN = {
    **asdict(FitOptions.of("quick", dataset="digits")),
    "data": {"source": "digits", "images": 9, "fingerprint": "0"},
}
LOG = [{"step": step, "loss": 99.5 / step, "gradient_norm": None} for step in (50, 100, 150)]


def as_json(content) -> list[bytes]:
    return [json.dumps(content, indent=2).encode()]


def small_model() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    return model, optimizer


@cache
def checkpoint() -> list[bytes]:
    from safetensors.torch import save

    bank = latent.NearestCodes(surroundings=None)
    bank.load_state_dict({"codes": torch.ones(4, 2), "steps": torch.tensor(3)})
    return [save(packing.pack(*small_model(), {"neighbourhood.": bank}, 7, [1.0]))]


def read_checkpoint(path: Path) -> None:
    try:
        packing.unpack(
            files.read_tensors(path), *small_model(), {"neighbourhood.": latent.NearestCodes(surroundings=None)}
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error  # as `fit` does


def images(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)


OWN = {
    "images": images(5, 9, 8, 3),
    "factors": np.arange(10).reshape(5, 2),
    "factor_names": np.array(["hue", "size"]),
}


@cache
def own_npz() -> list[bytes]:
    floats = images(4, 8, 8) / np.float32(255)
    return [
        saved(np.savez_compressed, **OWN),
        saved(np.savez, **OWN),
        saved(np.savez, images=np.asfortranarray(floats)),
    ]


@cache
def sprites() -> list[bytes]:
    states = dsprites.factor_grid(GRID)
    classes = np.column_stack([np.zeros(len(states), int), states])
    return [saved(np.savez_compressed, imgs=images(4, 64, 64) % 2, latents_classes=classes)]


def hdf5(**arrays) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, (array, options) in arrays.items():
            file.create_dataset(name, data=array, **options)
    return buffer.getvalue()


@cache
def own_hdf5() -> list[bytes]:
    packed = {"compression": "gzip", "shuffle": True, "chunks": (2, 9, 8, 3)}
    names = OWN["factor_names"].astype("S")
    plain = {"images": (OWN["images"], {}), "factors": (OWN["factors"], {}), "factor_names": (names, {})}
    return [hdf5(**plain), hdf5(**{**plain, "images": (OWN["images"], packed)})]


@cache
def shapes() -> list[bytes]:
    labels = shapes3d.factor_grid(GRID).astype(float)
    packed = {"compression": "gzip", "chunks": (1, 64, 64, 3)}
    return [hdf5(images=(images(4, 64, 64, 3), packed), labels=(labels, {}))]


@cache
def cars() -> list[bytes]:
    from scipy.io import savemat

    views = np.zeros(cars3d.VIEWS_SHAPE, np.uint8)
    return [saved(lambda file: savemat(file, {"im": views}, do_compression=True))]


@cache
def tars() -> list[bytes]:
    def write(file, kind):
        with tarfile.open(fileobj=file, mode="w:gz", format=kind) as packed:
            for name in ("data/cars/car_001.mat", "data/cars/list.txt", f"data/{'long/' * 25}.mat"):
                info = tarfile.TarInfo(name)
                info.size = 700
                packed.addfile(info, io.BytesIO(bytes(range(7)) * 100))

    return [saved(write, kind) for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]


def read_tar(path: Path) -> None:
    for _ in archive.read_members(path, lambda name: name.parent.name == "cars", 2**20):
        pass


@cache
def norb() -> list[bytes]:
    numbers = np.arange(24, dtype="<i4").reshape(6, 4)
    return [np.array([norb_matrix.MAGIC["int32"], 2, 6, 4, 1], "<i4").tobytes() + numbers.tobytes()]


def read_norb(path: Path) -> None:
    for _ in norb_matrix.read_blocks(path, "int32", (6, 4), 4):
        pass


@cache
def graphs() -> list[bytes]:
    from scipy.sparse import csr_array, save_npz

    ids = (np.arange(POINTS)[:, None] + [1, 2, 3]) % POINTS
    edges = csr_array((np.ones(ids.size), (np.repeat(np.arange(POINTS), 3), ids.ravel())), shape=(POINTS, POINTS))
    sparse = [
        saved(save_npz, edges.asformat(kind), compressed=packed) for kind in ("csr", "csc", "coo") for packed in (0, 1)
    ]
    return [*sparse, saved(np.savez, ids=ids), saved(np.savez_compressed, ids=ids)]


def pictures(suffix: str) -> Callable[[], list[bytes]]:
    @cache
    def make() -> list[bytes]:
        from PIL import Image

        rgb = Image.fromarray(images(12, 16, 3))
        grey = Image.fromarray(images(12, 16))
        kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
        made = [saved(rgb.save, kind), saved(grey.save, kind)]
        if suffix in ("png", "tif"):
            made += [saved(rgb.convert(mode).save, kind) for mode in ("1", "P", "RGBA", "LA")]
            made.append(saved(Image.fromarray(images(12, 16).astype(np.uint16) * 200).save, kind))
        if suffix == "tif":
            made += [
                saved(rgb.save, kind, compression=c) for c in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
            ]
            made.append(saved(Image.fromarray(images(12, 16) / np.float32(255)).save, kind))
        if suffix in ("gif", "webp"):
            made.append(saved(rgb.save, kind, save_all=True, append_images=[grey.convert("RGB")]))
        return made

    return make


def read_folder(path: Path) -> None:
    load_own(path.parent)


def read_cached(path: Path) -> None:
    data_cache.read(path, "images", (5, 9, 8, 3), np.uint8)


FORMATS = {
    "options": Format("options.json", lambda: as_json(RUN), lambda path: read_options(path.parent)),
    "state": Format("state.json", lambda: as_json({"status": "running", "step": 3, "steps": 9}),
                    lambda path: directory.read_state(path.parent)),
    "metrics": Format("metrics.json", lambda: as_json({"dci": {"settings": {"seed": 0}, "disentanglement": 0.5}}),
                      lambda path: read_scores(path.parent)),
    "log": Format("log.jsonl", lambda: ["".join(json.dumps(line) + "\n" for line in LOG).encode()],
                  lambda path: directory.truncate_log(path.parent, 100)),
    "checkpoint": Format("state.safetensors", checkpoint, read_checkpoint),
    "npz": Format("mine.npz", own_npz, load_own, packing=rezipped),
    "dsprites": Format(dsprites.FILE, sprites, lambda path: dsprites.load(path.parent, GRID), packing=rezipped),
    "hdf5": Format("mine.h5", own_hdf5, load_own, share=16),
    "3dshapes": Format("3dshapes.h5", shapes, lambda path: shapes3d.load_h5(path, GRID)),
    "mat": Format("car_001.mat", cars, lambda path: cars3d.read_views(path.read_bytes(), path), 1, repacked_mat, 2**28),
    "tar": Format("cars.tar.gz", tars, read_tar, packing=regzipped),
    "norb": Format("norb.mat", norb, read_norb),
    "norb-gz": Format("norb.mat.gz", lambda: [*map(gzip.compress, norb())], read_norb, packing=regzipped),
    "graph": Format("graph.npz", graphs, lambda path: graph._read(path, POINTS), 16, rezipped),
    "cache": Format("hlvae-cars3d-64.npz", own_npz, read_cached, packing=rezipped),
    **{
        suffix: Format(f"picture.{suffix}", pictures(suffix), read_folder, 4, slack=2**31)
        for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif")
    },
}  # fmt: skip
"""All of them."""
