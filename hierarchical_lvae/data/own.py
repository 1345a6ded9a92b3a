"""The user's own data: a folder of images, or a file of arrays."""

from pathlib import Path

from hierarchical_lvae.data.arrays import MIN_SIDE, load_arrays
from hierarchical_lvae.data.factor_images import FactorImages
from hierarchical_lvae.data.folder import load_folder
from hierarchical_lvae.data.framing import FRAMES
from hierarchical_lvae.data.paths import ARRAY_SUFFIXES, OWN_DATA
from hierarchical_lvae.types import nearest


def load_own(
    path: str | Path, image_size: int | None = None, frame: str = "crop", skip_bad: bool = False
) -> FactorImages:
    """Load a folder of images (see `folder`), or an `.npz`, `.h5` or `.hdf5` of arrays (see `arrays`), into memory.

    Args:
        path: the folder or file.
        image_size: sides of the images, which are made square. In a folder None is 64; those in a file of arrays stay
            as they are if it is None, or not below their shorter side.
        frame: how an image is made square: "crop" takes the middle, "pad" adds black borders.
        skip_bad: leave out, with a warning in the log, images and sub-folders of a folder that cannot be read.

    Raises:
        ValueError: they are not such data; the message names the file and the remedy.
        FileNotFoundError: nothing is there.
    """
    path = Path(path)
    if frame not in FRAMES:
        raise ValueError(f"no frame is called {frame!r}: {nearest(frame, FRAMES)}")
    if image_size is not None and image_size < MIN_SIDE:
        raise ValueError(f"images of {image_size} pixels a side are too small: give at least {MIN_SIDE}")
    if path.is_dir():
        return load_folder(path, image_size, frame, skip_bad)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give {OWN_DATA}")
    if path.suffix.lower() not in ARRAY_SUFFIXES:
        raise ValueError(f"{path} is neither a folder nor ends in {', '.join(ARRAY_SUFFIXES)}: give {OWN_DATA}")
    return load_arrays(path, image_size, frame)
