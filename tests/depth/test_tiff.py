"""TIFF: every layout that is read gives the numbers that were written; everything else is refused by name."""

import io
import itertools
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth import DepthError
from depth.decode import MAX_PIXELS
from depth.formats.tiff_blocks import read_tiff
from tests.depth.files import decode_depth
from tests.depth.tiffs import DEFLATE, LZW, NONE, OLD_DEFLATE, PACKBITS, compress, tiff, write

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 37, 53
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"rows_per_strip": 8},
    {"rows_per_strip": 1},
    {"tile": (16, 16)},
    {"tile": (48, 64)},
]
COMPRESSIONS = (NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS)


def numbers(dtype: str) -> np.ndarray:
    if dtype.startswith("u"):
        return RNG.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH), dtype=dtype, endpoint=True)
    return RNG.uniform(0.2, 9, (HEIGHT, WIDTH)).astype(dtype)


def reason(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(DepthError) as error:
        read_tiff(data, max_pixels)
    return error.value.reason


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8"])
def test_strips_and_tiles_of_every_type_and_predictor(dtype: str, compression: int, order: str) -> None:
    predictors = (1, 2, 3) if dtype.startswith("f") else (1, 2)
    for predictor, layout in itertools.product(predictors, LAYOUTS):
        if predictor > 1 and compression in (NONE, PACKBITS):
            continue
        values = numbers(dtype)
        data = tiff(values, order=order, compression=compression, predictor=predictor, **layout)
        read = read_tiff(data, MAX_PIXELS)
        assert read.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(read, values, err_msg=f"{predictor} {layout}")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_what_pillow_writes(dtype: str, compression: str) -> None:
    values = numbers(dtype)
    for predictor in (1, 2) if "tiff" in compression and dtype != "f4" else (1,):
        buffer = io.BytesIO()
        Image.fromarray(values).save(
            buffer, "TIFF", compression=compression, tiffinfo={317: predictor, 278: 5, 305: "a camera"}
        )
        np.testing.assert_array_equal(read_tiff(buffer.getvalue(), MAX_PIXELS), values)


def test_floating_point_differences_are_those_of_libtiff() -> None:
    values, buffer = numbers("f4"), io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF", compression="tiff_lzw", tiffinfo={317: 3})
    np.testing.assert_array_equal(read_tiff(buffer.getvalue(), MAX_PIXELS), values)


def test_units_follow_the_type() -> None:
    millimetres = (RNG.integers(300, 9000, (HEIGHT, WIDTH))).astype("u2")
    from_integers, from_floats = decode_depth(tiff(millimetres)), decode_depth(tiff(millimetres / 1000))
    np.testing.assert_array_equal(from_integers.values, (millimetres / 1000).astype("f4"))
    np.testing.assert_array_equal(from_integers.values, from_floats.values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow(orientation: int) -> None:
    data = tiff(numbers("u2"), tags={274: orientation})
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # Pillow turns a TIFF upright itself
        np.testing.assert_array_equal(read_tiff(data, MAX_PIXELS), np.asarray(image))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", LAYOUTS[:-1])
def test_missing_pixels_are_refused(compression: int, layout: dict[str, Any]) -> None:
    values = numbers("u2")
    assert reason(tiff(values, compression=compression, **layout)[:-1]) == "truncated"
    rows_less = tiff(values[:-16], compression=compression, tags={257: HEIGHT}, **layout)
    assert reason(rows_less) == "truncated"


@pytest.mark.parametrize("compression", [LZW, DEFLATE, PACKBITS])
def test_a_block_that_ends_early_anywhere_is_refused(compression: int) -> None:
    values = numbers("u1")[:8, :9]
    size = len(compress(values.tobytes(), compression))
    refused = 0
    for length in range(1, size):
        try:
            read = read_tiff(tiff(values, compression=compression, tags={279: length}), MAX_PIXELS)
            np.testing.assert_array_equal(read, values)  # only the code that says "end" was missing
        except DepthError:
            refused += 1
    assert refused >= size - 3


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({256: 0}, "truncated"),
        ({257: None}, "truncated"),
        ({256: 1 << 20, 257: 1 << 20}, "too_large"),
        ({258: 32}, "dtype"),
        ({258: 4}, "dtype"),
        ({258: None}, "dtype"),
        ({339: 2}, "dtype"),
        ({277: 3}, "channels"),
        ({262: 2}, "channels"),
        ({262: 3}, "colour_mapped"),
        ({262: 0}, "tiff_layout"),
        ({266: 2}, "tiff_layout"),
        ({259: 7}, "tiff_layout"),
        ({259: 34925}, "tiff_layout"),
        ({259: 50000}, "tiff_layout"),
        ({317: 3, 259: 8}, "tiff_layout"),
        ({317: 4}, "tiff_layout"),
        ({278: 0}, "tiff_layout"),
        ({278: 1}, "truncated"),
        ({273: None}, "truncated"),
        ({279: None}, "truncated"),
        ({279: 10}, "truncated"),
        ({273: 1 << 31}, "truncated"),
        ({330: 8}, "multi_page"),
        ({322: 10, 323: 16}, "tiff_layout"),
        ({322: 16, 323: 0}, "tiff_layout"),
        ({322: 1 << 20, 323: 1 << 20}, "too_large"),
    ],
)
def test_directories_that_are_refused(tags: dict[int, int | None], expected: str) -> None:
    data = tiff(numbers("u2"), tags=tags)
    assert reason(data) == expected


def test_more_than_one_page_is_refused() -> None:
    assert reason(tiff(numbers("u2"), next_page=8)) == "multi_page"
    buffer, page = io.BytesIO(), Image.fromarray(numbers("u2"))
    page.save(buffer, "TIFF", save_all=True, append_images=[page])
    assert reason(buffer.getvalue()) == "multi_page"


def test_floods_and_loops_are_refused() -> None:
    many = {tag: [1] for tag in range(1000, 1065)}
    assert reason(write(b"", many)) == "tiff_layout"
    assert reason(b"II*\0" + struct.pack("<I", 8)) == "truncated"
    assert reason(b"II*\0" + struct.pack("<I", 0xFFFFFFFF)) == "truncated"
    assert reason(b"II+\0" + bytes(60)) == "tiff_layout"
    far = struct.pack("<HHII", 273, 4, 0xFFFFFFFF, 8)
    assert reason(b"II*\0" + struct.pack("<IH", 8, 1) + far + bytes(4)) == "tiff_layout"


def test_size_limits_hold_before_anything_is_read() -> None:
    data = tiff(numbers("u1"))
    assert reason(data, HEIGHT * WIDTH - 1) == "too_large"
    assert read_tiff(data, HEIGHT * WIDTH).shape == (HEIGHT, WIDTH)


def test_blocks_that_share_their_bytes_are_refused() -> None:
    rows, body = 2000, bytes(200_000)
    shared = {256: [9], 257: [rows], 258: [8], 262: [1], 273: [8] * rows, 278: [1], 279: [len(body)] * rows}
    tracemalloc.start()
    assert reason(write(body, shared)) == "tiff_layout"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_deflate_bomb_stops_at_the_size_of_its_block() -> None:
    bomb = tiff(np.zeros((1000, 1000), "u2"), compression=DEFLATE, tags={256: 10, 257: 10, 278: 10})
    assert reason(bomb) == "truncated"


def test_old_lzw_is_refused_without_a_word_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(tiff(numbers("u1"), compression=LZW))
    data[8:10] = b"\0\1"
    assert reason(bytes(data)) == "tiff_layout"
    assert capfd.readouterr().err == ""
