"""Folders of frames: three layouts, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from depth.geometry import read_pose
from service.recordings.folder import read_folder
from service.recordings.recording import Walk, WalkError, spread
from tests.service.episodes import INTRINSICS, walk
from tests.service.recordings.written import openeqa, scannet, tum

LAYOUTS = {"scannet": scannet, "openeqa": openeqa, "tum": tum}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_holds_the_frames_that_were_written(tmp_path: Path, layout: str) -> None:
    found = read_folder(LAYOUTS[layout](tmp_path / "walk", 4))
    assert found.number == 4 and found.notes == ()
    assert {name: found.fields["intrinsics"][name] for name in INTRINSICS} == INTRINSICS
    frames = list(found.frames(10))
    for frame, (image, depth, pose) in zip(frames, walk(12), strict=False):
        assert frame.image == image and (frame.depth == depth or layout == "tum")
        read = read_pose(frame.fields["pose"], found.fields.get("convention", "opencv"))
        assert np.allclose(read, pose, atol=1e-6)
    assert (found.fields.get("convention"), "timestamp" in frames[0].fields) == (
        ("tum", True) if layout == "tum" else (None, False)
    )


def test_few_of_many_frames_are_spread_from_the_first_to_the_last(tmp_path: Path) -> None:
    found = read_folder(scannet(tmp_path / "walk", 11))
    assert [frame.name for frame in found.frames(3)] == [
        "0.png",
        "25.png",
        "50.png",
    ]  # 50 after 5, as numbers
    assert spread(3, 5) == [0, 1, 2] and spread(9, 1) == [0] and spread(0, 4) == []
    assert spread(100, 4) == [0, 33, 66, 99]


def test_a_pose_that_tracking_lost_is_left_out(tmp_path: Path) -> None:
    folder = scannet(tmp_path / "walk", 3)
    (folder / "pose" / "5.txt").write_text(" ".join(["-inf"] * 16))
    (folder / "pose" / "10.txt").unlink()
    found = read_folder(folder)
    assert ["pose" in frame.fields for frame in found.frames(3)] == [True, False, False]
    assert found.notes == ("1 of 3 frames have no pose: what they show has no place",)


def test_images_alone_are_a_walk(tmp_path: Path) -> None:
    (tmp_path / "rgb").mkdir()
    (tmp_path / "rgb" / "a.jpg").write_bytes(b"x")
    (frame,) = read_folder(tmp_path).frames(4)
    assert (frame.image, frame.depth, dict(frame.fields)) == (b"x", None, {})


def _no_frames(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"x")


def _no_images(folder: Path) -> None:
    (folder / "color").mkdir()


def _some_depth(folder: Path) -> None:
    (scannet(folder / "walk", 3) / "depth" / "5.png").unlink()
    for path in list((folder / "walk").iterdir()):
        path.rename(folder / path.name)


def _short_pose(folder: Path) -> None:
    _whole(folder)
    (folder / "pose" / "0.txt").write_text("1 0 0")


def _odd_camera(folder: Path) -> None:
    _whole(folder)
    (folder / "intrinsics.txt").write_text("1 2 3")


def _odd_list(folder: Path) -> None:
    (folder / "rgb.txt").write_text("first rgb/a.png\n")


def _empty_list(folder: Path) -> None:
    (folder / "rgb.txt").write_text("# nothing\n")


def _far_depth(folder: Path) -> None:
    (folder / "rgb.txt").write_text("1.0 rgb/a.png\n")
    (folder / "depth.txt").write_text("9.0 depth/a.png\n")


def _whole(folder: Path) -> None:
    for path in list(scannet(folder / "walk", 2).iterdir()):
        path.rename(folder / path.name)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_frames, "holds no frames as this program knows them"),
        (_no_images, "holds no images"),
        (_some_depth, "1 of 3 images have no depth"),
        (_short_pose, "0.txt: 16 numbers stand here"),
        (_odd_camera, "intrinsics.txt: fx fy cx cy, or a matrix"),
        (_odd_list, "rgb.txt: every line begins with a time"),
        (_empty_list, "rgb.txt names no images"),
        (_far_depth, "no image has depth within 0.02 s"),
    ],
)
def test_what_is_wrong_with_a_folder(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(tmp_path)
    with pytest.raises(WalkError, match=said):
        list(_read(tmp_path).frames(9))


def _read(folder: Path) -> Walk:
    return read_folder(folder)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(WalkError, match="is no folder"):
        read_folder(tmp_path / "nowhere")
