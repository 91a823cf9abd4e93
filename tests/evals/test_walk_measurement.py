"""What is measured on walks: exact budgets, coverage by true places, controls that change the kept set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evals.rooms.walks import EIGHT, TRAIN_WALKS, WalkExample, walk_examples
from evals.rooms.walks import compare as comparing
from evals.rooms.walks.coverage import coverage, jaccard, truth_of
from evals.rooms.walks.geometry import GEOMETRIES, posed
from evals.rooms.walks.report import asked
from evals.rooms.walks.select import Chosen, choose
from evals.rooms.walks.settings import ACROSS, PER_FRAME, Setting, settings
from evals.rooms.walks.towers import Towers
from tosa import MergePlan
from vlm import load_vlm

GRID, DIM = 24, 8


class DrawnTowers(Towers):
    """Tokens that are drawn, one for each patch; frames that are merged alone have the first of them."""

    def __init__(self) -> None:
        pass

    def plan(self, method: str, tokens: int) -> MergePlan:
        return tokens  # type: ignore[return-value]

    def inside(self, inside: str) -> MergePlan:
        return self.plan(inside, GRID**2)

    def encode(self, example: WalkExample, frame: int, plan: MergePlan) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = torch.Generator().manual_seed(frame)
        tokens = int(plan)  # type: ignore[call-overload]
        source = torch.arange(GRID**2) % tokens
        return torch.randn(tokens + 1, DIM, generator=drawn), source

    def walk(
        self, example: WalkExample, frames: object, inside: str
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [self.encode(example, at, self.inside(inside)) for at in EIGHT]


@pytest.fixture(scope="module")
def split() -> list[WalkExample]:
    return list(walk_examples(TRAIN_WALKS, 2, size=96))


def chosen(split: list[WalkExample], setting: Setting) -> Chosen:
    return choose(DrawnTowers(), split[0], split[1], setting, GRID)


@pytest.mark.parametrize("method", [*ACROSS, *PER_FRAME])
def test_a_budget_is_spent_exactly_with_separators(split: list[WalkExample], method: str) -> None:
    one = chosen(split, Setting(method, 8, 72))
    assert len(one.visual) == 72 and len(one.key) == len(one.frame) < 72
    assert set(one.frame.tolist()) <= set(one.shown) <= set(EIGHT)
    again = chosen(split, Setting(method, 8, 72))
    assert torch.equal(one.visual, again.visual) and jaccard(one.key, again.key) == 1


def test_kept_tokens_cover_what_is_near_them(split: list[WalkExample]) -> None:
    truth = truth_of(split[0], GRID)
    every = chosen(split, Setting("cover", 8, 10_000))
    whole = coverage(truth, every, EIGHT)
    assert whole.surface == 1 and whole.things > 0.9 and whole.twice > 0.3
    few = coverage(truth, chosen(split, Setting("cover", 8, 36)), EIGHT)
    assert few.surface < whole.surface and few.things <= whole.things and few.twice < 0.1
    first = replace(every, frame=every.frame[:576], token=every.token[:576], shown=(0,))
    one_frame = coverage(truth, first, EIGHT)
    assert one_frame.twice == 0 and one_frame.surface < whole.surface


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "true"])
def test_wrong_geometry_is_another_one_and_repeats(split: list[WalkExample], name: str) -> None:
    true, other = posed(split[0], EIGHT), posed(split[1], EIGHT)
    wrong, again = (GEOMETRIES[name](true, other, 3) for _ in range(2))
    assert all(map(np.array_equal, wrong.depth + wrong.poses, again.depth + again.poses))
    same_depth = all(map(np.array_equal, wrong.depth, true.depth))
    same_poses = all(map(np.array_equal, wrong.poses, true.poses))
    assert same_depth != same_poses
    assert same_poses == name.startswith("depth")


def test_cover_uses_poses_and_depth(split: list[WalkExample]) -> None:
    right = chosen(split, Setting("cover", 8, 144))
    for name in ("poses: shuffled", "depth: of another frame", "poses: identity"):
        assert jaccard(right.key, chosen(split, Setting("cover", 8, 144, geometry=name)).key) < 0.6
    blind = [chosen(split, Setting("diverse", 8, 144, geometry=name)) for name in ("true", "poses: shuffled")]
    assert jaccard(blind[0].key, blind[1].key) == 1


def test_settings_have_names_of_their_own_and_every_frame_gets_a_token() -> None:
    every = settings()
    assert len({one.name for one in every}) == len(every)
    assert all(one.budget // len(one.shown) >= 2 for one in every if one.method in PER_FRAME)
    assert Setting("tosa, fewer frames", 8, 144).shown == (EIGHT[0], EIGHT[-1])
    first = comparing.first_things_first(every)
    assert first[0].budget == 144 and first[0].geometry == "true"


def test_plain_questions_are_those_of_single_scenes(split: list[WalkExample]) -> None:
    kinds = {one.type for example in split for one in asked(example, "plain")}
    assert kinds and kinds <= {"count", "existence", "colour"}
    assert len(asked(split[0], "walks")) == len(split[0].questions)


@pytest.mark.long
def test_a_run_resumes_and_says_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--walks", "2", "--frames", "8", "--budgets", "72", "--without-controls"]
    places = [
        "--kept",
        str(tmp_path / "kept"),
        "--cache",
        str(tmp_path / "cache"),
        "--out",
        str(tmp_path / "o"),
    ]
    comparing.main([*arguments, *places])
    first, kept = json.loads((tmp_path / "o").read_text()), (tmp_path / "kept").read_bytes()
    comparing.main([*arguments, *places])
    assert (tmp_path / "kept").read_bytes() == kept
    again = json.loads((tmp_path / "o").read_text())
    assert first["settings"] == again["settings"]
    row = next(row for row in first["settings"] if row["method"] == "cover" and row["inside"] == "none")
    assert row["tokens"] == [72, 72] and len(row["minus_tosa"]["things"]) == 3 and row["ms"]["select"] > 0


@pytest.mark.long
def test_frames_are_encoded_once(split: list[WalkExample], tmp_path: Path) -> None:
    example = replace(split[0], frames=split[0].frames[:2])
    vlm = load_vlm("room-tiny")
    towers = Towers(vlm, tmp_path)
    one = towers.walk(example, (0, 1), "tosa 0.25")
    assert [len(features) for features, _ in one] == [145, 145]
    assert int(one[0][1].max()) == 143
    again = Towers(vlm, tmp_path).walk(replace(example, frames=()), (1,), "tosa 0.25")
    assert torch.equal(again[0][0], one[1][0])
