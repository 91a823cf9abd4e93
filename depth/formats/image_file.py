"""One decoder of PNG, JPEG and WebP files, for depth and for images: the header first, then the pixels.

Pillow and libjpeg fill in missing pixels silently; here an incomplete file is an error. Pixels are not
converted or interpreted.
"""

import io

from PIL import Image, ImageOps

from depth.formats import jpeg, png
from depth.formats.errors import ImageFileError, ImageTooLarge, UnknownFormat
from depth.formats.jpeg import JpegLayout, decode_jpeg, read_jpeg_layout
from depth.formats.png import PngHeader, complete_png, read_png_header
from depth.formats.webp import WebpHeader, is_webp, read_webp_header

Header = PngHeader | JpegLayout | WebpHeader


def read_header(data: bytes, max_pixels: int) -> Header:
    """Read a file's header, without allocating by what it says.

    Raises ImageTooLarge above `max_pixels`, UnknownFormat, and ImageFileError for what is damaged.
    """
    header = _read_header(data)
    if header.width * header.height > max_pixels:
        raise ImageTooLarge
    return header


def decode(data: bytes, header: Header, keep_texts: bool = False) -> Image.Image:
    """Return the loaded image in its file's own mode, turned upright as its EXIF orientation says.

    keep_texts: look for the orientation in the texts of a PNG too. Raises ImageFileError and its kinds.
    """
    try:
        image = _decode(data, header, keep_texts)
        ImageOps.exif_transpose(image, in_place=True)
    except ImageFileError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge from None
    except Exception:  # Pillow raises many exceptions on damaged bytes; a caller treats all alike
        raise ImageFileError("damaged") from None
    return image


def _decode(data: bytes, header: Header, keep_texts: bool) -> Image.Image:
    match header:
        case PngHeader():
            return _load(complete_png(data, header, keep_texts), "PNG")
        case JpegLayout():
            return decode_jpeg(data, header)
        case WebpHeader():
            return _load(data, "WEBP")


def _read_header(data: bytes) -> Header:
    if data.startswith(png.SIGNATURE):
        return read_png_header(data)
    if data.startswith(jpeg.SIGNATURE):
        return read_jpeg_layout(data)
    if is_webp(data):
        return read_webp_header(data)
    raise UnknownFormat


def _load(data: bytes, container: str) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=(container,)) as image:
        image.load()
    return image
