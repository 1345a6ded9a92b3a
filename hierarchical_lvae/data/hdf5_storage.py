"""Check that all bytes of an HDF5 array exist, inside or outside the file: HDF5 reads missing ones as a fill value."""

import logging
import os
from math import ceil, prod
from pathlib import Path
from typing import Any

from hierarchical_lvae.data.packing import check_ratio

HARMLESS = (2, 3)  # HDF5's numbers of filters that do not compress: shuffle and the checksum
COPY = "save a copy of the whole array in one file"
REMEDY = "if you trust it, save it uncompressed, with h5py's create_dataset without `compression`"

log = logging.getLogger(__name__)


def find_dataset(file: Any, name: str, path: Path) -> Any | None:
    """The `h5py.Dataset` called `name` in an `h5py.File`; None if nothing has that name, or it is a group.

    Raises:
        ValueError: it is a broken link, cannot be opened, or has a type that NumPy lacks.
    """
    import h5py

    found = file.get(name)
    if found is None:
        link = file.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
            target = f"{link.path!r} in {getattr(link, 'filename', path)}"
            raise ValueError(f"{name!r} in {path} is a link to {target}, which is missing: restore it, or {COPY}")
        if link is not None:
            raise ValueError(f"{name!r} in {path} cannot be opened: is the file complete?")
    if not isinstance(found, h5py.Dataset):
        return None
    try:
        _ = found.dtype
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name!r} in {path} has a type that NumPy lacks ({error}): save plain numbers") from error
    return found


def check_storage(dataset: Any, where: str, checked: dict[tuple[str, str], int] | None = None) -> int:
    """Return the number of bytes stored for an `h5py.Dataset`, and check that all of it is there.

    Args:
        dataset: the dataset.
        where: its name in errors.
        checked: the results so far, by file and name, -1 for a dataset in progress: sources may be virtual, too.

    Raises:
        ValueError: a file that holds part of it is missing, nothing was written, its sources form a cycle, or its
            compression ratio is too high.
    """
    checked = {} if checked is None else checked
    key = (os.path.realpath(dataset.file.filename), dataset.name)
    if key in checked:
        if checked[key] < 0:  # HDF5 would follow the cycle until the process crashes
            raise ValueError(f"{where} is virtual, and its sources lead back to itself: {COPY}")
        return checked[key]
    checked[key] = -1
    if dataset.is_virtual:
        stored = _virtual_bytes(dataset, where, checked)
    elif dataset.external:
        stored = _external_bytes(dataset, where)
    else:
        stored = _written_bytes(dataset, where)
    chunk = prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    check_ratio(where, max(dataset.nbytes, chunk), stored, REMEDY)
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if len(set(filters) - set(HARMLESS)) + len(filters) - len(set(filters)) > 1:
        raise ValueError(f"{where} is compressed more than once: {REMEDY}")
    checked[key] = stored
    return stored


def _written_bytes(dataset: Any, where: str) -> int:
    """The number of bytes that a dataset occupies in its own file."""
    stored = dataset.id.get_storage_size()
    if dataset.nbytes and not stored:
        raise ValueError(f"{where} was created but never written: write its numbers")
    if dataset.nbytes and dataset.chunks:
        chunks = prod(ceil(side / chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        _warn_of_gaps(where, "chunks", dataset.id.get_num_chunks(), chunks, dataset.fillvalue)
    return stored


def _virtual_bytes(dataset: Any, where: str, checked: dict[tuple[str, str], int]) -> int:
    """The number of bytes in the sources of a virtual dataset."""
    import h5py

    sources = dataset.virtual_sources()
    if None not in dataset.maxshape:  # otherwise, its sources may be unlimited and have no number of points
        mapped = sum(source.vspace.get_select_npoints() for source in sources)
        _warn_of_gaps(where, "numbers", mapped, dataset.size, dataset.fillvalue)
    stored = 0
    for names in sorted({(source.file_name, source.dset_name) for source in sources}):
        file_name, name = (name.replace("%b", "0").replace("%%", "%") for name in names)  # %b is a block's number
        found = dataset.file.filename if file_name == "." else _find_file(dataset, file_name, "HDF5_VDS_PREFIX")
        if found is None:
            raise ValueError(f"{where} is virtual, and its source file {file_name} is missing: restore it, or {COPY}")
        with h5py.File(found) as file:
            source = find_dataset(file, name, Path(found))
            if source is None:
                raise ValueError(f"{where} is virtual, and its source {name!r} in {found} is missing: {COPY}")
            stored += check_storage(source, f"{name!r} in {found}", checked)
    return stored


def _external_bytes(dataset: Any, where: str) -> int:
    """The number of bytes in the external files that hold a dataset."""
    left = dataset.nbytes
    for file_name, offset, size in dataset.external:
        found = _find_file(dataset, file_name, "HDF5_EXTFILE_PREFIX")
        if found is None:
            raise ValueError(f"{where} needs the external file {file_name}, which is missing: restore it, or {COPY}")
        needed, size = offset + min(size, left), Path(found).stat().st_size
        if size < needed:
            raise ValueError(f"{where} needs {needed:,} bytes of the external file {found}, which has {size:,}: {COPY}")
        left -= needed - offset
    return dataset.nbytes


def _find_file(dataset: Any, file_name: str, prefix: str) -> str | None:
    """Find a file that a dataset refers to, as HDF5 does; `prefix` is the variable that holds the search path."""
    folder = Path(dataset.file.filename).parent
    places = [Path(place.replace("${ORIGIN}", str(folder))) for place in os.environ.get(prefix, "").split(os.pathsep)]
    tried = [place / file_name for place in places]  # an empty variable stands for the working directory
    if dataset.is_virtual:
        tried += [Path(file_name), folder / file_name, folder / Path(file_name).name]
    return next((str(path) for path in tried if path.is_file()), None)


def _warn_of_gaps(where: str, what: str, written: int, total: int, fill_value: Any) -> None:
    if written < total:
        gap = f"{total - written:,} of its {total:,} {what}"
        log.warning("%s: %s were never written and are read as %s", where, gap, fill_value)
