"""How many bytes a compressed file may unpack to: the guard against decompression bombs, for all formats."""

MAX_RATIO = 250  # unpacked bytes to a stored one: images have less than ten, dSprites has about 120, and a bomb 1,032
SMALL = 2**26  # bytes that may be packed to any ratio


def max_unpacked(stored: int) -> int:
    """The number of bytes that `stored` ones may unpack to."""
    return max(SMALL, MAX_RATIO * stored)


def check_ratio(where: str, size: int, stored: int, remedy: str) -> None:
    """Refuse `stored` bytes that unpack to too many.

    >>> check_ratio("a file", 10**9, 10**7, "")
    >>> check_ratio("a file", 10**9, 10**6, "get it again")
    Traceback (most recent call last):
    ValueError: a file unpacks 1,000,000 bytes to 1,000,000,000, over 250 times as many: get it again

    Raises:
        ValueError: `size` is over `max_unpacked(stored)`.
    """
    if size > max_unpacked(stored):
        raise ValueError(f"{where} unpacks {stored:,} bytes to {size:,}, over {MAX_RATIO} times as many: {remedy}")
