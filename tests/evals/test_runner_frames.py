"""Frames of scenes: order, spacing, depth, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.runners.frames import Frames, evenly, image_files, scannet_frames, scene_frames
from evals.runners.items import DatasetError


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def test_four_of_ten_are_0_3_6_9_and_three_of_eight_are_0_3_7() -> None:
    """i (n - 1) / (count - 1): 0, 3, 6, 9; and 0, 3.5, 7, whose middle is cut to 3."""
    ten = [Path(str(number)) for number in range(10)]
    assert names(evenly(ten, 4)) == ["0", "3", "6", "9"]
    assert names(evenly(ten[:8], 3)) == ["0", "3", "7"]


@given(total=st.integers(1, 60), count=st.integers(1, 70))
def test_the_choice_is_in_order_without_repeats_and_has_both_ends(total: int, count: int) -> None:
    paths = [Path(f"{number:03d}") for number in range(total)]
    chosen = evenly(paths, count)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(total, count)
    assert chosen[0] == paths[0]
    assert count == 1 or chosen[-1] == paths[-1]
    gaps = np.diff([int(path.name) for path in chosen])
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_no_frames_at_all_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="at least one"):
        evenly([Path("0.jpg")], 0)


def test_2_comes_before_10_and_other_files_do_not_count(tmp_path: Path) -> None:
    touch(tmp_path, "10.jpg", "2.jpg", "0.JPG", "pose.txt")
    assert [path.name for path in image_files(tmp_path)] == ["0.JPG", "2.jpg", "10.jpg"]


def test_names_with_words_and_without_numbers_have_an_order_too(tmp_path: Path) -> None:
    touch(tmp_path, "frame-10.png", "frame-9.png", "7.png", "last.png")
    assert [path.name for path in image_files(tmp_path)] == [
        "7.png",
        "frame-9.png",
        "frame-10.png",
        "last.png",
    ]


def test_depth_goes_with_the_frame_of_its_number(tmp_path: Path) -> None:
    touch(tmp_path / "scene9001_00" / "color", "0.jpg", "2.jpg", "10.jpg")
    touch(tmp_path / "scene9001_00" / "depth", "0.png", "2.png", "10.png")
    found = scannet_frames(tmp_path, ["scene9001_00"], 2)["scene9001_00"]
    assert names(found.images) == ["0.jpg", "10.jpg"]
    assert names(found.depths) == ["0.png", "10.png"]
    assert found.preset == "scannet"


def test_no_folder_of_depth_means_color_only(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "color", "0.jpg")
    assert scannet_frames(tmp_path, ["a"], 12) == {"a": Frames((tmp_path / "a" / "color" / "0.jpg",))}


def test_depth_in_some_scenes_only_is_refused(tmp_path: Path) -> None:
    for scene in "abc":
        touch(tmp_path / scene / "color", "0.jpg")
    touch(tmp_path / "b" / "depth", "0.png")
    with pytest.raises(
        DatasetError, match=r"2 of 3 scenes have no folder `depth`, the first is .*a: export depth"
    ):
        scannet_frames(tmp_path, list("abc"), 12)


@pytest.mark.parametrize("made", ["nothing", "an empty folder"])
def test_scenes_without_frames_are_counted(tmp_path: Path, made: str) -> None:
    touch(tmp_path / "a", "0.jpg")
    if made == "an empty folder":
        touch(tmp_path / "b")
    with pytest.raises(
        DatasetError, match=r"1 of 2 scenes have no frames, the first is .*b: expected numbered"
    ):
        scene_frames(tmp_path, ["a", "b"], 4)
