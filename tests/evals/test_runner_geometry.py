"""Poses and intrinsics beside the frames of OpenEQA and ScanNet, and answers whose frames merge by place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth.geometry import read_pose
from evals.runners.answerers import EngineAnswerer
from evals.runners.asking import fields_of
from evals.runners.frames import scannet_frames
from evals.runners.geometry import check_places
from evals.runners.items import DatasetError, Item
from evals.runners.openeqa_episodes import _episodes
from tests.service.conftest import checkpoint, running
from tests.service.episodes import INTRINSICS, at_once, walk
from tests.service.recordings.written import openeqa, scannet

__all__ = ["checkpoint"]
COVER = {"method": "none", "merge_frames": "cover", "max_visual_tokens": 20}


def item_of(frames: Any, preset: str = "scannet") -> Item:
    files = frames.images, frames.depths, preset
    return Item("a", "how many cubes ?", *files, max_new_tokens=4, geometry=frames.geometry)


def frames_of(layout: str, folder: Path, number: int = 4) -> Any:
    """Return the frames of an episode of OpenEQA, or of a scene as ScanNet's exporter writes it."""
    if layout == "scannet":
        scannet(folder / "scene0000_00", number)
        return scannet_frames(folder, ["scene0000_00"], number)["scene0000_00"]
    history = f"{layout}-v0/000-{layout}-x"
    openeqa(folder / history, number)
    return _episodes(folder, [history], number, with_depth=True)[history]


@pytest.mark.parametrize(("layout", "convention"), [("scannet", "scannet"), ("hm3d", "habitat")])
def test_poses_and_intrinsics_are_sent_where_frames_merge(
    tmp_path: Path, layout: str, convention: str
) -> None:
    item = item_of(frames_of(layout, tmp_path))
    assert "poses" not in fields_of(item, {"method": "tosa"})
    sent = fields_of(item, COVER)
    assert sent["intrinsics"] == INTRINSICS and sent["convention"] == convention
    assert sent["depth_preset"] == "scannet" and "depth_intrinsics" not in sent
    for raw, (_, _, pose) in zip(sent["poses"], walk(12), strict=False):
        assert np.allclose(read_pose(raw, "opencv"), pose)
    check_places([item], COVER)


def test_lost_poses_are_null_and_hm3ds_wrong_fy_is_not_sent(tmp_path: Path) -> None:
    frames = frames_of("hm3d", tmp_path)
    folder = frames.images[0].parent
    (folder / "00001.txt").write_text(" ".join(["-inf"] * 16))
    (folder / "intrinsic_color.txt").write_text("960 1141.73 959.5 539.5")
    for path in frames.images:
        Image.new("RGB", (1920, 1080)).save(path)
    sent = fields_of(item_of(frames), COVER)
    assert [pose is None for pose in sent["poses"]] == [False, True, False, False]
    assert sent["intrinsics"] == {"fx": 960, "fy": 960, "cx": 959.5, "cy": 539.5}
    (folder / "00002.txt").write_text("1 2 3")
    with pytest.raises(DatasetError, match=r"00002\.txt: 16 numbers stand here"):
        fields_of(item_of(frames), COVER)


def test_a_run_by_place_needs_places(tmp_path: Path) -> None:
    frames = frames_of("scannet", tmp_path)
    without = Item("b", "?", frames.images, frames.depths, "scannet")
    check_places([without], {**COVER, "merge_frames": "diverse"})
    check_places([without], {"method": "tosa"})
    with pytest.raises(DatasetError, match="of question b have no poses with intrinsics"):
        check_places([without], COVER)
    with pytest.raises(DatasetError, match="of question c have no depth"):
        check_places([Item("c", "?", frames.images, geometry=frames.geometry)], COVER)


def test_a_runner_answers_as_the_service_does(tmp_path: Path, checkpoint: Path) -> None:
    spec = {**COVER, "method": "tosa", "keep_ratio": 0.5}
    answerer = EngineAnswerer(str(checkpoint), spec, depth_model="none")
    try:
        (answer,) = answerer.answer([item_of(frames_of("scannet", tmp_path))])
    finally:
        answerer.close()
    with running(checkpoint, depth_model="none", max_images=4) as client:
        served = at_once(client, range(4), **{**spec, "max_visual_tokens": 20}).json()
    assert answer.text == served["answer"] and answer.report["usage"] == served["usage"]
    assert answer.report["merge"] == served["merge"]
