"""Limit the size to which a compressed file may unpack: the guard against decompression bombs, for all formats."""

MAX_RATIO = 250  # unpacked bytes per stored byte: less than 10 for images, about 120 for dSprites, 1,032 for a bomb
SMALL = 2**26  # unpacked bytes that are allowed at any ratio


def max_unpacked(stored: int) -> int:
    """The largest number of bytes to which `stored` bytes may unpack."""
    return max(SMALL, MAX_RATIO * stored)


def check_ratio(where: str, size: int, stored: int, remedy: str) -> None:
    """Check that `stored` bytes do not unpack to too many.

    >>> check_ratio("a file", 10**9, 10**7, "")
    >>> check_ratio("a file", 10**9, 10**6, "download it again")
    Traceback (most recent call last):
    ValueError: a file unpacks 1,000,000 bytes to 1,000,000,000, over 250 times as many: download it again

    Raises:
        ValueError: `size` is over `max_unpacked(stored)`.
    """
    if size > max_unpacked(stored):
        raise ValueError(f"{where} unpacks {stored:,} bytes to {size:,}, over {MAX_RATIO} times as many: {remedy}")
