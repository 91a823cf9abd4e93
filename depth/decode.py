"""Turn the bytes of a depth file into a DepthMap. Says nothing about the image that goes with it."""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depth.depth_map import DepthMap, metric_depth
from depth.errors import DepthError
from depth.npy import MAGIC, read_npy
from depth.png import SIGNATURE, AnimatedPng, PngError, check_png_complete, read_png_header

MAX_PIXELS = 16_777_216
PNG_UNITS_PER_METRE = 1000.0


def decode_depth(data: bytes, *, scale: float | None = None, max_pixels: int = MAX_PIXELS) -> DepthMap:
    """Decode a 16-bit grey PNG or a float NPY array to metric depth.

    `scale` is units per metre; None means 1000 (millimetres) for a PNG and 1 (metres) for an NPY array. The
    pixel count is taken from the header and bounded before anything is allocated. Raises DepthError.
    """
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise DepthError("scale")
    if data.startswith(SIGNATURE):
        return _in_metres(_read_png(data, max_pixels), scale or PNG_UNITS_PER_METRE)
    if data.startswith(MAGIC):
        return _in_metres(read_npy(data, max_pixels), scale or 1.0)
    raise DepthError("format")


def _in_metres(values: NDArray[np.generic], scale: float) -> DepthMap:
    # float64 keeps 1e308 finite until the mask has seen it; what overflows or is NaN here is masked there.
    with np.errstate(all="ignore"):
        return metric_depth(values.astype(np.float64) / scale)


def _read_png(data: bytes, max_pixels: int) -> NDArray[np.uint16]:
    try:
        header = read_png_header(data)
        if header.colour_type != 0 or header.bits != 16:
            raise DepthError("eight_bit")
        if header.width * header.height > max_pixels:
            raise DepthError("too_large")
        check_png_complete(data, header)
    except AnimatedPng:
        raise DepthError("animated") from None
    except PngError:
        raise DepthError("truncated") from None
    return _decode_png(data)


def _decode_png(data: bytes) -> NDArray[np.uint16]:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return np.asarray(image, dtype=np.uint16)  # never Image.convert: it saturates 16 bits at 255
    except Exception:  # Pillow raises many kinds on damaged bytes; all mean the same to a caller
        raise DepthError("truncated") from None
