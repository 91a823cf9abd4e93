"""Doubts about files that are accepted, what 0 means in 8 bits, and clipped files, which are refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from depth import NOTES, DepthError, depth_codes, masked_depth, read_depth
from depth.formats.jpeg import SIGNATURE
from depth.planes import plane_bend
from tests.depth.cases import case
from tests.depth.files import jpeg, npy, png8, png16
from tests.depth.test_canonical import room

FRAMES = sorted((Path(__file__).parents[2] / "examples" / "frames").glob("*/depth.png"))
METRES = room(0, (240, 320))
GRID = (27, 27)


def notes(data: bytes, **options: Any) -> list[str]:
    return [note.code for note in read_depth(data, **options)[1].notes]


def reason(data: bytes, **options: Any) -> str:
    with pytest.raises(DepthError) as error:
        read_depth(data, **options)
    return error.value.reason


def correlation(data: bytes, metres: NDArray[Any], **options: Any) -> float:
    """Compare the codes of a file with those of the metres it was made from, 0 for holes."""
    truth = depth_codes(masked_depth(metres, "metric", 1.0), GRID, 27).numpy().ravel()
    codes = depth_codes(read_depth(data, **options)[0], GRID, 27).numpy().ravel()
    return float(np.corrcoef(truth, codes)[0, 1])


def with_holes(metres: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """Make holes as sensors have them: a band, a rectangle, shadows beside things, and specks."""
    rng = np.random.default_rng(seed)
    holed = metres.copy()
    holed[:, :20] = 0
    holed[60:110, 150:200] = 0
    edges = np.abs(np.diff(metres, axis=1, prepend=metres[:, :1])) > 0.3
    holed[edges | np.roll(edges, 3, axis=1) | np.roll(edges, 6, axis=1)] = 0
    holed[rng.random(metres.shape) < 0.03] = 0
    return holed


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.round(values).clip(0, 255).astype(np.uint8)


HOLED = with_holes(METRES)
NEAREST, FARTHEST = METRES.min(), METRES.max()
WITH_HOLES = {
    "share of the farthest": grey(HOLED / FARTHEST * 255),
    "millimetres times 0.03": grey(HOLED * 30),
    "stretched": np.where(HOLED > 0, grey((METRES - NEAREST) / (FARTHEST - NEAREST) * 255), 0),
    "stretched from 1": np.where(HOLED > 0, grey(1 + (METRES - NEAREST) / (FARTHEST - NEAREST) * 254), 0),
    "inverse": np.where(HOLED > 0, grey(1 + 254 * NEAREST / METRES), 0),
}
INVERSE = 1 / METRES
WITHOUT = {
    "stretched": grey((METRES - NEAREST) / (FARTHEST - NEAREST) * 255),
    "inverse, stretched": grey((INVERSE - INVERSE.min()) / (INVERSE.max() - INVERSE.min()) * 255),
    "inverse, its far tenth cut": grey(
        (INVERSE - np.percentile(INVERSE, 10)) / (INVERSE.max() - np.percentile(INVERSE, 10)) * 255
    ),
}


@pytest.mark.parametrize("name", WITH_HOLES)
def test_zeros_that_are_holes_are_holes(name: str) -> None:
    data = png8(WITH_HOLES[name])
    assert "zeros_are_holes" in notes(data)
    assert abs(correlation(data, HOLED)) > (0.99 if name == "inverse" else 0.8)
    assert not read_depth(data)[0].valid[:, :20].any()


def test_as_the_nearest_thing_they_would_be_worth_nothing() -> None:
    data = png8(WITH_HOLES["millimetres times 0.03"])
    assert abs(correlation(data, HOLED, invalid=(-1,))) < 0.7 < abs(correlation(data, HOLED))


@pytest.mark.parametrize("name", WITHOUT)
def test_zeros_that_are_an_end_of_the_order_are_depth(name: str) -> None:
    data = png8(WITHOUT[name])
    assert "zeros_are_depth" in notes(data)
    assert read_depth(data)[0].valid.all()


@pytest.mark.parametrize("path", FRAMES, ids=lambda path: path.parent.name)
def test_bundled_frames_as_pictures_have_no_holes(path: Path) -> None:
    metres = np.asarray(Image.open(path)) / 1000
    for values in (1 / metres, metres):
        low, high = np.percentile(values, (2, 98))
        depth, report = read_depth(png8(grey((values - low) / (high - low) * 255)))
        assert depth.valid.all() and "zeros_are_holes" not in [note.code for note in report.notes]


def test_a_sky_is_far_and_no_hole() -> None:
    """Inverse depth with a sky of 0 behind a skyline that is near in places."""
    values = grey(NEAREST / METRES * 255)
    skyline = 40 + (30 * np.sin(np.arange(320) / 20)).astype(int)
    values[np.arange(240)[:, None] < skyline] = 0
    assert "zeros_are_depth" in notes(png8(values))
    values[np.arange(240)[:, None] < np.full(320, 40)] = 0
    band = grey(METRES * 30)
    band[:40] = 0  # a straight band is the border of a sensor
    assert "zeros_are_holes" in notes(png8(band))


def test_who_names_the_holes_decides() -> None:
    data = png8(WITH_HOLES["share of the farthest"])
    for invalid, valid in (((0,), False), ((-1,), True), ((), True)):
        depth, report = read_depth(data, invalid=invalid)
        assert depth.valid[0, 0] == valid
        assert not {"zeros_are_holes", "zeros_are_depth"} & {note.code for note in report.notes}
    assert "zeros_are_holes" in notes(data, kind="relative") and "zeros_are_holes" in notes(
        data, kind="inverse"
    )
    assert "zeros_are_holes" not in notes(data, scale=30)  # metric: 0 is a hole anyway


def test_a_jpeg_smears_holes_and_they_are_found_all_the_same() -> None:
    data = jpeg(WITH_HOLES["millimetres times 0.03"], quality=90)
    assert {"lossy", "zeros_are_holes"} <= set(notes(data))
    assert abs(correlation(data, HOLED)) > 0.8


@pytest.mark.parametrize("quality", [75, 90])
def test_zeros_of_a_jpeg_are_told_apart_as_well(quality: int) -> None:
    for pictures, expected in ((WITH_HOLES, "zeros_are_holes"), (WITHOUT, "zeros_are_depth")):
        for name, values in pictures.items():
            assert expected in notes(jpeg(values, quality=quality)), name


def on_a_table(seed: int = 0) -> NDArray[Any]:
    """Return near boxes on a table that fills the view, each with the narrow shadow of a sensor beside it."""
    rng = np.random.default_rng(seed)
    metres = np.linspace(1.3, 1.0, 240)[:, None] + np.zeros(320)
    for row, column in zip(rng.integers(0, 200, 9), np.arange(10, 300, 33), strict=True):
        metres[row : row + 36, column : column + 20] = metres[row + 35, column] - rng.uniform(0.1, 0.25)
        metres[row : row + 36, column + 20 : column + 26] = 0
    return metres


@pytest.mark.parametrize("quality", [None, 75, 90])
def test_shadows_beside_near_things_are_holes(quality: int | None) -> None:
    """Nearly all values lie behind what is beside the shadows, so that its rank says little."""
    for seed in range(3):
        metres = on_a_table(seed)
        values = grey(metres / metres.max() * 255)
        data = png8(values) if quality is None else jpeg(values, quality=quality)
        assert "zeros_are_holes" in notes(data)
        assert abs(correlation(data, metres)) > 0.9


def test_the_case_with_scaled_millimetres() -> None:
    data = case("c07_scaleabs.png")
    depth, report = read_depth(data)
    assert "zeros_are_holes" in [note.code for note in report.notes]
    assert not depth.valid[100:180, 60:130].any() and 0.9 < depth.valid_ratio < 0.95
    millimetres = read_depth(case("c01_compressedDepth_16UC1.bin"))[0]
    assert abs(correlation(data, millimetres.values)) > 0.85


def picture_of(data: bytes, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("L").save(buffer, "JPEG", quality=quality)
    assert buffer.getvalue().startswith(SIGNATURE)
    return buffer.getvalue()


def test_clipped_millimetres_are_refused_also_with_holes_and_as_jpeg() -> None:
    data = case("c06_saturated8.png")
    assert reason(data) == reason(png8(grey(HOLED * 1000))) == "saturated"
    assert {reason(picture_of(data, quality)) for quality in (30, 75, 95)} == {"saturated"}
    assert reason(data, scale=1000) == reason(data, kind="inverse") == "saturated"
    near = HOLED.copy()
    near[100:140, 100:180] = 0.2  # a hand before the camera
    assert reason(png8(grey(near * 1000))) == "saturated"


def test_a_mask_is_no_depth() -> None:
    assert reason(png8(np.where(METRES > 2, 255, 0))) == "saturated"


def test_half_clipped_depth_is_doubted_and_taken() -> None:
    data = png8(grey(METRES / np.median(METRES) * 255))
    assert "saturated" in notes(data)
    assert "saturated" not in notes(png8(grey(METRES / FARTHEST * 250)))


def test_few_values_are_doubted() -> None:
    assert "few_values" in notes(case("c40_metres_to_png.png"))
    assert "few_values" in notes(npy(np.round(METRES)))
    assert "few_values" not in notes(npy(np.round(METRES, 1)))


def test_normalised_inverse_depth_of_sixteen_bits_is_doubted() -> None:
    stretched = (INVERSE - INVERSE.min()) / (INVERSE.max() - INVERSE.min())
    codes = notes(png16(np.round(stretched * 65_535)))
    assert {"maybe_normalised", "maybe_inverse"} <= set(codes)
    assert "maybe_normalised" in notes(npy(stretched.astype("f4")))


def test_65535_is_told_apart_by_what_lies_below_it() -> None:
    millimetres = np.round(METRES * 1000)
    assert "maybe_holes_65535" in notes(case("c10_7scenes.png"))
    assert "maybe_holes_65535" in notes(case("c10_7scenes.png"), scale=1000)
    assert "maybe_holes_65535" not in notes(case("c10_7scenes.png"), preset="7scenes")
    assert "maybe_holes_65535" not in notes(case("c10_7scenes.png"), invalid=(65_535,))
    clipped = (millimetres * (80_000 / millimetres.max())).clip(0, 65_535)
    assert "saturated" in notes(png16(clipped))
    assert not {"saturated", "maybe_holes_65535"} & set(notes(png16(millimetres)))


def test_a_stripped_message_of_ros_falls_with_distance() -> None:
    assert "maybe_inverse" in notes(case("c02_stripped.png"))
    assert "maybe_inverse" in notes(case("c02_stripped.png"), scale=1000)
    assert "maybe_inverse" not in notes(case("c02_stripped.png"), kind="inverse")
    assert "maybe_inverse" not in notes(case("c02_compressedDepth_32FC1.bin"))


@pytest.mark.parametrize("path", FRAMES, ids=lambda path: path.parent.name)
def test_planes_are_straight_in_inverse_depth_and_bend_in_metres(path: Path) -> None:
    metres = masked_depth(np.asarray(Image.open(path)), "metric", 1000)
    inverse = masked_depth(1 / metres.values, "metric", 1)
    assert plane_bend(metres)[0] > 0.8 and plane_bend(inverse)[0] < 0.1
    assert notes(path.read_bytes()) == []


def test_a_z_buffer_is_doubted() -> None:
    assert "maybe_zbuffer" in notes(case("c17_zbuffer.npy"))
    near, far = 0.1, 100.0
    buffer = far / (far - near) * (1 - near / METRES)
    assert "maybe_zbuffer" in notes(npy(buffer.astype("f4")))


def test_centimetres_are_called_by_their_name() -> None:
    assert reason(case("c08_unreal_cm.npy")) == "looks_like_centimetres"
    with pytest.raises(DepthError, match="depth_scale=100"):
        read_depth(case("c08_unreal_cm.npy"))
    assert read_depth(case("c08_unreal_cm.npy"), scale=100)[0].unit == "m"


def test_good_files_raise_no_doubt() -> None:
    for name in ("c01_compressedDepth_16UC1.bin", "c15_airsim.pfm", "c21_colmap.bin", "c31_int64.npy"):
        assert notes(case(name)) == []
    assert notes(png16(np.round(METRES * 1000))) == notes(npy(METRES)) == []


def test_every_note_has_a_sentence() -> None:
    assert all(sentence.endswith(".") and code.replace("_", "").isalnum() for code, sentence in NOTES.items())


def test_the_range_is_in_the_numbers_of_the_file() -> None:
    near_is_bright, near_is_dark = grey(40 + 200 * NEAREST / METRES), grey(METRES / FARTHEST * 200)
    for values in (near_is_bright, near_is_dark):
        report = read_depth(png8(values))[1]
        ends = (report.nearest, report.farthest)
        assert set(ends) == {values.min(), values.max()}
        assert report.median == np.median(values)
    assert read_depth(png8(near_is_bright))[1].nearest == near_is_bright.max()
    assert read_depth(png8(near_is_dark))[1].nearest == near_is_dark.min()
