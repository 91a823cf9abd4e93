"""`tosa-vqa ask` about walks: the same answer from files, folders and bags, and episodes that go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli.main import app
from tests.service.conftest import running
from tests.service.episodes import at_once
from tests.service.episodes import walk as frames_of
from tests.service.recordings.written import bag, scannet, text

MERGE = ("--merge-frames", "cover", "--max-visual-tokens", 20, "--keep-ratio", 0.5)
QUESTION = ("--question", "how many cubes ?", "--max-new-tokens", 4)
POSED = ("--convention", "opencv", "--depth-scale", 1000)
CAMERA = ("--intrinsics", json.dumps({"fx": 120, "fy": 120, "cx": 39.5, "cy": 29.5}))
ID = "ab" * 16


def run(*words: object, **environment: object) -> Result:
    env = {name: str(value) for name, value in environment.items()}
    return CliRunner().invoke(app, list(map(str, words)), env=env)


def answer(checkpoint: Path, *words: object, **environment: object) -> dict[str, Any]:
    result = run("ask", *words, *QUESTION, "--model", checkpoint, "--json", **environment)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*words: object, **environment: object) -> str:
    result = run("ask", *words, *QUESTION, **environment)
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.stderr


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether two answers read the same tokens; times of frames are written in one kind of recording."""
    kept = [[{**frame, "timestamp": None} for frame in each["episode"]["kept"]] for each in (one, other)]
    return kept[0] == kept[1] and all(one[name] == other[name] for name in ("answer", "usage"))


def test_files_folder_bag_and_service_give_one_answer(checkpoint: Path, tmp_path: Path) -> None:
    folder = answer(checkpoint, "--frames", scannet(tmp_path / "folder", 4), *POSED, *MERGE)
    recorded = answer(checkpoint, "--bag", bag(tmp_path / "bag", 4), *MERGE)
    words: list[object] = []
    for at, (image, depth, pose) in enumerate(frames_of(12)[:4]):
        for name, data in (("image", image), ("depth", depth)):
            (tmp_path / f"{at}-{name}.png").write_bytes(data)
            words += [f"--{name}", tmp_path / f"{at}-{name}.png"]
        (tmp_path / f"{at}.txt").write_text(text(pose))
        words += ["--pose", json.dumps(pose) if at % 2 else tmp_path / f"{at}.txt"]
    files = answer(checkpoint, *words, *POSED, *CAMERA, *MERGE)
    assert same(folder, recorded) and same(folder, files)
    assert folder["episode"]["id"] is None and folder["episode"]["visual_tokens"] == 20
    assert folder["episode"]["agreement"] > 0.9 and recorded["episode"]["kept"][0]["timestamp"] == 1000
    with running(checkpoint, depth_model="none", max_images=4) as client:
        served = at_once(client, range(4), merge_frames="cover", max_visual_tokens=20, keep_ratio=0.5)
    assert same(folder, served.json())


def test_an_episode_on_disk_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    directory = {"TOSA_VQA_EPISODES_DIR": tmp_path / "episodes"}
    own = (*POSED, *CAMERA, *MERGE)
    whole = answer(checkpoint, "--frames", scannet(tmp_path / "whole", 3), *own)
    first = scannet(tmp_path / "first", 2)
    begun = answer(checkpoint, "--frames", first, *own, "--episode", ID, **directory)
    assert begun["episode"]["id"] == ID and begun["episode"]["frames"] == 2
    image, depth, pose = frames_of(12)[2]
    (tmp_path / "a.png").write_bytes(image)
    (tmp_path / "d.png").write_bytes(depth)
    words = ("--image", tmp_path / "a.png", "--depth", tmp_path / "d.png", "--pose", json.dumps(pose))
    assert same(answer(checkpoint, *words, "--episode", ID, **directory), whole)
    assert same(answer(checkpoint, "--episode", ID, **directory), whole)
    said = refused("--episode", ID, "--merge-frames", "seen", "--model", checkpoint, **directory)
    assert "begun with settings of its own: leave --merge-frames out" in said


def test_a_walk_is_told_as_a_table(checkpoint: Path, tmp_path: Path) -> None:
    folder = scannet(tmp_path / "walk", 2)
    (folder / "pose" / "5.txt").unlink()
    result = run("ask", "--frames", folder, *POSED, *QUESTION, "--model", checkpoint)
    assert result.exit_code == 0, result.output
    for words in ("2, cover:", "with a place", "read", "The frame has no pose"):
        assert words in result.stdout
    assert result.stderr.startswith("note: 1 of 2 frames have no pose")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give --image, --frames or --bag"),
        (("--frames", "a", "--bag", "b"), "three ways to name frames"),
        (("--frames", "a", "--depth", "b"), "--depth goes with --image"),
        (
            ("--image", "a", "--pose", "1", "--pose", "2"),
            "--pose is given once for each --image, of which there are 1",
        ),
        (("--image", "a", "--world-frame", "map"), "go with --bag"),
        (("--frames", "nowhere"), "nowhere is no folder"),
        (("--bag", "nowhere"), "nowhere: No such file"),
        (("--episode", ID), "TOSA_VQA_EPISODES_DIR, which is not set"),
        (("--frames", "a", "--views", "anyres"), "--views single"),
        (("--image", "a", "--merge-frames", "best"), "merge_frames must be one of none, seen, cover"),
    ],
)
def test_options_that_do_not_go_together(words: tuple[str, ...], said: str) -> None:
    assert said in refused(*words)


def test_what_is_wrong_with_a_frame_names_it(checkpoint: Path, tmp_path: Path) -> None:
    folder = scannet(tmp_path / "walk", 2)
    assert "convention" in refused("--frames", folder, "--model", checkpoint)
    (folder / "depth" / "5.png").write_bytes(b"no picture")
    said = refused("--frames", folder, *POSED, "--model", checkpoint)
    assert said.startswith("error: 5.png: ")
    image, _, _ = frames_of(12)[0]
    (tmp_path / "a.png").write_bytes(image)
    said = refused("--image", tmp_path / "a.png", "--pose", "one two", *POSED, "--model", checkpoint)
    assert "a pose is JSON, or 16 numbers" in said
    said = refused("--episode", "../x", "--model", checkpoint, TOSA_VQA_EPISODES_DIR=tmp_path / "e")
    assert "32 hexadecimal digits" in said
