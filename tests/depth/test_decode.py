"""What decode_depth reads exactly, what it masks, and what it refuses and why."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from depth import DepthError, decode_depth
from depth.decode import MAX_PIXELS
from tests.depth.files import chunk, npy, npy_with_header, png8, png16, raw_png

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
    metres = np.array([[0, -1, np.nan, np.inf, -np.inf, 1e9, 1e10, 1e300, 1e-300, -0.0, 2.5]])
    depth = decode_depth(npy(metres))
    assert depth.valid.tolist() == [[False] * 10 + [True]]
    assert depth.values.tolist() == [[0] * 10 + [2.5]]
    assert depth.valid_ratio == pytest.approx(1 / 11)


@pytest.mark.parametrize("values", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.full((4, 4), 1e10)])
def test_nothing_valid_is_refused(values: np.ndarray) -> None:
    assert reason(npy(values)) == "all_invalid"
    assert reason(png16(np.zeros((4, 4)))) == "all_invalid"


@pytest.mark.parametrize(
    "data",
    [png8(np.ones((4, 4))), png8(np.ones((4, 4, 3))), raw_png(2, 2, bytes(26), colour=2)],
    ids=["grey8", "rgb8", "rgb16"],
)
def test_pictures_of_depth_are_refused_with_what_to_send(data: bytes) -> None:
    assert reason(data) == "eight_bit"
    with pytest.raises(DepthError, match="send 16-bit grey"):
        decode_depth(data)


@pytest.mark.parametrize("data", [b"", b"x", b"\x89PNG", b"\xff\xd8\xff\xe0", b"PK\x03\x04", b"v/1\x01"])
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


def test_animated_png_is_refused() -> None:
    announce = chunk(b"acTL", struct.pack(">II", 2, 0))
    assert reason(raw_png(1, 1, b"\x00\x01\x00", extra=announce)) == "animated"


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
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 1), }",
        "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (1, 1), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1), }",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1), }",
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


def test_npy_body_must_match_its_header() -> None:
    good = npy(np.ones((3, 3), dtype="f4"))
    assert reason(good[:-1]) == "truncated"
    assert reason(good + b"\x00") == "truncated"
    assert reason(good[:20]) == "npy_header"
    assert reason(b"\x93NUMPY\x02\x00\xff\xff\xff\xff") == "npy_header"
    assert reason(b"\x93NUMPY\x09\x00\x00\x00") == "npy_header"


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_any_sixteen_bit_map_survives_exactly(values: np.ndarray) -> None:
    if not values.any():
        assert reason(png16(values)) == "all_invalid"
        return
    depth = decode_depth(png16(values))
    np.testing.assert_array_equal(np.round(depth.values * 1000), values)
    np.testing.assert_array_equal(depth.valid, values > 0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 60), st.booleans())
def test_damaged_files_raise_nothing_but_depth_error(noise: bytes, at: int, is_png: bool) -> None:
    good = png16(ROOM_MM) if is_png else npy(ROOM_MM.astype("f4"))
    damaged = good[:at] + noise + good[at + len(noise) :]
    with contextlib.suppress(DepthError):
        decode_depth(damaged)
