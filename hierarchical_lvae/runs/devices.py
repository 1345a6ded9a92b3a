"""Device names, and whether a device is available."""

import logging
import re

AUTO = "auto"
NAMES = r"cpu|cuda(:\d+)?|mps"

log = logging.getLogger(__name__)


def resolve_device(name: str = AUTO) -> str:
    """Check and return a device name ("cpu", "cuda:1", …); "auto" becomes "cuda" if there is one, else "cpu".

    >>> resolve_device("cpu")
    'cpu'

    Raises:
        ValueError: it is not the name of a device.
        OSError: the device is not available.
    """
    import torch

    if name == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(NAMES, name):
        raise ValueError(f"{name!r} is not a device: give auto, cpu, cuda, cuda:1 or mps")
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():  # creates no CUDA context
        raise OSError(f"device {name!r} is not available ({torch.cuda.device_count()} GPUs): use cpu instead")
    if kind == "mps" and not torch.backends.mps.is_available():
        why = "no Apple GPU was found" if torch.backends.mps.is_built() else "this PyTorch is built without MPS"
        raise OSError(f"device 'mps' is not available ({why}): use cpu instead")
    return name


def device_here(wanted: str) -> str:
    """Return `wanted`, the device of an earlier fit, if it is available, else log a warning and return the default.

    Raises:
        ValueError: it is not the name of a device.
    """
    try:
        return resolve_device(wanted)
    except OSError:
        here = resolve_device(AUTO)
        log.warning("device %r is not available: using %s", wanted, here)
        return here
