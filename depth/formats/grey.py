"""Grey values of PNG and JPEG files, as stored. 16 bits never pass through Image.convert, which saturates."""

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError
from depth.formats.errors import AnimatedImage, ImageFileError, ImageTooLarge
from depth.formats.image_file import Header, decode, read_header
from depth.formats.jpeg import JpegLayout
from depth.formats.packed import packings_like
from depth.formats.png import PngHeader

_GREY, _PALETTE = 0, 3
_OPAQUE = 255


def read_grey(data: bytes, max_pixels: int) -> NDArray[np.generic]:
    """Return [H, W] uint8 or uint16 values of a PNG or JPEG that is grey, or whose channels are all equal.

    Raises DepthError.
    """
    try:
        header = read_header(data, max_pixels)
        _check_kind(data, header)
        image = decode(data, header)
    except ImageTooLarge:
        raise DepthError("too_large", limit=max_pixels) from None
    except AnimatedImage:
        raise DepthError("multi_page") from None
    except ImageFileError:
        raise DepthError("truncated") from None
    return _grey(np.asarray(image.convert("RGBA") if image.mode == "P" else image))


def _check_kind(data: bytes, header: Header) -> None:
    match header:
        case PngHeader() if header.bits == 16 and header.colour_type != _GREY:
            raise DepthError("channels")
        case PngHeader() if header.bits < 8 and header.colour_type != _PALETTE:
            raise DepthError("dtype")
        case JpegLayout() if header.bits != 8:
            raise DepthError("dtype")
        case JpegLayout() if header.components not in (1, 3):
            raise DepthError("channels")
        case JpegLayout() if header.is_multi or data[header.end :].startswith(b"\xff\xd8"):
            raise DepthError("multi_page")


def _grey(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    if pixels.ndim == 2:
        return pixels.astype(np.uint16, copy=False) if pixels.dtype.itemsize > 1 else pixels
    colours, alpha = (pixels, None) if pixels.shape[2] == 3 else (pixels[..., :-1], pixels[..., -1])
    grey = colours[..., 0]
    if any((colours[..., channel] != grey).any() for channel in range(1, colours.shape[2])):
        likely = packings_like(pixels)
        raise DepthError("packed", choices=likely) if likely else DepthError("colour_mapped")
    if alpha is not None and (alpha != _OPAQUE).any():
        raise DepthError("channels")
    return grey
