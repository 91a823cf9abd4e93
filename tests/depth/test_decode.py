"""What decode_depth reads exactly, what it masks, and what it refuses and why."""

import math
import struct
import zlib

import numpy as np
import pytest

from depth import DepthError
from depth.decode import MAX_PIXELS
from tests.depth.files import chunk, decode_depth, npy, npy_with_header, png16, raw_png

ROOM_MM = np.arange(1, 1 + 12 * 16, dtype=np.uint16).reshape(12, 16) * 300


def reason(data: bytes, **options: float) -> str:
    with pytest.raises(DepthError) as error:
        decode_depth(data, **options)  # type: ignore[arg-type]
    return error.value.reason


def test_sixteen_bit_png_is_millimetres_and_keeps_all_sixteen_bits() -> None:
    depth = decode_depth(png16(ROOM_MM))
    assert (depth.kind, depth.unit, depth.shape) == ("metric", "m", (12, 16))
    assert depth.values.dtype == np.float32
    np.testing.assert_array_equal(depth.values, (ROOM_MM / 1000).astype(np.float32))
    assert depth.valid.all()


def test_scale_is_units_per_metre() -> None:
    np.testing.assert_allclose(decode_depth(png16(ROOM_MM), scale=5000).values, ROOM_MM / 5000, rtol=1e-6)
    np.testing.assert_allclose(
        decode_depth(npy(ROOM_MM.astype("f4")), scale=1000).values, ROOM_MM / 1000, rtol=1e-6
    )


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_impossible_scale_is_refused(scale: float) -> None:
    assert reason(png16(ROOM_MM), scale=scale) == "scale"


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_every_float_and_order_reads_the_same(dtype: str, order: str) -> None:
    metres = np.asarray((ROOM_MM // 300) / 16, dtype=dtype, order=order)  # type: ignore[call-overload]
    depth = decode_depth(npy(metres))
    np.testing.assert_array_equal(depth.values, metres.astype(np.float32))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_versions(version: tuple[int, int]) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n"
    assert decode_depth(npy_with_header(header, struct.pack("<ff", 1, 2), version)).values.tolist() == [
        [1, 2]
    ]


def test_invalid_values_are_masked() -> None:
    metres = np.array([[0, -1, np.nan, np.inf, -np.inf, 1e9, 1e10, 1e300, 1e-300, -0.0, 2.5, 3.5]])
    depth = decode_depth(npy(metres))
    assert depth.valid.tolist() == [[False] * 10 + [True, True]]
    assert depth.values.tolist() == [[0] * 10 + [2.5, 3.5]]
    assert depth.valid_ratio == pytest.approx(1 / 6)


def test_named_holes_are_compared_in_the_type_of_the_file() -> None:
    millimetres = np.array([[65535, 4000, 1234, 777]], dtype="u2")
    depth = decode_depth(png16(millimetres), invalid=(65535, 777, 0.5, -1, 1e12, math.nan))
    assert depth.valid.tolist() == [[False, True, True, False]]
    metres = np.array([[0.1, 2.5, 3.5]], dtype="f4")
    assert decode_depth(npy(metres), invalid=(0.1,)).valid.tolist() == [[False, True, True]]


def test_zero_is_a_hole_in_metric_depth_only() -> None:
    values = np.array([[0, 1, 2]], dtype="f4")
    assert decode_depth(npy(values)).valid.tolist() == [[False, True, True]]
    for kind in ("inverse", "relative"):
        assert decode_depth(npy(values), kind=kind).valid.all()
        assert decode_depth(npy(values), kind=kind, invalid=(0,)).valid.tolist() == [[False, True, True]]


@pytest.mark.parametrize("values", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.full((4, 4), 1e10)])
def test_nothing_valid_is_refused(values: np.ndarray) -> None:
    assert reason(npy(values)) == "all_invalid"
    assert reason(png16(np.zeros((4, 4)))) == "all_invalid"


@pytest.mark.parametrize("metres", [1.0, 0.3, 7.25])
def test_depth_without_depth_is_refused(metres: float) -> None:
    values = np.full((4, 5), metres, "f4")
    assert reason(npy(values)) == "constant"
    values[0] = 0
    assert reason(npy(values)) == "constant"


@pytest.mark.parametrize("data", [b"", b"x", b"\x89PNG", b"GIF89a", b"RIFF1234WEBP", b"%!PS", b"DUF"])
def test_other_files_are_refused(data: bytes) -> None:
    assert reason(data) == "format"


@pytest.mark.parametrize("cut", [1, 12, 20, 60])
def test_cut_png_is_refused(cut: int) -> None:
    assert reason(png16(ROOM_MM)[:-cut]) == "truncated"


def test_png_with_missing_rows_is_refused_although_pillow_would_pad_it() -> None:
    row = b"\x00" + bytes(range(1, 17))
    assert reason(raw_png(8, 8, row * 3)) == "truncated"
    assert decode_depth(raw_png(8, 8, row * 8)).shape == (8, 8)


def test_png_with_more_rows_or_a_damaged_stream_is_refused() -> None:
    row = b"\x00" + bytes(range(1, 17))
    good = raw_png(8, 8, row * 8)
    flipped = bytearray(good)
    flipped[50] ^= 1
    assert reason(raw_png(8, 8, row * 9)) == "truncated"
    assert reason(bytes(flipped)) == "truncated"


def test_a_pixel_stream_with_a_wrong_sum_is_refused() -> None:
    stream = zlib.compress(b"\x00" + bytes(range(1, 17)))
    for end, expected in ((stream[-1:], None), (bytes([stream[-1] ^ 1]), "truncated")):
        data = png16(np.zeros((1, 8)))[:33] + chunk(b"IDAT", stream[:-1] + end) + chunk(b"IEND", b"")
        if expected is None:
            assert decode_depth(data).shape == (1, 8)
        else:
            assert reason(data) == expected


def test_animated_png_is_refused() -> None:
    announce = chunk(b"acTL", struct.pack(">II", 2, 0))
    assert reason(raw_png(1, 1, b"\x00\x01\x00", extra=announce)) == "multi_page"


def test_flood_of_chunks_is_refused() -> None:
    assert reason(raw_png(1, 1, b"\x00\x01\x00", extra=chunk(b"tEXt", b"a") * 20_000)) == "truncated"


def test_size_is_refused_from_the_header() -> None:
    assert reason(raw_png(65_535, 65_535, b"")) == "too_large"
    huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904), }"
    assert reason(npy_with_header(huge)) == "too_large"
    assert reason(npy(np.ones((2, MAX_PIXELS // 2 + 1), dtype="f2"))) == "too_large"


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1), }",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 2, 1, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, True), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1.0, 1), }",
        "{'descr': '<f4', 'shape': (1, 1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), 'more': 1}",
        "[]",
        "",
        "{[]: 1}",
        "__import__('os').system('true')",
        "-" * 2000,
        "(" * 2000,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }" + " " * 3000,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, \xe9), }",
    ],
)
def test_npy_headers_that_are_refused(header: str) -> None:
    assert reason(npy_with_header(header, bytes(4))) == "npy_header"


