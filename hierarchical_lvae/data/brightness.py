"""Warn about images far darker than the value read as white, such as 0/1 masks, or 12-bit greys stored in 16 bits."""

import logging

DIM = 128  # of 255: images that use one bit less than their format stay below this

log = logging.getLogger(__name__)


def warn_if_dim(what: str, white: float, brightest: int, remedy: str) -> None:
    """Log a warning if no pixel is at least half as bright as white.

    Args:
        what: the images, as named in the warning.
        white: the value that is read as white.
        brightest: their brightest pixel, of 255.
        remedy: how to scale them.
    """
    if brightest < DIM:
        log.warning(
            "%s: %s is read as white, but no pixel is brighter than %d of 255: if a smaller value is white, %s",
            what, f"{white:,g}", brightest, remedy,
        )  # fmt: skip
