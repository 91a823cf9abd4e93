"""Grey images of 8 bits: what counts as one, and that a image with missing pixels never does."""

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import depth.formats.jpeg
from depth import DepthError
from tests.depth.files import decode_depth, inspect_depth, jpeg, png8, raw_png
from tests.depth.tiffs import tiff
from tests.fuzz.other_formats import OPTIONS
from tests.fuzz.seeds import seeds

HEIGHT, WIDTH = 41, 53
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
RNG = np.random.default_rng(0)
GREY = (120 + 60 * np.sin(COLUMNS / 9) + 50 * np.cos(ROWS / 7) + RNG.normal(0, 3, (HEIGHT, WIDTH))).astype(
    "u1"
)
EQUAL = np.stack([GREY] * 3, axis=-1)
COLOURED = np.stack([GREY, 255 - GREY, GREY], axis=-1)
ALPHA = np.full((HEIGHT, WIDTH, 1), 255, "u1")
KINDS = [
    {},
    {"progressive": True},
    {"optimize": True, "quality": 40},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 3, "quality": 90},
]
INSIDE: dict[str, str] = dict.fromkeys(
    ("ros", "carla", "tartanair", "sunrgbd", "spatialbot", "float-rgba", "airsim-vis"), "png"
)
SCAN, END = b"\xff\xda", b"\xff\xd9"


def reason(data: bytes, **options: object) -> str:
    with pytest.raises(DepthError) as error:
        decode_depth(data, **options)  # type: ignore[arg-type]
    return error.value.reason


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def palette(colours: list[int]) -> bytes:
    image = Image.fromarray(GREY).convert("P")
    image.putdata(GREY.ravel().tolist())
    image.putpalette(colours)
    return png(image)


@pytest.mark.parametrize(
    "data",
    [
        png8(GREY),
        png8(EQUAL),
        png(Image.fromarray(np.concatenate([EQUAL, ALPHA], axis=-1))),
        png(Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA[..., 0])))),
        palette([level for level in range(256) for _ in range(3)]),
        tiff(GREY),
    ],
    ids=["grey", "equal rgb", "equal rgba", "grey alpha", "grey palette", "tiff"],
)
def test_grey_in_any_form_is_the_same_relative_depth(data: bytes) -> None:
    decoded, report = decode_depth(data), inspect_depth(data)
    assert (decoded.kind, decoded.unit, report.scale, report.dtype) == ("relative", None, None, "uint8")
    assert report.guessed == ("kind", "polarity")
    np.testing.assert_array_equal(decode_depth(data, kind="relative").values, GREY)


