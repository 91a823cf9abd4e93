"""OpenEQA's questions, and its frames and depth as officially extracted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evals.runners.items import DatasetError, Entry
from evals.runners.openeqa_episodes import Record, evenly, load

DATA = Path(__file__).parent / "data" / "openeqa"
HM3D, SCANNET = "hm3d-v0/000-hm3d-MadeUp00001", "scannet-v0/001-scannet-scene9999_00"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return shutil.copytree(DATA, tmp_path / "data")


def edit(data: Path, **fields: Any) -> Path:
    records = json.loads((data / "open-eqa-v0.json").read_text())
    records[0] = {name: value for name, value in {**records[0], **fields}.items() if value is not None}
    (data / "open-eqa-v0.json").write_text(json.dumps(records))
    return data


def positions(entry: Entry[Record]) -> list[int]:
    return [int(path.name.split("-")[0]) for path in entry.item.images]


def test_the_official_layout_is_read() -> None:
    entries = load(DATA)
    first, second, third = entries[:3]
    assert first.item.id == "00000000-0000-4000-8000-000000000001"
    assert first.item.question == "What color is the ball?" and first.item.max_new_tokens == 128
    assert first.truth.extra_answers is None
    assert second.truth.extra_answers == ["On the floor", "Near the wall."]
    assert (first.item.depths, first.item.depth_preset) == ((), None)  # RGB only, as HM3D is offered
    assert third.item.depth_preset == "scannet"
    assert third.item.images[3] == DATA / "frames" / SCANNET / "000004-rgb.png"
    assert third.item.depths[3] == DATA / "frames" / SCANNET / "000004-depth.png"
    assert [entry.truth.episode_history for entry in entries] == [HM3D] * 2 + [SCANNET] * 3


def test_frames_are_those_of_the_official_baselines() -> None:
    """14 frames at 0, 1.18, 2.36, 3.55, 4.73, 5.91, 7.09, 8.27, 9.45, 10.64, 11.82, 13, rounded."""
    entries = load(DATA)
    assert positions(entries[2]) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 12, 13]
    assert positions(entries[0]) == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4]  # 5 frames: some come again


@pytest.mark.parametrize(
    ("there", "count", "chosen"),
    [(6, 3, [0, 2, 5]), (8, 3, [0, 4, 7]), (3, 1, [0]), (1, 3, [0, 0, 0]), (600, 2, [0, 599])],
)
def test_half_way_is_rounded_to_even(there: int, count: int, chosen: list[int]) -> None:
    """2.5 to 2, 3.5 to 4."""
    paths = [Path(str(number)) for number in range(there)]
    assert evenly(paths, count) == tuple(paths[number] for number in chosen)


def test_depth_of_hm3d_is_told_from_that_of_scannet(data: Path) -> None:
    for rgb in (data / "frames" / HM3D).glob("*-rgb.png"):
        rgb.with_name(rgb.name.replace("-rgb", "-depth")).touch()
    assert {entry.item.depth_preset for entry in load(data)} == {"openeqa-hm3d", "scannet"}


def test_tosas_setting_and_single_choices() -> None:
    tosa = load(DATA, setting="tosa")
    assert {entry.item.max_new_tokens for entry in tosa} == {1000}
    assert {len(entry.item.images) for entry in tosa} == {12} and not any(e.item.depths for e in tosa)
    chosen = load(DATA, frames=3, answer_tokens=9, suffix="Be short.", source="scannet-v0")
    assert len(chosen) == 3 and positions(chosen[0]) == [0, 6, 13] and chosen[0].item.max_new_tokens == 9
    assert chosen[0].item.question == "What color is the object on the floor?\nBe short."
    assert chosen[0].truth.question == "What color is the object on the floor?"  # as the judge is asked


def test_only_the_listed_questions_are_asked(tmp_path: Path) -> None:
    ids = [entry.item.id for entry in load(DATA)]
    (tmp_path / "ids.json").write_text(json.dumps([ids[3], ids[1]]))
    assert [entry.item.id for entry in load(DATA, questions=tmp_path / "ids.json")] == [ids[1], ids[3]]
    (tmp_path / "ids.json").write_text(json.dumps([ids[3], "other"]))
    with pytest.raises(DatasetError, match=r"ids\.json lists 1 unknown .* other"):
        load(DATA, questions=tmp_path / "ids.json")
    (tmp_path / "ids.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"ids\.json has no question"):
        load(DATA, questions=tmp_path / "ids.json")


def test_a_missing_episode_is_named(data: Path) -> None:
    shutil.rmtree(data / "frames" / HM3D)
    with pytest.raises(
        DatasetError, match=r"1 of 2 episodes.*000-hm3d-MadeUp00001.*000000-rgb\.png.*--source"
    ):
        load(data)
    assert len(load(data, source="scannet-v0")) == 3


def test_half_extracted_depth_is_an_error_and_none_is_not(data: Path) -> None:
    folder = data / "frames" / SCANNET
    (folder / "000004-depth.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 12 frames.*000004-depth\.png"):
        load(data)
    assert load(data, setting="tosa")
    for depth in folder.glob("*-depth.png"):
        depth.unlink()
    assert not any(entry.item.depths for entry in load(data))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"episode_history": "../../etc"}, "entry 0.*hm3d-v0/ or scannet-v0/"),
        ({"episode_history": "hm3d-v0/.."}, "entry 0.*episode_history"),
        ({"episode_history": "matterport-v0/1"}, "entry 0.*episode_history"),
        ({"answer": None}, r"entry 0\.answer"),
        ({"extra_answers": "one"}, r"entry 0\.extra_answers"),
    ],
)
def test_a_wrong_entry_is_named(data: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        load(edit(data, **fields))
