"""Bytes of one image to RGB pixels, refusing from the header what is too large, cut short or not one frame.

Alpha is composited on white. EXIF orientation is applied, so a depth map must match the upright view.
"""

import io
import struct

import numpy as np
from PIL import Image, ImageOps

from depth.formats.jpeg import SIGNATURE as JPEG_SIGNATURE
from depth.formats.jpeg import JpegLayout, check_jpeg_complete, read_jpeg_layout
from depth.formats.png import SIGNATURE, AnimatedPng, PngError, check_png_complete, read_png_header
from service.errors import ApiError

FORMATS = ("JPEG", "PNG", "WEBP")


def decode_image(data: bytes, max_px: int) -> Image.Image:
    """Decode a JPEG, PNG or WebP file to a fully loaded RGB image, upright.

    Raises ApiError: bad_image, or image_too_large before anything is allocated.
    """
    if data.startswith(SIGNATURE):
        _check_png(data, max_px)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp(data, max_px)
    elif not data.startswith(JPEG_SIGNATURE):
        raise _bad("format")
    try:
        return _load_jpeg(data, max_px) if data.startswith(JPEG_SIGNATURE) else _load(data, max_px)
    except ApiError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(max_px) from None
    except Exception:  # Pillow raises many kinds on damaged bytes; all mean the same to a client
        raise _bad() from None


def _load_jpeg(data: bytes, max_px: int) -> Image.Image:
    """Read the markers ourselves, and prove that no pixel was painted in: libjpeg does so without a word."""
    layout = read_jpeg_layout(data)  # raises JpegError, bad like all others
    _check_size(layout.width, layout.height, max_px)
    return _load(data[: layout.end], max_px, layout)


def _load(data: bytes, max_px: int, layout: JpegLayout | None = None) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image.width, image.height, max_px)
        if image.mode.startswith("I"):
            raise _bad("sixteen_bit")
        image.load()
        if layout is not None:
            check_jpeg_complete(data, layout, np.asarray(image))
        upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright.convert("RGB")


def _check_png(data: bytes, max_px: int) -> None:
    try:
        header = read_png_header(data)
        _check_size(header.width, header.height, max_px)
        check_png_complete(data, header)
    except AnimatedPng:
        raise _bad("animated") from None
    except PngError:
        raise _bad() from None


def _check_webp(data: bytes, max_px: int) -> None:
    """Read the canvas size ourselves: libwebp allocates the whole canvas when the file is opened."""
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        raise _bad()
    if kind == b"VP8X":
        if head[0] & 0x02:
            raise _bad("animated")
        width, height = 1 + _uint24(head[4:7]), 1 + _uint24(head[7:10])
    elif kind == b"VP8L":
        (bits,) = struct.unpack("<I", head[1:5])
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", head[6:10]))
    else:
        raise _bad()
    _check_size(width, height, max_px)


def _uint24(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _check_size(width: int, height: int, max_px: int) -> None:
    if width * height > max_px:
        raise _too_large(max_px)


def _too_large(max_px: int) -> ApiError:
    return ApiError("image_too_large", field="image", limit=max_px)


def _bad(reason: str = "") -> ApiError:
    return ApiError("bad_image", reason=reason, field="image")
