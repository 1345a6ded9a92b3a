"""A folder of image files, of any sizes: sorted by their paths, made square and resized, in one array.

Files that do not end like images are passed over, as are hidden ones; folders in it are searched too, but links to
folders are not followed. Where every image lies in a sub-folder, and there are at least two of these, the (topmost)
sub-folder is a factor, `folder`.
"""

import logging
import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from hierarchical_lvae.data.factor_images import FactorImages, ranks
from hierarchical_lvae.data.framing import framed
from hierarchical_lvae.data.pictures import SUFFIXES, open_picture

SIZE = 64  # of images where none is asked for

log = logging.getLogger(__name__)


def load_folder(path: Path, image_size: int | None, frame: str, skip_bad: bool) -> FactorImages:
    """Read the images of a folder; `hierarchical_lvae.data.own.load_own` tells of the arguments.

    Raises:
        ValueError: there is no image in it, or one cannot be read.
    """
    files = _image_files(path)
    size = image_size or SIZE
    pixels = np.empty((len(files), 1, size, size), np.uint8)
    kept: list[Path] = []
    bad: list[Path] = []
    for file in tqdm(files, f"reading {path.name}", leave=False, delay=2):
        try:
            image = framed(open_picture(path / file), size, frame)
        except Exception as error:  # PIL's readers fail in as many ways as a file can be broken
            if not skip_bad:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(
                    f"{path / file} cannot be read as an image ({reason}): "
                    "remove it, or leave out such files by --skip-bad"
                ) from error
            bad.append(file)
            continue
        if len(image) > pixels.shape[1]:
            pixels = np.repeat(pixels, 3, axis=1)
        pixels[len(kept)] = image
        kept.append(file)
    if bad:
        some = ", ".join(map(str, bad[:3])) + (", …" if len(bad) > 3 else "")
        if not kept:
            raise ValueError(f"none of the {len(bad)} images in {path} can be read ({some})")
        log.warning("%d of %d images in %s cannot be read, and are left out: %s", len(bad), len(files), path, some)
    factors, names = _folders(kept)
    return FactorImages(
        images=torch.from_numpy(pixels[: len(kept)]),
        factors=factors,
        factor_names=names,
        factor_sizes=tuple(int(size) for size in factors.max(0) + 1),
        source=f"images of {Path(os.path.abspath(path)).name} (own data)",
    )


def _image_files(path: Path) -> list[Path]:
    """The paths of the image files, relative to the folder and sorted."""
    others = 0
    found = []
    for place, folders, files in os.walk(path):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for file in files:
            if file.startswith("."):
                continue
            if file.lower().endswith(SUFFIXES):
                found.append((Path(place) / file).relative_to(path))
            else:
                others += 1
    if not found:
        raise ValueError(f"{path} holds no images ({others} other files): {', '.join(SUFFIXES)} are read")
    if others:
        log.info("%s holds %d other files, which are passed over: %s are read", path, others, ", ".join(SUFFIXES))
    return sorted(found, key=lambda file: file.as_posix())


def _folders(files: list[Path]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The factor `folder` of each file, (n, 1), with its name; (n, 0) and no name if there is none."""
    folders = [file.parts[0] for file in files]
    if len(set(folders)) < 2 or any(len(file.parts) == 1 for file in files):
        return np.zeros((len(files), 0), np.int64), ()
    return ranks(np.array(folders)[:, None]), ("folder",)
