"""Load data sets by name, and the user's own data: a folder of images, or a file of arrays."""

from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

from hierarchical_lvae.data import DATASETS, FRAMES
from hierarchical_lvae.data.arrays import MIN_SIDE, load_arrays
from hierarchical_lvae.data.directory import data_directory
from hierarchical_lvae.data.factor_images import FactorImages, shrunk
from hierarchical_lvae.data.folder import load_folder
from hierarchical_lvae.data.paths import ARRAY_SUFFIXES, OWN_DATA, is_path
from hierarchical_lvae.data.sources import SOURCES
from hierarchical_lvae.types import check_name, suggestion


def load_dataset(
    name: str | Path,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    frame: str = "crop",
    skip_bad: bool = False,
) -> FactorImages:
    """Load a data set by its name in `DATASETS`, or the user's own data by path.

    Args:
        name: a key of `DATASETS` (which takes precedence over a folder of that name), or the path of a folder, an
            `.npz` or an `.h5`.
        data_dir: directory of the files of named data sets; `default_data_dir()` if None and the data set has any.
        image_size: side of the images in pixels. The user's own images are made square, of this size (see `load_own`);
            those of named data sets, if larger, are shrunk to it at each `batch`.
        frame: "crop" or "pad", for the user's own images.
        skip_bad: skip images of a folder that cannot be read.

    Raises:
        ValueError: no data set has that name, or a file does not have the expected format.
        FileNotFoundError: a path, a data directory or a file of a data set does not exist.
        NotADirectoryError: the data directory is a file.
    """
    if isinstance(name, Path) or (name not in DATASETS and is_path(name)):
        return load_own(name, image_size, frame, skip_bad)
    if name not in DATASETS:
        raise ValueError(f"no data set is called {name!r}: {suggestion(name, DATASETS)} (or give {OWN_DATA})")
    needed = data_dir is not None or SOURCES[name]
    dataset = resolve_name(DATASETS[name])(data_directory(data_dir) if needed else Path())
    return dataset.resized(shrunk(image_size, dataset.images.shape[2:]))


def default_neighbourhood(name: str) -> str:
    """The default neighbourhood of a data set: its module's `NEIGHBOURHOOD` if there is one, otherwise noise.

    >>> default_neighbourhood("digits"), default_neighbourhood("3dshapes"), default_neighbourhood("mine.npz")
    ('latent-knn', 'noise', 'noise')
    """
    if name not in DATASETS:
        return "noise"
    return getattr(import_module(DATASETS[name].partition(":")[0]), "NEIGHBOURHOOD", "noise")


def load_own(
    path: str | Path, image_size: int | None = None, frame: str = "crop", skip_bad: bool = False
) -> FactorImages:
    """Load a folder of images (see `folder`), or an `.npz`, `.h5` or `.hdf5` of arrays (see `arrays`), into memory.

    Args:
        path: the folder or file.
        image_size: side of the images in pixels; they are made square. For a folder, None is 64; images in a file of
            arrays are unchanged if it is None, or not smaller than their shorter side.
        frame: how an image is made square: "crop" keeps the centre, "pad" adds black borders.
        skip_bad: skip, with a warning, images and sub-folders of a folder that cannot be read.

    Raises:
        ValueError: the data do not have one of these formats; the message names the file and the remedy.
        FileNotFoundError: `path` does not exist.
    """
    path = Path(path)
    check_name("frame", frame, FRAMES)
    if image_size is not None and image_size < MIN_SIDE:
        raise ValueError(f"images of {image_size} pixels per side are too small: give at least {MIN_SIDE}")
    if path.is_dir():
        return load_folder(path, image_size, frame, skip_bad)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give {OWN_DATA}")
    if path.suffix.lower() not in ARRAY_SUFFIXES:
        raise ValueError(f"{path} is not a folder and does not end in {', '.join(ARRAY_SUFFIXES)}: give {OWN_DATA}")
    return load_arrays(path, image_size, frame)
