"""Bytes of one image to RGB pixels, refusing from the header what is too large, cut short or not one frame.

Alpha is composited on white. EXIF orientation is applied, so a depth map must match the upright view.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from depth.formats.errors import AnimatedImage, ImageFileError, ImageTooLarge, UnknownFormat
from depth.formats.image_file import Header, decode, read_header
from service.errors import ServiceError


def decode_image(data: bytes, max_px: int, field: str = "image", header: Header | None = None) -> Image.Image:
    """Decode a JPEG, PNG or WebP file to a fully loaded RGB image, upright.

    field: where the client wrote the file. header: its `image_header`, where it was read already. Raises
    ServiceError: bad_image, or image_too_large before anything is allocated.
    """
    with _refused(data, max_px, field):
        image = decode(data, header or read_header(data, max_px), keep_texts=True)
    if image.mode.startswith("I"):
        raise _bad(field, "sixteen_bit")
    return _rgb(image)


def image_header(data: bytes, max_px: int, field: str = "image") -> Header:
    """Read the header of a file, whose size in px is that before its EXIF orientation turns it.

    Raises ServiceError as `decode_image` does.
    """
    with _refused(data, max_px, field):
        return read_header(data, max_px)


@contextmanager
def _refused(data: bytes, max_px: int, field: str) -> Iterator[None]:
    """Turn what is wrong with a file into a refusal."""
    try:
        yield
    except ImageTooLarge:
        raise ServiceError("image_too_large", field=field, limit=max_px) from None
    except AnimatedImage:
        raise _bad(field, "animated") from None
    except UnknownFormat:
        raise _bad(field, "format" if data else "empty") from None
    except ImageFileError:
        raise _bad(field) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _bad(field: str, reason: str = "") -> ServiceError:
    return ServiceError("bad_image", reason=reason, field=field)
