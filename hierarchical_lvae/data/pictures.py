"""Read one image file with PIL as grey or RGB with 8 bits per channel, whatever its stored mode.

Only the first frame is read, the EXIF orientation is applied, and transparent pixels are composited on white. Values of
16 bits (12 in some TIFF files) are scaled to 8 bits; grey floats must lie in [0, 1].
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # PIL must try no others, whatever a file contains
PHOTOMETRIC = 262  # a TIFF tag: 0 if white is zero, which PIL handles only with 8 bits
GREY_STEPS = {"L;2": 85, "L;4": 17}  # by these, PIL scales greys of 2 and 4 bits to 8, but not the transparent grey


class Picture(NamedTuple):
    """The first frame of an image file."""

    image: "Image.Image"
    """In mode L if it is stored as grey, else in mode RGB."""
    white: float
    """The value of white in the file: 255, 4095, 65535, or 1 for floats."""
    has_more: bool
    """Whether the file has further frames, which are ignored. Those of a JPEG (stereo pair, preview) do not count."""


def open_picture(path: Path) -> Picture:
    """Read an image file.

    Raises:
        Exception: any that PIL raises for a damaged file, or one so large that it may be a decompression bomb.
        ValueError: a value lies outside the range from black to white.
    """
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as file:
            stored = " ".join(str(tile[3]) for tile in file.tile)  # the raw modes of PIL's decoders, such as RGB;16B
            inverted = getattr(file, "tag_v2", {}).get(PHOTOMETRIC) == 0
            has_more = file.format in ("GIF", "PNG", "TIFF", "WEBP") and getattr(file, "is_animated", False)
            image = ImageOps.exif_transpose(file)
        transparent = image.info.get("transparency")
        if image.mode.startswith(("I", "F")):
            white = 1.0 if image.mode == "F" else 4095 if "I;12" in stored else 65535
            pixels = np.asarray(image)
            if transparent is not None:
                pixels = np.where(pixels == transparent, white, pixels)
            return Picture(Image.fromarray(_levels(pixels, white, inverted)), white, has_more)
        if transparent is not None and stored in GREY_STEPS:
            image.info["transparency"] = transparent * GREY_STEPS[stored]
        mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
        if image.mode.endswith(("A", "a")) or transparent is not None:
            coloured = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured)
        return Picture(image.convert(mode), 65535 if ";16" in stored else 255, has_more)


def _levels(pixels: np.ndarray, white: float, inverted: bool) -> np.ndarray:
    """Convert grey values of more than 8 bits to levels 0 … 255."""
    low, high = pixels.min(), pixels.max()
    if not 0 <= low <= high <= white:
        raise ValueError(f"its greys range from {low:g} to {high:g}, outside 0 to {white:g}: scale them")
    levels = np.rint(pixels * (255 / white)).astype(np.uint8)
    return 255 - levels if inverted else levels