@pytest.mark.parametrize("descr", ["|O", "|V0", "<M8[ns]", "<u8", "|b1", "<c8", "<U4", "|i1"])
def test_npy_types_that_are_refused(descr: str) -> None:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (1, 1), }}"
    assert reason(npy_with_header(header, bytes(8))) == "dtype"


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4", ">i4"])
def test_npy_integers_are_millimetres(dtype: str) -> None:
    np.testing.assert_array_equal(
        decode_depth(npy(ROOM_MM.astype(dtype))).values, decode_depth(png16(ROOM_MM)).values
    )


def test_one_more_axis_of_one_channel_is_left_out() -> None:
    metres = (ROOM_MM / 1000).astype("f4")
    for array in (metres[..., None], metres[None], np.asfortranarray(metres[..., None])):
        np.testing.assert_array_equal(decode_depth(npy(array)).values, metres)


def test_npy_body_must_match_its_header() -> None:
    good = npy(np.ones((3, 3), dtype="f4"))
    assert reason(good[:-1]) == "truncated"
    assert reason(good + b"\x00") == "truncated"
    assert reason(good[:20]) == "npy_header"
    assert reason(b"\x93NUMPY\x02\x00\xff\xff\xff\xff") == "npy_header"
    assert reason(b"\x93NUMPY\x09\x00\x00\x00") == "npy_header"


def test_a_second_header_inside_a_png_is_refused() -> None:
    row = b"\x00" + bytes(range(1, 17))
    again = chunk(b"IHDR", struct.pack(">IIBBBBB", 4000, 4000, 16, 0, 0, 0, 0))
    assert reason(raw_png(8, 8, row * 8, extra=again)) == "truncated"


def test_texts_and_profiles_of_a_png_reach_no_decoder() -> None:
    row = b"\x00" + bytes(range(1, 17))
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 80
    assert decode_depth(raw_png(8, 8, row * 8, extra=bomb)).shape == (8, 8)
