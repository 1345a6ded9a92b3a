"""Make an image square, by cropping its centre or adding black borders, and resize it with PIL's Lanczos filter.

The filter overshoots at sharp edges; with 8 bits per channel, its output is clipped to 0 … 255.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def framed(image: "Image.Image", size: int, frame: str = "crop") -> np.ndarray:
    """Make an image of mode L or RGB square: (C, size, size) uint8.

    >>> from PIL import Image
    >>> wide = Image.new("RGB", (30, 10), "white")
    >>> framed(wide, 12).shape, framed(wide, 12)[:, 0, 0].tolist(), framed(wide, 12, "pad")[0, :, 6].tolist()
    ((3, 12, 12), [255, 255, 255], [0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0])
    """
    from PIL import Image

    width, height = image.size
    if frame == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    else:
        side = max(width, height)
        inner = max(1, round(width * size / side)), max(1, round(height * size / side))
        square = Image.new(image.mode, (size, size))
        square.paste(image.resize(inner, Image.Resampling.LANCZOS), ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return np.asarray(square).reshape(size, size, -1).transpose(2, 0, 1)
