"""Stage 5: only the language model learns, budgets are exact, and a resumed run gets the same batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from evals.rooms import make_scene, questions, render
from evals.rooms.walks import EIGHT, TRAIN_WALKS, make_walk, render_view, sights, walk_questions
from evals.rooms.walks.geometry import frame_tokens
from evals.rooms.walks.towers import Towers
from training.model import LANGUAGE_DIM, UNKNOWN, build_config, build_model, build_tokenizer
from training.stage5_walks import ACROSS, BUDGET, Recipe, batch_of, learning_language, merged, walk_loss
from training.walk_frames import ALONE_TOKENS, EncodedScene, EncodedWalk, WalkFrames
from training.walk_words import WALK_WORDS
from vlm import load_vlm

GRID = 8
RECIPE = Recipe(walks=1, scenes=1, pool=3, per_walk=4, per_scene=3)


class DrawnFrames(WalkFrames):
    """Walks and scenes whose tokens are drawn, in place of those of a tower."""

    def __init__(self) -> None:
        self._drawn = torch.Generator().manual_seed(0)
        self._walks: dict[int, EncodedWalk] = {}

    def walk(self, seed: int) -> EncodedWalk:
        if seed not in self._walks:
            self._walks[seed] = self._walk(seed)
        return self._walks[seed]

    def _walk(self, seed: int) -> EncodedWalk:
        walk = make_walk(seed)
        views = [render_view(walk, at, 96) for at in range(16)]
        frames = tuple(
            frame_tokens(
                self._tokens(GRID**2),
                torch.arange(GRID**2),
                views[at].depth,
                walk.cameras[at].pose,
                at / 2,
                GRID,
            )
            for at in EIGHT
        )
        alone = torch.stack([self._tokens(ALONE_TOKENS) for _ in EIGHT])
        return EncodedWalk(frames, alone, sights(walk, views))

    def scene(self, seed: int, asked: int, per_scene: int) -> EncodedScene:
        scene = make_scene(seed)
        tokens = {number: torch.full((number, LANGUAGE_DIM), 0.1) for number in (576, 144)}
        return EncodedScene(tokens, questions(scene, render(scene, 96), asked, per_scene))

    def _tokens(self, number: int) -> torch.Tensor:
        return torch.randn(number, LANGUAGE_DIM, generator=self._drawn)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(WALK_WORDS)


@pytest.fixture(scope="module")
def frames() -> DrawnFrames:
    return DrawnFrames()


def test_the_tokenizer_has_a_word_for_everything_that_is_asked_about_walks(
    tokenizer: PreTrainedTokenizerFast, frames: DrawnFrames
) -> None:
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    asked = [
        one
        for number in range(2)
        for one in walk_questions(frames.walk(TRAIN_WALKS[number]).seen, number, 16)
    ]
    assert {one.type for one in asked} >= {"count", "existence", "nearer now", "when"}
    for one in asked:
        assert unknown not in tokenizer.encode(f"{one.question} {one.answer}", add_special_tokens=False), one


def test_words_of_single_scenes_keep_their_places(tokenizer: PreTrainedTokenizerFast) -> None:
    before, now = build_tokenizer().get_vocab(), tokenizer.get_vocab()
    assert {word: now[word] for word in before} == before
    assert 10 < len(now) - len(before) <= len(WALK_WORDS)


@pytest.mark.parametrize("method", ACROSS)
def test_a_walk_takes_exactly_its_budget(method: str, frames: DrawnFrames) -> None:
    walk = frames.walk(TRAIN_WALKS[0])
    features, is_separator = merged(walk, next(one for one in ACROSS if one == method))
    assert features.shape == (BUDGET - 1, LANGUAGE_DIM)  # the last separator is added by the loss
    assert 0 < int(is_separator.sum()) < len(EIGHT)
    assert (features[is_separator] == 0).all() and (features[~is_separator] != 0).any(dim=1).all()
    if method == "none":
        assert torch.equal(features[:ALONE_TOKENS], walk.alone[0])


def test_a_step_gets_the_same_batch_again_and_all_methods_come(
    tokenizer: PreTrainedTokenizerFast, frames: DrawnFrames
) -> None:
    one, again, other = (batch_of(RECIPE, frames, tokenizer, step) for step in (4, 4, 5))
    assert one.method == again.method and torch.equal(one.walks.features, again.walks.features)
    assert torch.equal(one.walks.packed.ids, again.walks.packed.ids)
    assert not np.array_equal(one.walks.packed.ids, other.walks.packed.ids)
    few = replace(RECIPE, per_walk=1, per_scene=1)
    assert {batch_of(few, frames, tokenizer, step).method for step in range(12)} == set(ACROSS)
    control = replace(few, methods=("none",))
    assert {batch_of(control, frames, tokenizer, step).method for step in range(6)} == {"none"}


def test_only_the_language_model_learns(tokenizer: PreTrainedTokenizerFast, frames: DrawnFrames) -> None:
    model = learning_language(build_model(build_config(tokenizer), seed=0))
    loss, measures = walk_loss(model, batch_of(RECIPE, frames, tokenizer, 0))
    loss.backward()
    assert loss.isfinite() and "right_single" in measures
    learned = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert "model.image_newline" in learned
    assert not any("vision_tower" in name or "projector" in name for name in learned)
    language = {name for name, _ in model.named_parameters() if "language_model" in name}
    assert language <= learned


@pytest.mark.long
def test_what_was_encoded_once_is_read_again(tmp_path: Path) -> None:
    vlm = load_vlm("room-tiny")
    first, second = (WalkFrames(Towers(vlm), vlm.shape.grid[0], tmp_path) for _ in range(2))
    seed = TRAIN_WALKS[0]
    one = first.walk(seed)
    changed = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    two = second.walk(seed)
    assert changed == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert torch.equal(one.frames[3].features, two.frames[3].features)
    assert one.alone.shape == (len(EIGHT), ALONE_TOKENS, LANGUAGE_DIM)
    assert np.array_equal(one.seen.shares, two.seen.shares)
    assert set(second.scene(5, 5, 3).tokens) == {576, 144}
