"""Conditions: frozen to the byte on any platform, stronger by strength, and the same for users' own files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evals.rooms import TEST, examples
from evals.rooms.conditions import (
    ALL_CONDITIONS,
    CONDITIONS,
    Condition,
    parse_condition,
    spoil,
    spoiled_split,
)
from evals.rooms.splits import FROZEN, digest
from evals.runners.asking import files_of
from evals.runners.items import DatasetError, Item
from evals.runners.items import digest as digest_of_items
from evals.spoiled_files import spoiled_file
from service.roomqa.depth_cameras import stereo_depth
from service.roomqa.draws import Draws
from service.roomqa.export import write_scene
from service.roomqa.jpeg import compress

FROZEN_BYTES = json.loads((Path(__file__).parent / "data" / "conditions.json").read_text())


def picture(height: int = 120, width: int = 160) -> np.ndarray:
    """Draw a picture from integers alone: gradients, a chequerboard and a bright square."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // width, y * 255 // height, (x // 8 + y // 8) % 2 * 90 + 60], axis=2)
    rgb[20:50, 30:70] = (220, 40, 30)
    return rgb.astype(np.uint8)


def depth(height: int = 120, width: int = 160) -> np.ndarray:
    return np.broadcast_to(np.arange(1, height + 1, dtype=np.float32)[:, None] / 16, (height, width))


def spoiled(condition: Condition, seed: int = 7) -> np.ndarray:
    return spoil(picture(), condition, seed, depth())


def distance(condition: Condition) -> float:
    return float(np.abs(spoiled(condition).astype(int) - picture()).mean())


@pytest.mark.parametrize("condition", ALL_CONDITIONS, ids=lambda one: one.label)
def test_every_condition_is_frozen_to_the_byte(condition: Condition) -> None:
    found = hashlib.sha256(spoiled(condition).tobytes()).hexdigest()
    assert found == FROZEN_BYTES[condition.label]


def test_a_seed_repeats_and_another_differs() -> None:
    for kind in ("dark", "noise", "motion", "glare", "cast", "dead"):
        condition = Condition(kind)
        assert np.array_equal(spoiled(condition), spoiled(condition)), kind
        assert any(not np.array_equal(spoiled(condition), spoiled(condition, seed)) for seed in (8, 9)), kind


@pytest.mark.parametrize("kind", CONDITIONS)
def test_a_higher_strength_spoils_more(kind: str) -> None:
    one, two, three = (distance(Condition(kind, strength)) for strength in (1, 2, 3))
    assert 0 < one < two < three


