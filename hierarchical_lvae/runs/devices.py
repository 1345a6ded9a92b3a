"""Names of devices, and whether a device is available."""

import logging
import re

AUTO = "auto"
NAMES = r"cpu|cuda(:\d+)?|mps"

log = logging.getLogger(__name__)


def resolve_device(name: str = AUTO) -> str:
    """The device of a name: "cpu", "cuda", "cuda:1", …, or "auto", which is a GPU if there is one.

    >>> resolve_device("cpu")
    'cpu'

    Raises:
        ValueError: no device can have this name.
        OSError: the device is not available.
    """
    import torch

    if name == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(NAMES, name):
        raise ValueError(f"{name!r} is not a device: give auto, cpu, cuda or cuda:1")
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():  # which makes no context on any GPU
        raise OSError(f"device {name!r} is not available ({torch.cuda.device_count()} GPUs): use cpu instead")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise OSError("device 'mps' is not available: use cpu instead")
    return name


def device_here(wanted: str) -> str:
    """The device of an earlier fit if it is available, else the one that "auto" chooses, with a line in the log.

    Raises:
        ValueError: no device can have this name.
    """
    try:
        return resolve_device(wanted)
    except OSError:
        here = resolve_device(AUTO)
        log.warning("device %r is not available: using %s", wanted, here)
        return here
