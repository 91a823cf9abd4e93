"""decode_image: upright RGB pixels of one whole frame, or a refusal."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import ServiceError
from service.pipeline.images import decode_image
from tests.depth.files import chunk, png8, raw_png
from tests.service.files import IMAGE, PIXELS, encode, png_promising

MAX_PX = 1_000_000


def refusal(data: bytes, max_px: int = MAX_PX) -> str:
    with pytest.raises(ServiceError) as error:
        decode_image(data, max_px)
    return error.value.code


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_pixels_arrive_exactly(kind: str) -> None:
    image = decode_image(encode(PIXELS, kind, lossless=True), MAX_PX)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 90, "exact": True}, {"lossless": True}])
def test_every_kind_of_webp_is_measured(options: dict[str, object]) -> None:
    for pixels in (PIXELS, np.dstack([PIXELS, PIXELS[..., :1]])):
        data = encode(pixels, "WEBP", **options)
        assert decode_image(data, 48 * 64).size == (64, 48)
        assert refusal(data, 48 * 64 - 1) == "image_too_large"


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGB"])
def test_other_modes_become_rgb(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = Image.fromarray(PIXELS).convert(mode)
    assert decode_image(encode_image(image, kind), MAX_PX).mode == "RGB"


def test_alpha_is_composited_on_white() -> None:
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    decoded = np.asarray(decode_image(png8(pixels), MAX_PX))
    assert decoded[0, 0].tolist() == [10, 20, 30] and decoded[1, 1].tolist() == [255, 255, 255]


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    turned = decode_image(encode(PIXELS, "PNG", exif=exif), MAX_PX)
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(PIXELS, -1))


def test_orientation_in_the_texts_of_a_png_is_applied() -> None:
    packet = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    text = chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + packet)
    turned = decode_image(IMAGE[:33] + text + IMAGE[33:], MAX_PX)
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(PIXELS, -1))


def test_limit_is_exact() -> None:
    assert decode_image(IMAGE, 48 * 64).size == (64, 48)
    assert refusal(IMAGE, 48 * 64 - 1) == "image_too_large"
    assert decode_image(encode(PIXELS, "JPEG"), 48 * 64).size == (64, 48)
    assert refusal(encode(PIXELS, "JPEG"), 48 * 64 - 1) == "image_too_large"


def test_bombs_are_refused_from_the_header() -> None:
    jpeg = bytearray(encode(PIXELS, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    webp = bytearray(encode(PIXELS, "WEBP", lossless=True))
    webp[21:25] = b"\xff\xff\xff\x0f"
    assert refusal(bytes(jpeg)) == "bad_image"  # so few bytes cannot hold so many pixels
    for bomb in (
        bytes(webp),
        png_promising(13_000, 13_000),
        png_promising(2**31 - 1, 2**31 - 1),
    ):
        assert refusal(bomb) == "image_too_large"


def test_missing_rows_are_refused_although_pillow_would_pad_them() -> None:
    row = b"\x00" + bytes(range(24))
    assert refusal(raw_png(8, 8, row, bits=8, colour=2)) == "bad_image"
    assert decode_image(raw_png(8, 8, row * 8, bits=8, colour=2), MAX_PX).size == (8, 8)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}]
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_jpeg_whose_end_was_put_back_is_refused_although_libjpeg_would_paint_it_grey(
    options: dict[str, int], share: float
) -> None:
    whole = encode(PIXELS, "JPEG", **options)
    cut = whole[: int(len(whole) * share)] + b"\xff\xd9"
    assert refusal(cut) == "bad_image"
    assert decode_image(whole, MAX_PX).size == (64, 48)
    if not options and share > 0.5:
        with Image.open(io.BytesIO(cut)) as image:
            image.load()  # the twin: this is what nobody else notices


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}])
def test_a_webp_whose_sizes_were_put_right_is_refused(options: dict[str, object], share: float) -> None:
    whole = encode(PIXELS, "WEBP", **options)
    cut = bytearray(whole[: int(len(whole) * share) & ~1])
    cut[4:8] = (len(cut) - 8).to_bytes(4, "little")
    cut[16:20] = (len(cut) - 20).to_bytes(4, "little")
    assert refusal(bytes(cut)) == "bad_image"


def test_the_first_picture_of_a_stereo_camera_is_read() -> None:
    first, second = Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second], quality=95)
    seen = np.asarray(decode_image(buffer.getvalue(), MAX_PX)).astype(float)
    assert np.abs(seen - PIXELS).mean() < np.abs(seen - (255.0 - PIXELS)).mean()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(0, 3000), st.binary(min_size=1, max_size=20))
def test_damaged_files_raise_nothing_but_our_refusal(kind: str, at: int, noise: bytes) -> None:
    good = encode(PIXELS, kind)
    at %= len(good)
    with contextlib.suppress(ServiceError):
        decode_image(good[:at] + noise + good[at + len(noise) :], MAX_PX)


def encode_image(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
