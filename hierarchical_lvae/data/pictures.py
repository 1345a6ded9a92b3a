"""One image file as 8 bits a channel, grey or RGB, whatever mode it is stored in; read by PIL.

The first frame is taken; the orientation that a camera noted (EXIF) is followed; transparency shows white behind it;
16 bits of grey become 8 by scale, and grey floats must lie in [0, 1].
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # PIL is to try no other, whatever a file holds


def open_picture(path: Path) -> "Image.Image":
    """Read an image file: mode L if it is stored as grey, else RGB.

    Raises:
        Exception: of PIL's many, where the file is broken, or so large that PIL takes it for a decompression bomb.
    """
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as file:
            image = ImageOps.exif_transpose(file)
        if image.mode.startswith(("I", "F")):
            return Image.fromarray(_levels(np.asarray(image)))
        mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
        if image.mode.endswith(("A", "a")) or "transparency" in image.info:
            coloured = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured)
        return image.convert(mode)


def _levels(pixels: np.ndarray) -> np.ndarray:
    """Grey of more than 8 bits in levels of 0 … 255."""
    low, high = pixels.min(), pixels.max()
    most = 1.0 if pixels.dtype.kind == "f" else 65535
    if not 0 <= low <= high <= most:
        raise ValueError(f"its greys are {low:g} to {high:g}, outside of 0 to {most:g}")
    return np.rint(pixels * (255 / most)).astype(np.uint8)