def test_noise_has_the_sigma_and_darkness_the_photons_they_name() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    assert spoil(grey, Condition("noise", 1), 0).std() == pytest.approx(30, rel=0.02)
    dark = spoil(grey, Condition("dark", 2), 0)
    assert set(np.unique(dark)) <= {min(count * 255 // 8, 255) for count in range(64)}
    counts = Draws(3).photons(8, grey)
    assert counts.mean() == pytest.approx(8 * 128 / 255, rel=0.02)
    assert counts.var() == pytest.approx(8 * 128 / 255, rel=0.04)


def test_black_stays_black_in_the_dark_and_white_keeps_its_mean() -> None:
    assert not spoil(np.zeros((50, 50, 3), np.uint8), Condition("dark", 3), 1).any()
    assert Draws(1).photons(8, np.full((200, 200), 255, np.uint8)).mean() == pytest.approx(8, rel=0.02)


def test_draws_have_the_moments_of_a_gaussian() -> None:
    drawn = Draws(5).gaussian((400, 400), 60)
    assert drawn.mean() == pytest.approx(0, abs=0.6)
    assert drawn.std() == pytest.approx(60, rel=0.01)
    assert np.abs(drawn).max() > 200


def test_blurs_keep_the_mean_and_a_flat_picture() -> None:
    flat = np.full((60, 60, 3), 77, np.uint8)
    for kind in ("motion", "defocus"):
        for strength in (1, 2, 3):
            assert np.array_equal(spoil(flat, Condition(kind, strength), 3), flat)


def test_lengths_grow_with_the_picture() -> None:
    edge = np.zeros((64, 768, 3), np.uint8)
    edge[:, 384:] = 255
    wide = spoil(edge, Condition("defocus", 1), 0)
    narrow = spoil(edge[:, 192:576], Condition("defocus", 1), 0)
    between = [int(((each > 0) & (each < 255)).any(axis=(0, 2)).sum()) for each in (wide, narrow)]
    assert between == [12, 6]


def test_fog_grows_with_distance_and_a_hole_counts_as_far() -> None:
    black = np.zeros((10, 3, 3), np.uint8)
    depth_m = np.broadcast_to(np.array([1.0, 6.0, 0.0], np.float32), (10, 3))
    near, far, hole = spoil(black, Condition("fog", 2), 0, depth_m)[0, :, 0]
    assert 0 < near < far == hole
    for wrong in (None, depth_m[:5]):
        with pytest.raises(ValueError, match="fog needs depth"):
            spoil(black, Condition("fog"), 0, wrong)


def test_jpeg_is_close_to_what_a_library_leaves() -> None:
    rgb = next(examples(TEST, 4)).frame.rgb
    written = BytesIO()
    Image.fromarray(rgb).save(written, "JPEG", quality=20)
    theirs = np.asarray(Image.open(written)).astype(int)
    ours = compress(rgb, 20).astype(int)
    assert np.abs(ours - theirs).mean() < 0.35 * np.abs(theirs - rgb).mean()


def test_conditions_are_read_and_refused() -> None:
    assert parse_condition("dark") == Condition("dark", 2)
    assert parse_condition("noise:3").label == "noise:3"
    for wrong, said in {
        "rain": "unknown condition 'rain'; known: dark",
        "dark:4": "1, 2 or 3",
        "dark:x": "'x'",
    }.items():
        with pytest.raises(ValueError, match=said):
            parse_condition(wrong)


def test_a_split_keeps_scenes_questions_and_depth() -> None:
    split = list(examples(TEST, 8))
    changed = spoiled_split(split, Condition("dark"))
    assert digest(changed) == digest(split)
    for before, after in zip(split, changed, strict=True):
        assert np.array_equal(before.frame.depth, after.frame.depth)
        assert not np.array_equal(before.frame.rgb, after.frame.rgb)
    assert spoiled_split(split, None) == split
    assert min(FROZEN) >= 1000  # questions of each condition


def test_stereo_sees_texture_in_light_and_little_in_the_dark() -> None:
    rgb = np.full((192, 384, 3), 150, np.uint8)
    rgb[:, 192:] = np.where(np.arange(192) // 6 % 2, 170, 130)[None, :, None]
    depth_m = np.full((192, 384), 3.0, np.float32)
    light = stereo_depth(depth_m, rgb, 1)
    dark = stereo_depth(depth_m, spoil(rgb, Condition("dark", 3), 1), 1)
    assert not light[:, :170].any()  # a blank wall
    textured = light[:, 210:]
    assert (textured > 0).mean() > 0.95
    assert np.median(textured) == pytest.approx(3.0, rel=0.02)
    assert (dark > 0).mean() < (light > 0).mean() - 0.2


def test_a_users_file_is_spoiled_the_same_wherever_it_lies() -> None:
    written = BytesIO()
    Image.fromarray(picture()).save(written, "PNG")
    data = written.getvalue()
    seed = int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
    found = np.asarray(Image.open(BytesIO(spoiled_file(data, Condition("dark")))))
    assert np.array_equal(found, spoil(picture(), Condition("dark"), seed))


def test_an_item_is_sent_spoiled_and_has_a_digest_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    Image.fromarray(picture()).save(path)
    plain, dark = Item("1", "?", (path,)), Item("1", "?", (path,), condition=Condition("dark"))
    assert files_of(plain, {})[0] == (path.read_bytes(),)
    assert files_of(dark, {})[0] == (spoiled_file(path.read_bytes(), Condition("dark")),)
    assert digest_of_items([plain]) != digest_of_items([dark])
    path.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"frame\.png cannot be spoiled"):
        files_of(dark, {})


def test_fog_is_made_from_the_depth_map_of_a_file_whatever_is_sent(tmp_path: Path) -> None:
    """Of any size and unit that is known, also where the method gets no depth."""
    image, depth_file = tmp_path / "frame.png", tmp_path / "depth.png"
    Image.fromarray(picture()).save(image)
    metres = depth(60, 80)
    Image.fromarray((metres * 5000).astype(np.uint16)).save(depth_file)
    fog = Item("1", "?", (image,), (depth_file,), "tum", condition=Condition("fog"))
    (found,), sent = files_of(fog, {"method": "tome"})
    exact = np.repeat(np.repeat(metres, 2, axis=0), 2, axis=1)
    assert np.array_equal(
        np.asarray(Image.open(BytesIO(found))), spoil(picture(), Condition("fog"), 0, exact)
    )
    assert sent == ()
    halved = files_of(replace(fog, depth_preset=None), {"depth_scale": 10_000, "depth_kind": "metric"})[0][0]
    assert np.asarray(Image.open(BytesIO(halved))).mean() < np.asarray(Image.open(BytesIO(found))).mean()
    with pytest.raises(DatasetError, match=r"frame\.png: fog is made from depth, .* give some with --depths"):
        files_of(replace(fog, depths=()), {})
    Image.fromarray((metres * 30).astype(np.uint8)).save(depth_file)
    with pytest.raises(DatasetError, match="relative depth without a unit"):
        files_of(replace(fog, depth_preset=None), {})
    depth_file.write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"depth\.png cannot be read as depth"):
        files_of(fog, {})


def test_a_scene_is_written_spoiled_with_depth_of_a_camera(tmp_path: Path) -> None:
    write_scene(3, tmp_path / "plain", size=96)
    write_scene(3, tmp_path / "dark", size=96, condition=Condition("dark", 3), camera="stereo")
    record = json.loads((tmp_path / "dark" / "scene.json").read_text())
    assert (record["condition"], record["depth_camera"]) == ({"kind": "dark", "strength": 3}, "stereo")
    read = {name: np.asarray(Image.open(tmp_path / name / "rgb.png")) for name in ("plain", "dark")}
    exact = np.asarray(Image.open(tmp_path / "plain" / "depth.png")) / 1000
    assert np.array_equal(
        read["dark"], spoil(read["plain"], Condition("dark", 3), 3, exact.astype(np.float32))
    )
    assert (np.asarray(Image.open(tmp_path / "dark" / "depth.png")) == 0).mean() > 0.5
