"""What `hlvae doctor` reports: versions, devices, directories, data and optional parts. Nothing here can fail."""

import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hierarchical_lvae import __version__
from hierarchical_lvae.data.directory import default_data_dir
from hierarchical_lvae.data.sources import SOURCES
from hierarchical_lvae.evaluation.frechet import inception_file
from hierarchical_lvae.training.memory import memory_of_machine
from hierarchical_lvae.types import reason

PACKAGE = "hierarchical-lvae"
Report = Mapping[str, Mapping[str, Any]]

RENDERED = {
    "3dshapes": "; the rendered replica is used instead",
    "carsnorb": "; a rendered stand-in is used instead",
}
"""What is used while no file of a data set is available."""


OPTIONAL = {
    "tensorboard": ("training curves in TensorBoard", "pip install tensorboard"),
    "distributed": ("hlvae reproduce --dask", f"pip install '{PACKAGE}[cluster]'"),
    "higher": ("a comparison in hlvae bench", f"pip install '{PACKAGE}[bench]'"),
    "torchopt": ("a comparison in hlvae bench", f"pip install '{PACKAGE}[bench]'"),
}
"""Optional parts by module: the use of each, and how to install it."""


def inspect_environment() -> Report:
    """Inspect this installation: a section per subject, each a mapping of names to values that JSON can hold.

    A value that cannot be determined is "unknown", with the reason.
    """
    place = default_data_dir()
    return {
        "versions": _facts({"Python": lambda: sys.version.split()[0], **_versions()}),
        "machine": _facts(
            {
                "system": platform.platform,
                "CPU cores": os.cpu_count,
                "threads of PyTorch": torch.get_num_threads,
                "matrix library": _blas,
                "memory": _memory,
            }
        ),
        "devices": _facts({"cpu": lambda: "available", "cuda": _cuda, "mps": _mps}),
        "directories": _facts(
            {
                "data and caches": lambda: _usage(place),
                "free there": lambda: _size(shutil.disk_usage(_existing(place)).free),
                "torch hub": lambda: _usage(Path(torch.hub.get_dir())),
            }
        ),
        "data sets": _facts({name: partial(_data, name, place) for name in SOURCES}),
        "optional parts": _facts(
            {**{name: partial(_part, name) for name in OPTIONAL}, "Inception weights": _inception}
        ),
    }


def lines(report: Report) -> Iterator[str]:
    """Format the report for a terminal."""
    for title, facts in report.items():
        yield f"{title}:"
        width = max(map(len, facts))
        for name, value in facts.items():
            yield f"  {name:{width}}  {value}"


def _facts(questions: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    found = {}
    for name, question in questions.items():
        try:
            found[name] = question()
        except Exception as error:  # one failed check must not end the report
            found[name] = f"unknown ({reason(error)})"
    return found


def _versions() -> dict[str, Callable[[], str]]:
    try:
        required = importlib.metadata.requires(PACKAGE) or ()
        names = [re.split("[^A-Za-z0-9._-]", one)[0] for one in required if "extra ==" not in one]
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        names = ["torch", "pyro-ppl", "numpy"]
    return {name: partial(_version, name) for name in [PACKAGE, *names]}


def _version(name: str) -> str:
    try:
        return __version__ if name == PACKAGE else importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _memory() -> str:
    there = memory_of_machine()
    return "unknown" if there is None else _size(there)


def _blas() -> str:
    config = torch.__config__.show()
    return next((name for name in ("MKL", "OpenBLAS", "Accelerate") if f"BLAS_INFO={name.lower()}" in config), "other")


def _cuda() -> str:
    cuda = torch.cuda
    if not cuda.is_available():
        return "not available" if torch.version.cuda else "not available (PyTorch is installed without CUDA)"
    cards = (cuda.get_device_properties(i) for i in range(cuda.device_count()))
    return ", ".join(f"{card.name} ({_size(card.total_memory)})" for card in cards)


def _mps() -> str:
    return "available" if torch.backends.mps.is_available() else "not available"


def _data(name: str, place: Path) -> str:
    missing = [source.file for source in SOURCES[name] if not (place / source.file).is_file()]
    if not missing:
        return "available"
    otherwise = RENDERED.get(name, "") if len(missing) == len(SOURCES[name]) else ""
    return f"not downloaded (hlvae data download {name}){otherwise}"


def _part(module: str) -> str:
    use, remedy = OPTIONAL[module]
    if importlib.util.find_spec(module) is not None:
        return f"installed, for {use}"
    return f"not installed, for {use} ({remedy})"


def _inception() -> str:
    file = inception_file()
    return f"available, for FID: {file}" if file.is_file() else "not downloaded, for FID: FD-factors is used instead"


def _usage(place: Path) -> str:
    if not place.is_dir():
        return f"{place} (does not exist)"
    return f"{place} ({_size(sum(file.lstat().st_size for file in place.rglob('*') if file.is_file()))})"


def _existing(place: Path) -> Path:
    return next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())


def _size(number: float) -> str:
    """Format a number of bytes.

    >>> _size(3 * 2**30), _size(5000)
    ('3.0 GiB', '4.9 KiB')
    """
    power = min(int(math.log(max(number, 1), 1024)), 4)
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{number / 1024**power:.{min(power, 1)}f} {unit}"
