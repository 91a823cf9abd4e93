"""Every format that is read: its own software's files give the truth, and lies in headers are refused."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth import DepthError, read_depth
from depth.formats import npz
from depth.formats.containers import CONTAINERS, RAW, readable
from depth.formats.unread import UNREAD
from tests.depth import writers
from tests.depth.cases import case
from tests.depth.files import inspect_depth, npy, png8, png16
from tests.depth.proofs import PROOFS
from tests.depth.tiffs import tiff

ROOM = Path(__file__).parents[2] / "examples" / "frames" / "room-1" / "depth.png"
ROWS, COLUMNS = np.mgrid[:24, :32]
MM = np.round(1000 + 1500 * (1 + np.sin(COLUMNS / 6)) + 2000 * ROWS / 24).astype(np.uint16)
MM[3:6, 4:9] = 0
METRES = (MM / 1000).astype(np.float32)


def read(data: bytes, **options: Any) -> np.ndarray:
    return read_depth(data, **options)[0].values


def reason(data: bytes, **options: Any) -> str:
    return refusal(data, **options).reason


def refusal(data: bytes, **options: Any) -> DepthError:
    with pytest.raises(DepthError) as error:
        read_depth(data, **options)
    return error.value


def room_m(size: int = 384) -> np.ndarray:
    """Metres of the room, or a regular part of its pixels; the cases have holes besides."""
    metres = np.asarray(Image.open(ROOM)).astype(np.float64) / 1000
    rows = np.arange(size) * 384 // size
    return metres[np.ix_(rows, rows)]


CASES: list[tuple[str, dict[str, Any], str, float]] = [
    ("c01_compressedDepth_16UC1.bin", {}, "compressedDepth", 1e-6),
    ("c02_compressedDepth_32FC1.bin", {}, "compressedDepth", 0.005),
    ("c13_carla.png", {"preset": "carla"}, "png", 1e-4),
    ("c15_airsim.pfm", {}, "pfm", 1e-6),
    ("c15_airsim.pfm", {"preset": "airsim"}, "pfm", 1e-6),
    ("c16_blender_V.exr", {}, "exr", 1e-6),
    ("c21_colmap.bin", {}, "colmap", 1e-6),
    ("c25_tum.pgm", {"preset": "tum"}, "pgm", 1e-3),
    ("c29_habitat.npz", {}, "npz", 1e-6),
    ("c31_int64.npy", {}, "npy", 1e-6),
    ("c32_4d.npy", {}, "npy", 1e-6),
]


@pytest.mark.parametrize(("name", "options", "container", "error"), CASES, ids=lambda value: str(value)[:24])
def test_files_of_others_hold_the_room(
    name: str, options: dict[str, Any], container: str, error: float
) -> None:
    depth, report = read_depth(case(name), **options)
    is_read = depth.valid & (depth.values < 999)  # CARLA's far plane is at 1000 m
    assert report.format == container
    assert 0.85 < is_read.mean() < 1, "the band and the rectangle are holes"
    if depth.shape != (256, 256):  # whose pixels lie between those of the room
        truth = room_m(depth.shape[0])
        np.testing.assert_allclose(depth.values[is_read], truth[is_read], rtol=error, atol=error)


WRITTEN: list[tuple[str, bytes, dict[str, Any], float]] = [
    ("npz", writers.npz(depth=METRES), {}, 0),
    ("npz of two", writers.npz(depth=METRES, rgb=np.zeros((2, 2, 3))), {"key": "depth"}, 0),
    ("npz packed", writers.npz(compressed=True, d=MM), {}, 1e-6),
    ("pfm", writers.pfm(METRES), {}, 0),
    ("pfm big-endian", writers.pfm(METRES, ">"), {}, 0),
    ("pgm", writers.pgm(MM), {}, 1e-6),
    ("pgm with a comment", writers.pgm(MM, comment="# by a scanner\n"), {}, 1e-6),
    ("colmap", writers.colmap(METRES), {}, 0),
    ("16UC1", writers.compressed_depth(MM), {}, 1e-6),
    ("16UC1, rest unset", writers.compressed_depth(MM, unset=b"\x40\x11\xfe\x7f\0\0\0\0"), {}, 1e-6),
    ("16UC1, rest NaN", writers.compressed_depth(MM, unset=b"\xff" * 8), {}, 1e-6),
    ("32FC1", writers.compressed_depth_32fc1(METRES), {}, 0.01),
    ("carla", writers.carla(METRES), {"preset": "carla"}, 1e-4),
    ("spatialbot", writers.spatialbot(MM), {"preset": "spatialbot"}, 1e-6),
    ("tartanair", writers.tartanair(METRES), {"preset": "tartanair"}, 0),
    ("sunrgbd", png16(MM << 3 | MM >> 13), {"preset": "sunrgbd"}, 1e-6),
    ("raw uint16", MM.astype("<u2").tobytes(), {"shape": "32x24"}, 1e-6),
    ("raw float32", METRES.astype("<f4").tobytes(), {"shape": "32x24", "preset": "record3d"}, 0),
    ("raw float64", METRES.astype("<f8").tobytes(), {"shape": "32X24"}, 0),
    *((f"npy {kind}", npy(MM.astype(kind)), {}, 1e-6) for kind in ("<i8", ">i8", "<u4", ">u4", "<i2", ">i2")),
    *(
        (f"npy {shape}", npy(METRES.reshape(shape)), {}, 0)
        for shape in ((1, 24, 32), (24, 32, 1), (1, 1, 24, 32), (1, 24, 32, 1), (24, 1, 32))
    ),
    *(
        (f"exr {kind}", writers.exr(V=METRES, compression=kind), {}, 0)
        for kind in ("none", "rle", "zip", "piz")
    ),
    ("exr half", writers.exr(Z=METRES.astype("f2")), {}, 1e-3),
    ("exr layer", writers.exr(**{"View Layer__Depth__Z": METRES, "View Layer__R": METRES}), {}, 0),
    ("exr key", writers.exr(Y=METRES, R=METRES * 2), {"key": "Y"}, 0),
    ("exr grey", writers.exr(Y=METRES), {}, 0),
]


@pytest.mark.parametrize(
    ("data", "options", "error"), [one[1:] for one in WRITTEN], ids=[one[0] for one in WRITTEN]
)
def test_what_was_written_is_read(data: bytes, options: dict[str, Any], error: float) -> None:
    np.testing.assert_allclose(read(data, **options), METRES, rtol=error, atol=error)


def test_a_share_of_an_unknown_far_plane_is_relative_depth() -> None:
    depth, report = read_depth(writers.float_rgba(METRES / 8), preset="float-rgba")
    assert (depth.kind, depth.unit, report.scale) == ("relative", None, None)
    np.testing.assert_allclose(depth.values, METRES / 8, atol=1e-6)


def test_airsim_vis_is_a_hundredth_of_a_hundred_metres() -> None:
    values = np.array([[255, 51, 102]], np.uint8)
    depth, report = read_depth(png8(values), preset="airsim-vis")
    assert depth.valid.tolist() == [[False, True, True]] and report.unit == "m"
    np.testing.assert_allclose(depth.values[0, 1:], [20, 40])


@pytest.mark.parametrize("name", ["hdf5", "mat", "lzfse", "rvl"])
def test_formats_that_are_not_read_are_named_with_what_to_do(name: str) -> None:
    data = {
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(40),
        "mat": b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(140),
        "lzfse": b"bvx2" + bytes(40),
        "rvl": struct.pack("<iffii", 0, 0, 0, 640, 480) + b"\x17" * 40,
    }[name]
    error = refusal(data)
    said = {"hdf5": "HDF5", "mat": "MATLAB", "lzfse": "LZFSE", "rvl": "RVL"}[name]
    assert (error.reason == name and said in str(error) and "send" in str(error)) or "save" in str(error)


def test_raw_numbers_need_their_shape() -> None:
    data = MM.astype("<u2").tobytes()
    assert "depth_shape" in str(refusal(data[640:]))
    assert inspect_depth(data, shape="32x24").assumptions[0].field == "dtype"
    assert reason(data, shape="32x23") == "raw_size"
    assert reason(data[:-1], shape="32x24") == "raw_size"
    assert reason(b"", shape="32x24") == "raw_size"
    assert reason(data, shape="32x24", max_pixels=767) == "too_large"
    for wrong in ("32", "32x", "0x4", "-1x4", "axb", "1e3x4", "32x24x1", "9999999x1", "٣x٤", ""):
        assert refusal(data, shape=wrong).field == "depth_shape"


@pytest.mark.parametrize("data", [png16(MM), npy(METRES), tiff(MM), writers.npz(d=METRES)])
def test_a_file_with_a_header_has_its_own_shape(data: bytes) -> None:
    assert reason(data, shape="32x24") == "shape_of_file"


@pytest.mark.parametrize("data", [png16(MM), npy(METRES), writers.pfm(METRES), writers.colmap(METRES)])
def test_a_key_is_for_files_with_names(data: bytes) -> None:
    assert reason(data, key="depth") == "key_of_one"


def test_an_npz_of_several_arrays_asks_for_the_key_and_names_them() -> None:
    data = writers.npz(depth=METRES, rgb=np.zeros((2, 2, 3)), **{"not plain": METRES})
    assert (refusal(data).reason, refusal(data).choices) == ("npz_keys", ("depth", "rgb"))
    assert (refusal(data, key="z").reason, refusal(data, key="z").choices) == ("npz_key", ("depth", "rgb"))
    assert reason(data, key="rgb") == "npy_header"


def archive(*members: tuple[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def test_archives_that_are_no_npz_are_refused() -> None:
    assert reason(archive(("scene.xml", b"<a/>"))) == "npz_layout"
    assert reason(archive()) == "npz_layout"
    many = archive(*((f"{index}.npy", b"") for index in range(npz.MAX_KEYS + 1)))
    assert reason(many, key="0") == "npz_layout"
    assert reason(archive(("d.npy", npy(METRES)), compression=zipfile.ZIP_LZMA)) == "npz_layout"
    assert reason(writers.npz(d=METRES)[:-30]) == "truncated"
    assert reason(b"PK\x03\x04" + bytes(100)) == "truncated"
    assert reason(archive(("d.npy", npy(METRES)[:-4]))) == "truncated"
    assert reason(archive(("d.npy", npy(METRES) + b"x"))) == "truncated"
    assert reason(archive(("d.npy", npy(np.array([[None]], object))))) == "dtype"


def test_a_bomb_in_an_archive_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 MiB of zeros behind the header of a small array, and behind one that promises too many pixels."""
    taken: list[int] = []
    read_some = zipfile.ZipExtFile.read

    def spy(file: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        part = read_some(file, n)
        taken.append(len(part))
        return part

    monkeypatch.setattr(zipfile.ZipExtFile, "read", spy)
    bomb = archive(("d.npy", npy(METRES) + bytes(40 << 20)), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 17
    assert reason(bomb) == "truncated" and sum(taken) < 1 << 14
    taken.clear()
    wide = archive(("d.npy", npy(np.zeros((2000, 5000), "f4"))), compression=zipfile.ZIP_DEFLATED)
    assert reason(wide, max_pixels=1 << 20) == "too_large" and sum(taken) < 1 << 14


LIES: list[tuple[str, bytes, str]] = [
    ("pfm of colours", b"PF" + writers.pfm(METRES)[2:], "channels"),
    ("pfm without a size", b"Pf\n32\n", "pfm_header"),
    ("pfm of no pixels", b"Pf\n0 4\n-1\n", "pfm_header"),
    ("pfm too large", b"Pf\n99999 99999\n-1\n" + bytes(64), "too_large"),
    ("pfm cut", writers.pfm(METRES)[:-1], "truncated"),
    ("pfm with more", writers.pfm(METRES) + b"\0", "truncated"),
    ("pgm as text", b"P2\n2 1\n255\n3 4\n", "pgm_plain"),
    ("pgm without a size", b"P5\n32\n", "pgm_header"),
    ("pgm of no pixels", b"P5 0 4 255\n", "pgm_header"),
    ("pgm of 17 bits", b"P5 1 1 65536\n\0\0\0", "pgm_header"),
    ("pgm with a long comment", b"P5\n#" + b"x" * 2000 + b"\n2 1 255\nab", "pgm_header"),
    ("pgm too large", b"P5 99999 99999 255\n", "too_large"),
    ("pgm cut", writers.pgm(MM)[:-1], "truncated"),
    ("colmap of normals", b"4&4&3&" + bytes(192), "channels"),
    ("colmap of no pixels", b"0&4&1&", "truncated"),
    ("colmap too large", b"99999&99999&1&", "too_large"),
    ("colmap cut", writers.colmap(METRES)[:-1], "truncated"),
    ("ros of 8 bits", bytes(12) + png8(MM >> 8), "dtype"),
    ("ros cut", writers.compressed_depth(MM)[:-20], "truncated"),
]


@pytest.mark.parametrize(("data", "expected"), [one[1:] for one in LIES], ids=[one[0] for one in LIES])
def test_headers_that_lie_are_refused(data: bytes, expected: str) -> None:
    assert reason(data) == expected


@pytest.mark.parametrize(
    ("data", "preset", "expected"),
    [
        (png16(MM), "carla", "packed_container"),
        (png8(MM >> 8), "carla", "packed_container"),
        (writers.carla(METRES), "tartanair", "packed_container"),
        (npy(METRES), "carla", "packed_container"),
        (writers.carla(METRES)[:-30], "carla", "truncated"),
        (npy(METRES), "sunrgbd", "preset_sixteen_bit"),
        (png8(MM >> 8), "sunrgbd", "preset_sixteen_bit"),
    ],
)
def test_presets_that_unpack_take_their_own_files_only(data: bytes, preset: str, expected: str) -> None:
    assert reason(data, preset=preset) == expected


def test_packed_depth_is_noticed_and_told_from_pictures() -> None:
    room = room_m()
    assert refusal(case("c13_carla.png")).choices == ("carla",)
    assert refusal(writers.carla(room)).choices == ("carla",)
    assert "spatialbot" in (refusal(writers.spatialbot(room * 1000)).choices or ())
    assert "tartanair" in (refusal(writers.tartanair(room)).choices or ())
    assert "depth_preset" in str(refusal(case("c13_carla.png"))) and "carla" in str(
        refusal(case("c13_carla.png"))
    )
    photo = np.asarray(Image.open(ROOM.with_name("rgb.png")))
    share = (room / room.max())[..., None]
    jet = np.clip(1.5 - np.abs(4 * share - np.array([3, 2, 1])), 0, 1) * 255
    for picture in (photo, jet):
        assert reason(png8(picture)) == "colour_mapped"


def test_exr_says_which_channels_there_are() -> None:
    both = writers.exr(R=METRES, G=METRES * 2, B=METRES * 3)
    assert (refusal(both).reason, refusal(both).choices) == ("exr_channel", ("B", "G", "R"))
    assert refusal(both, key="Z").reason == "exr_channel"
    assert "V from Blender" in str(refusal(both))


def test_exr_background_is_a_hole() -> None:
    far = METRES.copy()
    far[:, :4] = 1e10
    np.testing.assert_array_equal(read_depth(writers.exr(Z=far))[0].valid[:, :4], False)


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (b"version", struct.pack("<I", 2 | 0x1000), "exr_layout"),
        (b"version", struct.pack("<I", 2 | 0x800), "exr_layout"),
        (b"version", struct.pack("<I", 3), "exr_layout"),
        (b"dataWindow", struct.pack("<4i", 0, 0, 99_999, 99_999), "too_large"),
        (b"displayWindow", struct.pack("<4i", 0, 0, 99_999, 99_999), "too_large"),
        (b"dataWindow", struct.pack("<4i", 5, 5, 0, 0), "truncated"),
    ],
)
def test_exr_headers_that_are_refused_before_the_library_sees_them(
    at: bytes, value: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(writers.exr(V=METRES))
    start = 4 if at == b"version" else data.index(at) + len(at) + 1 + len(b"box2i") + 1 + 4
    data[start : start + len(value)] = value
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    assert reason(bytes(data)) == expected


@pytest.mark.parametrize("compression", ["none", "rle", "zip", "piz"])
def test_a_cut_exr_is_refused(compression: str) -> None:
    whole = writers.exr(V=METRES, compression=compression)
    for length in range(20, len(whole) - 1, 37):
        assert reason(whole[:length]) == "truncated", length


def test_without_its_extra_exr_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = writers.exr(V=METRES)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    error = refusal(whole)
    assert error.code == "depth_exr" and "tosa-vqa[exr]" in str(error) and "V from Blender" in str(error)


def test_a_data_window_inside_the_display_window_is_put_in_its_place() -> None:
    from depth.formats.exr import ExrHeader, _on_display

    pixels = np.arange(6, dtype=np.float32).reshape(2, 3)
    shown = _on_display(pixels, ExrHeader({}, (1, 1, 3, 2), (0, 0, 3, 3)))
    assert shown.shape == (4, 4) and np.isnan(shown[0]).all() and np.isnan(shown[:, 0]).all()
    np.testing.assert_array_equal(shown[1:3, 1:], pixels)
    shown = _on_display(pixels, ExrHeader({}, (-1, -1, 1, 0), (0, 0, 3, 3)))
    np.testing.assert_array_equal(shown[0, :2], pixels[1, 1:])
    assert np.isnan(shown[1:]).all()


def test_the_table_of_formats_is_whole() -> None:
    names = [one.name for one in CONTAINERS]
    assert len(set(names)) == len(names)
    assert all((one.read is None) != (one.read_key is None) and one.about for one in CONTAINERS)
    assert "OpenEXR" in readable() and "PFM" in readable()


def test_every_format_has_a_test_that_proves_it() -> None:
    named = {one.name for one in (*CONTAINERS, RAW)} | {reason for reason, _, _ in UNREAD}
    assert set(PROOFS) == named
    for proof in PROOFS.values():
        path, _, test = proof.partition("::")
        assert f"def {test}(" in (ROOM.parents[3] / path).read_text()


def test_exr_is_offered_only_where_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depth.formats.containers.find_spec", lambda name: None)
    assert "OpenEXR" not in readable() and "PFM" in readable()