def test_jpeg_is_what_pillow_decodes() -> None:
    for values, options in ((GREY, {}), (EQUAL, {"quality": 70}), (GREY, {"progressive": True})):
        data = jpeg(values, **options)
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("L"))
        np.testing.assert_array_equal(decode_depth(data, kind="relative").values, expected)
        assert inspect_depth(data).notes[0].code == "lossy"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png8(COLOURED), "colour_mapped"),
        (jpeg(COLOURED), "colour_mapped"),
        (palette([level for index in range(256) for level in (index, 255 - index, 0)]), "colour_mapped"),
        (png(Image.fromarray(np.concatenate([EQUAL, ALPHA // 2], axis=-1))), "channels"),
        (raw_png(2, 2, bytes(26), colour=2), "channels"),
        (raw_png(8, 2, bytes(4), bits=1), "dtype"),
        (raw_png(8, 2, bytes(10), bits=4), "dtype"),
    ],
    ids=["rgb", "jpeg rgb", "palette", "transparent", "rgb of 16 bits", "1 bit", "4 bits"],
)
def test_what_is_no_grey_image_is_refused(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_eight_bits_carry_no_distance_unless_told() -> None:
    assert reason(png8(GREY), kind="metric") == "metric_eight_bit"
    assert reason(png8(GREY), preset="scannet") == "preset_eight_bit"
    assert decode_depth(png8(GREY), scale=50).unit == "m"


def test_cmyk_and_two_images_in_a_jpeg_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(EQUAL).convert("CMYK").save(buffer, "JPEG")
    assert reason(buffer.getvalue()) == "channels"
    assert reason(jpeg(GREY) + jpeg(GREY)) == "multi_page"
    buffer, view = io.BytesIO(), Image.fromarray(GREY)
    view.save(buffer, "MPO", save_all=True, append_images=[view])
    assert reason(buffer.getvalue()) == "multi_page"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("container", ["PNG", "JPEG"])
def test_orientation_is_applied_as_pillow_would(container: str, orientation: int) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(buffer, container, exif=exif)
    with Image.open(buffer) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_depth(buffer.getvalue(), kind="relative").values, expected)


@pytest.mark.parametrize("values", [GREY, EQUAL], ids=["grey", "rgb"])
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_jpeg_cut_anywhere_is_refused_though_it_ends_properly(
    options: dict[str, object], values: np.ndarray
) -> None:
    whole = jpeg(values, **options)
    full = decode_depth(whole, kind="relative").values
    first = whole.index(SCAN) + 12
    for length in range(first, len(whole) - 2, 3):
        try:
            cut = decode_depth(whole[:length] + END, kind="relative")
        except DepthError as error:
            assert error.reason in ("truncated", "constant"), length
        else:
            np.testing.assert_array_equal(cut.values, full)  # what was cut off said nothing
    assert reason(whole[: len(whole) // 2]) == "truncated"


def test_pillow_alone_would_paint_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = jpeg(GREY)
    cut = whole[: whole.index(SCAN) + 60] + END
    assert reason(cut) == "truncated"
    monkeypatch.setattr(depth.formats.jpeg, "check_jpeg_complete", lambda *_: None)
    assert decode_depth(cut).shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_whole_jpeg_is_decoded_once(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    def decode_again(*_: object) -> None:
        raise AssertionError("libjpeg had nothing to warn of")

    monkeypatch.setattr(depth.formats.jpeg, "check_jpeg_complete", decode_again)
    assert decode_depth(jpeg(GREY, **options)).shape == (HEIGHT, WIDTH)
    with pytest.raises(DepthError):
        decode_depth(jpeg(GREY)[:-60] + END)  # the twin: here it has


def test_stray_bytes_before_the_end_of_a_jpeg_are_no_damage() -> None:
    whole = jpeg(GREY)
    strayed = whole[:-2] + bytes(3) + END  # as cheap cameras write; libjpeg warns
    np.testing.assert_array_equal(
        decode_depth(strayed, kind="relative").values, decode_depth(whole, kind="relative").values
    )


def test_without_the_markers_a_missing_scan_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = jpeg(GREY, progressive=True)
    cut = whole[: [match.start() for match in re.finditer(SCAN, whole)][-1]] + END
    assert reason(cut) == "truncated"
    monkeypatch.setattr(depth.formats.jpeg, "_check_all_coded", lambda *_: None)
    assert decode_depth(cut).shape == (HEIGHT, WIDTH)


def test_a_missing_stretch_between_restarts_is_refused() -> None:
    whole = jpeg(GREY, restart_marker_blocks=2)
    marks = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", whole)]
    for first, last in [(0, 1), (3, 11), (2, 10), (len(marks) - 1, len(marks) - 1)]:
        end = marks[last] if last > first else len(whole) - 2
        assert reason(whole[: marks[first]] + whole[end:]) == "truncated"


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (-1, 0xC3, "truncated"),  # lossless
        (-1, 0xC9, "truncated"),  # arithmetic
        (2, 12, "dtype"),
        (3, 0xFF, "truncated"),  # taller than its data could be
        (7, 2, "truncated"),
    ],
)
def test_jpeg_headers_that_are_refused(at: int, value: int, expected: str) -> None:
    data = bytearray(jpeg(GREY))
    frame = data.index(b"\xff\xc0") + 2
    data[frame + at] = value
    assert reason(bytes(data)) == expected


def test_jpeg_size_is_refused_from_the_header() -> None:
    assert reason(jpeg(GREY), max_pixels=HEIGHT * WIDTH - 1) == "too_large"
    assert decode_depth(jpeg(GREY), max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH)


def test_a_scan_that_was_left_out_is_missed() -> None:
    whole = jpeg(GREY, progressive=True)
    scans = [match.start() for match in re.finditer(SCAN, whole)]
    for start in scans[1:]:
        assert reason(whole[:start] + END) == "truncated"


def test_pillow_is_told_the_format_and_never_converts_sixteen_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, converted, good = [], [], seeds()
    open_image, convert = Image.open, Image.Image.convert

    def spy_open(file: Any, **options: Any) -> Image.Image:
        opened.append(options["formats"])
        return open_image(file, **options)

    def spy_convert(image: Image.Image, *options: Any, **more: Any) -> Image.Image:
        converted.append(image.mode)
        return convert(image, *options, **more)

    monkeypatch.setattr(Image, "open", spy_open)
    monkeypatch.setattr(Image.Image, "convert", spy_convert)
    for container, data in good:
        opened.clear()
        decode_depth(data, **OPTIONS.get(container, {}))
        assert set(opened) <= {(INSIDE.get(container, container).upper(),)}
    assert set(converted) == {"P"}
