"""Pictures of Pillow as bytes (C, H, W): grey ones have one channel, all others three.

Pillow is told by a picture's attributes, so that it is imported only where files are opened.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixsolve.base.errors import MixsolveError

_GREY = ("1", "L", "LA")
_DEEP = ("I", "F")  # modes of more than 8 bits a channel begin with these


def is_picture(value: Any) -> bool:
    """Return whether a value is a picture of Pillow."""
    return all(hasattr(value, name) for name in ("mode", "size", "convert", "resize"))


def pixels(
    picture: Any, called: str, *, size: int | None = None, colour: bool = False
) -> np.ndarray:
    """Return the pixels of a picture, uint8 (C, H, W), or refuse more than 8 bits a channel.

    Transparency is dropped, colours become RGB.

    Parameters
    ----------
    picture : PIL.Image.Image
        The picture, `called` so in an error.
    size : int, optional
        Scale the shorter side to so many pixels, bilinearly, and cut out the square in the middle.
    colour : bool, default False
        Give a grey picture three equal channels.
    """
    if picture.mode.startswith(_DEEP):
        raise MixsolveError(
            f"{called} must have 8 bits a channel; got a picture of mode {picture.mode!r}; convert "
            "it to 8 bits, or write the images as floats in [0, 1] into a .npz file"
        )
    picture = picture.convert("L" if picture.mode in _GREY and not colour else "RGB")
    if size is not None and picture.size != (size, size):
        picture = _square(picture, size)
    entries = np.asarray(picture)
    return entries[None] if entries.ndim == 2 else entries.transpose(2, 0, 1)


def _square(picture: Any, size: int) -> Any:
    """Return the square in the middle, scaled to `size`, as one resampling of the whole picture."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    bilinear = 2  # PIL.Image.Resampling.BILINEAR
    return picture.resize((size, size), bilinear, box=(left, top, left + side, top + side))
