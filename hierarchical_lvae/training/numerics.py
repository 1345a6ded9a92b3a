"""How a fit computes: the precision of matrix products and, on a GPU, whether sums run in a fixed order."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hierarchical_lvae.runs.options import FitOptions

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
"""The environment variable that makes cuBLAS deterministic."""


@contextmanager
def numerics(options: FitOptions) -> Iterator[None]:
    """Use the precision and the algorithms that the options request; restore PyTorch's settings afterwards.

    Raises:
        ValueError: see `deterministic`.
    """
    with precision(options.precision), deterministic(options.deterministic and options.device.startswith("cuda")):
        yield


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Set the precision of float32 matrix products and convolutions to one of `PRECISIONS`; restore it afterwards."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(name)
    torch.backends.cudnn.allow_tf32 = name != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Use only algorithms that give the same bytes each time, if `wanted`; restore PyTorch's settings afterwards.

    Otherwise some sums of cuDNN and cuBLAS run in no fixed order. A CPU needs no such setting.

    Raises:
        ValueError: the GPU has been used already, without the environment variable that cuBLAS needs.
    """
    if not wanted:
        yield
        return
    if CUBLAS not in os.environ and torch.cuda.is_initialized():  # PyTorch reads it once, at the first matrix product
        raise ValueError(
            f"`deterministic` needs the environment variable {CUBLAS}=:4096:8, set before the GPU is first used: "
            "set it and start again, or leave out `deterministic`"
        )
    os.environ.setdefault(CUBLAS, ":4096:8")
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # it would take a kernel per tensor; we never read such memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = filled
