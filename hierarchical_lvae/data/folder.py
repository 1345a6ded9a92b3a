"""Load a folder of image files of any size into one array: sorted by path, made square and resized.

Hidden files, and files without the suffix of an image, are ignored; sub-folders and links to folders are searched too.
If every image is in a sub-folder, and there are at least two of these, the (topmost) sub-folder is a factor, `folder`.
"""

import logging
import os
from pathlib import Path

import numpy as np
import torch

from hierarchical_lvae import progress
from hierarchical_lvae.data.brightness import warn_if_dim
from hierarchical_lvae.data.factor_images import FactorImages, ranks
from hierarchical_lvae.data.framing import framed
from hierarchical_lvae.data.image_files import find_image_files
from hierarchical_lvae.data.paths import printable, some
from hierarchical_lvae.data.pictures import open_picture

SIZE = 64  # default side of the images, in pixels

log = logging.getLogger(__name__)


def load_folder(path: Path, image_size: int | None, frame: str, skip_bad: bool) -> FactorImages:
    """Read the images in a folder; see `hierarchical_lvae.data.load.load_own` for the arguments.

    Raises:
        ValueError: the folder contains no image, or an image or a sub-folder cannot be read.
    """
    files, where = find_image_files(path, skip_bad), printable(path)
    size = image_size or SIZE
    pixels = np.empty((len(files), 1, size, size), np.uint8)
    kept: list[Path] = []
    facts: list[tuple[float, int, bool]] = []  # white, brightest pixel, and whether there are more frames
    bad: list[Path] = []
    for file in progress.bar(files, f"reading {printable(path.name)}", leave=False, delay=2):
        try:
            picture = open_picture(path / file)
            image = framed(picture.image, size, frame)
        except Exception as error:  # PIL raises many types of errors for damaged files
            if not skip_bad:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(
                    f"{printable(path / file)} cannot be read as an image ({printable(reason)}): "
                    "remove it, or skip such files with `skip_bad`"
                ) from error
            bad.append(file)
            continue
        if len(image) > pixels.shape[1]:
            pixels = np.repeat(pixels, 3, axis=1)
        pixels[len(kept)] = image
        kept.append(file)
        facts.append((picture.white, int(np.max(picture.image.getextrema())), picture.has_more))
    if bad:
        if not kept:
            raise ValueError(f"none of the {len(bad)} images in {where} can be read ({some(bad)})")
        log.warning("%d of %d images in %s cannot be read and are skipped: %s", len(bad), len(files), where, some(bad))
    _warn(kept, facts, where)
    factors, names = _folders(kept)
    return FactorImages(
        images=torch.from_numpy(pixels[: len(kept)]),
        factors=factors,
        factor_names=names,
        factor_sizes=tuple(int(size) for size in factors.max(0) + 1),
        source=f"images of {printable(Path(os.path.abspath(path)).name)} (own data)",
    )


def _warn(files: list[Path], facts: list[tuple[float, int, bool]], where: str) -> None:
    """Log what may not have been read as intended."""
    stacks = [file for file, (_, _, has_more) in zip(files, facts, strict=True) if has_more]
    if stacks:
        log.warning(
            "%d of %d images in %s have more than one frame, and only the first is read (save each as a file): %s",
            len(stacks), len(files), where, some(stacks),
        )  # fmt: skip
    for white in sorted({white for white, _, _ in facts}):
        brightest = [most for other, most, _ in facts if other == white]
        warn_if_dim(
            f"{len(brightest)} of {len(files)} images in {where}", white, max(brightest), "scale the pixel values up"
        )


def _folders(files: list[Path]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The factor `folder` of each file, (n, 1), and its name; (n, 0) and no name if there is no such factor."""
    folders = [file.parts[0] for file in files]
    strays = [file for file in files if len(file.parts) == 1]
    if 0 < len(strays) < len(files):
        what = "are not in a sub-folder, so the sub-folders are not used as a factor"
        log.info("%d of %d images %s: %s", len(strays), len(files), what, some(strays))
    if len(set(folders)) < 2 or strays:
        return np.zeros((len(files), 0), np.int64), ()
    return ranks(np.array(folders)[:, None]), ("folder",)
