"""Grey values of PNG and JPEG files, as stored. 16 bits never pass through Image.convert, which saturates.

It does not know what the values mean.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depth.errors import DepthError
from depth.formats.jpeg import JpegError, check_jpeg_complete, read_jpeg_layout
from depth.formats.orientation import TAG, upright
from depth.formats.png import (
    AnimatedPng,
    PngError,
    PngHeader,
    check_png_complete,
    only_pixels,
    read_png_header,
)

_GREY, _PALETTE = 0, 3
_OPAQUE = 255


def read_png(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return [H, W] uint8 or uint16 values of a grey PNG, or of a colour PNG whose channels are all equal.

    Raises DepthError.
    """
    try:
        header = read_png_header(data)
        if header.width * header.height > max_pixels:
            raise DepthError("too_large")
        check_png_complete(data, header)
    except AnimatedPng:
        raise DepthError("multi_page") from None
    except PngError:
        raise DepthError("truncated") from None
    _check_png_kind(header)
    pixels, orientation = _decode(only_pixels(data), "PNG")
    return upright(_grey(pixels), orientation)


def read_jpeg(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return [H, W] uint8 values of a grey JPEG, or of a colour JPEG whose channels are all equal.

    Raises DepthError.
    """
    try:
        layout = read_jpeg_layout(data)
        if layout.width * layout.height > max_pixels:
            raise DepthError("too_large")
        if layout.bits != 8:
            raise DepthError("dtype")
        if layout.components not in (1, 3):
            raise DepthError("channels")
        if layout.is_multi or data[layout.end :].startswith(b"\xff\xd8"):
            raise DepthError("multi_page")
        pixels, orientation = _decode(data[: layout.end], "JPEG")
        check_jpeg_complete(data, layout, pixels)
    except JpegError:
        raise DepthError("truncated") from None
    return upright(_grey(pixels), orientation)


def _check_png_kind(header: PngHeader) -> None:
    if header.bits == 16 and header.colour_type != _GREY:
        raise DepthError("channels")
    if header.bits < 8 and header.colour_type != _PALETTE:
        raise DepthError("dtype")


def _decode(data: bytes, container: str) -> tuple[NDArray[np.generic], object]:
    try:
        with Image.open(io.BytesIO(data), formats=(container,)) as image:
            pixels = np.asarray(image.convert("RGBA") if image.mode == "P" else image)
            return pixels, image.getexif().get(TAG)
    except Exception:  # Pillow raises many kinds on damaged bytes; all mean the same to a caller
        raise DepthError("truncated") from None


def _grey(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    if pixels.ndim == 2:
        return pixels.astype(np.uint16) if pixels.dtype.itemsize > 1 else pixels
    colours, alpha = (pixels, None) if pixels.shape[2] == 3 else (pixels[..., :-1], pixels[..., -1])
    grey = colours[..., 0]
    if any((colours[..., channel] != grey).any() for channel in range(1, colours.shape[2])):
        raise DepthError("colour_mapped")
    if alpha is not None and (alpha != _OPAQUE).any():
        raise DepthError("channels")
    return grey
