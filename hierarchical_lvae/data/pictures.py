"""One image file as 8 bits a channel, grey or RGB, whatever mode it is stored in; read by PIL.

The first frame is taken; the orientation that a camera noted (EXIF) is followed; transparency shows white behind it;
16 bits (12 in some TIFF) become 8 by scale, and grey floats must lie in [0, 1].
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # PIL is to try no other, whatever a file holds
PHOTOMETRIC = 262  # a tag of TIFF: 0 where white is zero, which PIL heeds in 8 bits alone


class Picture(NamedTuple):
    """An image file's first frame."""

    image: "Image.Image"
    """Of mode L if it is stored as grey, else RGB."""
    white: float
    """The number that the file has for white: 255, 4095, 65535, or 1 if it holds floats."""
    has_more: bool
    """Whether further frames are left out. Those of a JPEG (a stereo pair, a preview) do not count."""


def open_picture(path: Path) -> Picture:
    """Read an image file.

    Raises:
        Exception: of PIL's many, where the file is broken, or so large that PIL takes it for a decompression bomb.
    """
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as file:
            stored = " ".join(str(tile[3]) for tile in file.tile)  # as PIL's decoders name it, such as RGB;16B
            inverted = getattr(file, "tag_v2", {}).get(PHOTOMETRIC) == 0
            has_more = file.format in ("GIF", "PNG", "TIFF", "WEBP") and getattr(file, "is_animated", False)
            image = ImageOps.exif_transpose(file)
        if image.mode.startswith(("I", "F")):
            white = 1.0 if image.mode == "F" else 4095 if "I;12" in stored else 65535
            return Picture(Image.fromarray(_levels(np.asarray(image), white, inverted)), white, has_more)
        mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
        if image.mode.endswith(("A", "a")) or "transparency" in image.info:
            coloured = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured)
        return Picture(image.convert(mode), 65535 if ";16" in stored else 255, has_more)


def _levels(pixels: np.ndarray, white: float, inverted: bool) -> np.ndarray:
    """Grey of more than 8 bits in levels of 0 … 255."""
    low, high = pixels.min(), pixels.max()
    if not 0 <= low <= high <= white:
        raise ValueError(f"its greys are {low:g} to {high:g}, outside of 0 to {white:g}: scale them")
    levels = np.rint(pixels * (255 / white)).astype(np.uint8)
    return 255 - levels if inverted else levels
