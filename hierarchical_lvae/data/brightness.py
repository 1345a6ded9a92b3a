"""A warning for images that are much darker than what is read as white: masks of 0 and 1, or greys of 12 bits in 16."""

import logging

DIM = 128  # of 255: images of one bit less than the format holds stay below

log = logging.getLogger(__name__)


def warn_if_dim(what: str, white: float, brightest: int, remedy: str) -> None:
    """Log a warning if no pixel is at least half as bright as white.

    Args:
        what: the images.
        white: the number that is read as white.
        brightest: the brightest of all their pixels, of 255.
        remedy: how to scale them.
    """
    if brightest < DIM:
        log.warning(
            "%s: %s is read as white, and no pixel is brighter than %d of 255: if a smaller number is white, %s",
            what, f"{white:,g}", brightest, remedy,
        )  # fmt: skip
