"""What the numbers are taken for: presets, words and assumptions; mistakes have a code of their own."""

from typing import Any

import numpy as np
import pytest

from depth import KINDS, PRESETS, Assumption, DepthError, read_depth
from depth.errors import REASONS
from depth.formats.packed import PACKINGS
from depth.notes import note
from tests.depth.files import decode_depth, inspect_depth, npy, png8, png16

ROOM_M = np.linspace(0.5, 8.0, 12 * 16).reshape(12, 16)
UNITS = {
    "scannet": 1000, "tum": 5000, "matterport": 4000, "kitti": 256, "realsense": 1000,
    "realsense:0.001": 1000, "realsense:0.0001": 10_000, "openeqa-hm3d": 6553.5, "nyuv2": 1000,
    "arkitscenes": 1000, "7scenes": 1000, "vkitti": 100,
}  # fmt: skip


def code(data: bytes, **options: Any) -> tuple[str, str, str]:
    with pytest.raises(DepthError) as error:
        decode_depth(data, **options)
    return error.value.code, error.value.reason, error.value.field


def room(units: float) -> bytes:
    return png16(np.round(ROOM_M * units))


@pytest.mark.parametrize(("preset", "units"), UNITS.items())
def test_presets_of_sixteen_bits_give_metres(preset: str, units: float) -> None:
    metres = np.minimum(ROOM_M, 65_000 / units)
    decoded, report = read_depth(png16(np.round(metres * units)), preset=preset)
    np.testing.assert_allclose(decoded.values, metres, atol=0.6 / units)
    assert (report.kind, report.unit, report.scale, report.assumptions) == ("metric", "m", units, ())
    assert report.preset == preset.split(":")[0]


def test_habitat_is_a_share_of_ten_metres() -> None:
    decoded = decode_depth(npy((ROOM_M / 10).astype("f4")[..., None]), preset="habitat")
    np.testing.assert_allclose(decoded.values, ROOM_M, rtol=1e-6)


@pytest.mark.parametrize("preset", [*UNITS])
def test_the_largest_number_is_a_hole_where_the_preset_says(preset: str) -> None:
    values = np.array([[65535, 30_000, 20_000]])
    assert decode_depth(png16(values), preset=preset).valid[0, 0] == (preset not in ("7scenes", "vkitti"))


def test_the_table_is_read_only_and_tested_whole() -> None:
    others = {"habitat", "record3d", "airsim", "airsim-vis", *PACKINGS}  # in test_formats.py
    assert {name.split(":")[0] for name in UNITS} | others == set(PRESETS)
    assert all(row.kind in KINDS and row.source for row in PRESETS.values())
    assert all((row.units_per_metre or 0) > 0 or row.kind == "relative" for row in PRESETS.values())
    assert {row.name for row in PRESETS.values() if row.file == "packed"} == set(PACKINGS)
    with pytest.raises(TypeError):
        PRESETS["mine"] = PRESETS["tum"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"preset": "kinect"}, ("unknown_depth_preset", "preset", "depth_preset")),
        ({"preset": ""}, ("unknown_depth_preset", "preset", "depth_preset")),
        ({"preset": "realsense:"}, ("unknown_depth_preset", "realsense_scale", "depth_preset")),
        ({"preset": "realsense:1000"}, ("unknown_depth_preset", "realsense_scale", "depth_preset")),
        ({"preset": "realsense:nan"}, ("unknown_depth_preset", "realsense_scale", "depth_preset")),
        ({"preset": "tum", "scale": 5000}, ("depth_unit_twice", "unit_twice", "depth_preset")),
        ({"preset": "tum", "kind": "metric"}, ("depth_unit_twice", "unit_twice", "depth_preset")),
        ({"scale": 0}, ("bad_depth_scale", "scale", "depth_scale")),
        ({"scale": float("nan")}, ("bad_depth_scale", "scale", "depth_scale")),
        ({"scale": 1000, "kind": "relative"}, ("bad_depth_scale", "scale_of_relative", "depth_scale")),
        ({"kind": "depth"}, ("bad_depth_kind", "kind", "depth_kind")),
        ({"invalid": (0,) * 17}, ("bad_depth_invalid", "invalid", "depth_invalid")),
        ({"invalid": ("0",)}, ("bad_depth_invalid", "invalid", "depth_invalid")),
        ({"invalid": (True,)}, ("bad_depth_invalid", "invalid", "depth_invalid")),
        ({"invalid": (10**400,)}, ("bad_depth_invalid", "invalid", "depth_invalid")),
    ],
    ids=str,
)
def test_options_that_are_refused(options: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert code(room(1000), **options) == expected


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (npy((ROOM_M * 1000).astype("f4")), {}, "looks_like_millimetres"),
        (npy((ROOM_M * 300).astype("f4")), {}, "looks_like_either"),
        (npy((ROOM_M * 100).astype("f4")), {}, "looks_like_either"),
        (npy((ROOM_M * 50).astype("f4")), {}, "looks_like_centimetres"),
        (npy((ROOM_M * 1000).astype("f4")), {"scale": 1}, "looks_like_millimetres"),
        (png16(ROOM_M), {}, "looks_like_metres"),
        (npy(ROOM_M), {"preset": "scannet"}, "looks_like_metres"),
        (npy(ROOM_M.astype("i4")), {}, "looks_like_metres"),
        (npy(ROOM_M * 1e6), {}, "implausible"),
        (npy(ROOM_M * 1e-5), {}, "implausible"),
        (room(1000), {"preset": "habitat"}, "looks_like_millimetres"),
    ],
)
def test_a_wrong_unit_is_refused_by_the_name_of_the_right_one(
    data: bytes, options: dict[str, Any], expected: str
) -> None:
    assert code(data, **options) == ("depth_implausible", expected, "depth")


