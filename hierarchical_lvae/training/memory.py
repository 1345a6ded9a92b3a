"""How much memory a step needs, and memory of the C library on Linux: keep what was freed, for the next step.

A meta-step makes and frees arrays of 30 to 80 MB by the dozen. By default glibc gives blocks of that size back to the
system at once, and each new one is paid for page by page: with them kept, a step on two cores took 14 to 18 % less.
"""

import ctypes
import os

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""As `malloc.h` numbers them."""


def give_back_freed_memory() -> None:
    """Give what is free back to the system, so that memory in use can be read off the process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next allocations; tell whether the C library knows how to.

    This is for the process, to its end. What it holds is what it needed at most, which it would have needed anyway, and
    what fragments cost.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # no glibc
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26))
    return all(mallopt(name, value) for name, value in settings)


def check_step_fits(batch: int, num_neighbours: int, image_shape: tuple[int, int, int], device: str = "cpu") -> None:
    """Refuse a step that needs more memory than there is, before it exhausts the memory of the machine.

    What is counted is a lower bound, of the neighbours alone: their pixels, and the first and last map of features.

    Args:
        batch: neighbourhoods at a time.
        num_neighbours: points in each.
        image_shape: (C, H, W).
        device: where the step is computed.

    Raises:
        MemoryError: the step does not fit.
    """
    import torch

    channels, height, width = image_shape
    needed = 4 * (2 * channels + 16) * height * width * batch * num_neighbours
    if device.startswith("cuda"):
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise MemoryError(
            f"a step on {batch:,} × {num_neighbours:,} images needs at least {needed / 2**30:,.0f} GiB, "
            f"and there are {there / 2**30:,.0f}"
        )