def test_the_limits_themselves_are_plausible() -> None:
    assert decode_depth(png16([[9, 10]])).values.max() == np.float32(0.01)
    assert code(png16([[8, 9]]))[1] == "looks_like_metres"
    assert decode_depth(npy(np.array([[100.0, 100.0, 1.0]]))).values.max() == 100
    assert decode_depth(npy(np.array([[1000.0, 1000.0, 1.0]])), scale=1).values.max() == 1000
    assert code(npy(np.array([[1000.1, 1000.1, 1.0]])), scale=1)[1] == "looks_like_either"


def test_who_says_the_unit_may_be_far_away_but_not_anywhere() -> None:
    from_a_drone = npy(ROOM_M * 100)
    assert code(from_a_drone)[1] == "looks_like_either"
    assert decode_depth(from_a_drone, scale=1).unit == "m"
    assert decode_depth(from_a_drone, kind="relative").unit is None


@pytest.mark.parametrize(
    ("data", "guessed", "kind", "scale"),
    [
        (room(1000), ("kind", "scale"), "metric", 1000),
        (npy(ROOM_M), ("kind", "scale"), "metric", 1),
        (png8(ROOM_M * 30), ("kind", "polarity"), "relative", None),
    ],
)
def test_what_nobody_said_is_said_to_be_guessed(
    data: bytes, guessed: tuple[str, ...], kind: str, scale: float | None
) -> None:
    for auto in ({}, {"preset": "auto"}, {"preset": None}):
        report = inspect_depth(data, **auto)  # type: ignore[arg-type]
        assert (report.guessed, report.kind, report.scale) == (guessed, kind, scale)
        assert all(assumption.sentence.endswith(".") for assumption in report.assumptions)
    assert inspect_depth(data, kind="relative").guessed == ()


def test_half_said_is_half_guessed() -> None:
    assert inspect_depth(room(1000), kind="metric").guessed == ("scale",)
    assert inspect_depth(room(1000), scale=1000).guessed == ()
    inverse = inspect_depth(npy(1 / ROOM_M), kind="inverse", scale=1)
    assert (inverse.unit, inverse.nearest, inverse.farthest) == ("1/m", 2.0, 0.125)
    assert inspect_depth(npy(1 / ROOM_M), kind="inverse").unit is None


def test_doubts_are_noted() -> None:
    assert inspect_depth(npy(ROOM_M / 8)).notes == (note("maybe_normalised"),)
    assert inspect_depth(png16([[65535, 2000, 3000]])).notes == (note("maybe_holes_65535"),)
    assert inspect_depth(npy(np.eye(30) * ROOM_M.ravel()[:30])).notes == (note("few_valid"),)
    assert inspect_depth(room(1000)).notes == inspect_depth(npy(ROOM_M)).notes == ()


def test_a_report_says_what_was_understood() -> None:
    report = inspect_depth(room(1000))
    assert (report.height, report.width, report.nearest, report.farthest) == (12, 16, 0.5, 8.0)
    assert report.assumptions[1] == Assumption("scale", "Integers were taken as millimetres.")


def test_every_reason_has_a_code_and_a_sentence() -> None:
    for reason, (its_code, sentence) in REASONS.items():
        error = DepthError(reason, limit=7, choices=("a",))
        assert (error.code, str(error)) == (its_code, sentence.format(limit=error.limit, choices="a"))
        assert "None" not in str(error)
        assert sentence.endswith(".") and len(sentence) < 240
