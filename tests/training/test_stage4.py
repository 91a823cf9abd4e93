"""Stage 4: what a model knows moves over, the tower runs at both resolutions, every part learns."""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AddedToken, PreTrainedTokenizerFast

from tosa import MergeSpec, make_plan
from training.batches import Recipe, RoomBatches, condition_at
from training.model import DenseHeads, build_config, build_model, build_tokenizer
from training.stage4_furnished import (
    HIGH,
    LOW,
    at_grid,
    draw_spec,
    first_seed,
    furnished_loss,
    grown,
    recipes,
    share,
)
from vlm.adapters import adapt

WORDS = "model.language_model.embed_tokens.weight"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def test_known_words_keep_their_rows_and_new_ones_get_one(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    old = build_model(build_config(tokenizer), seed=1)
    old.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    more = build_tokenizer()
    more.add_tokens([AddedToken("wardrobe")])
    moved, before = grown(tmp_path, more, seed=2).state_dict(), old.state_dict()
    assert len(moved[WORDS]) == len(before[WORDS]) + 1
    assert torch.equal(moved[WORDS][:-1], before[WORDS]) and moved[WORDS][-1].abs().sum() > 0
    assert torch.equal(moved["lm_head.weight"], moved[WORDS])
    rest = before.keys() - {WORDS, "lm_head.weight"}
    assert rest and all(torch.equal(moved[name], before[name]) for name in rest)


@pytest.mark.parametrize(
    ("spec", "recipe"),
    [(MergeSpec(), LOW), pytest.param(MergeSpec("tosa", keep_ratio=0.5), HIGH, marks=pytest.mark.long)],
)
def test_every_part_learns(tokenizer: PreTrainedTokenizerFast, spec: MergeSpec, recipe: Recipe) -> None:
    model, heads = build_model(build_config(tokenizer), seed=0), DenseHeads()
    batch = RoomBatches(replace(recipe, scenes=1, per_scene=4), tokenizer, range(1))[0]
    adapter = at_grid(model.model.vision_tower, recipe.grid)
    loss, measures = furnished_loss(model, heads, adapter, batch, make_plan(spec, adapter.shape), False)
    loss.backward()
    assert loss.isfinite() and measures
    idle = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert all("post_layernorm" in name for name in idle), idle
    assert (heads.out.weight.grad is not None) == (spec.method == "none")


def test_fresh_heads_do_not_move_the_tower(tokenizer: PreTrainedTokenizerFast) -> None:
    model, heads = build_model(build_config(tokenizer), seed=0), DenseHeads()
    batch = RoomBatches(replace(LOW, scenes=1, per_scene=4), tokenizer, range(1))[0]
    adapter = at_grid(model.model.vision_tower, LOW.grid)
    weight = model.model.vision_tower.encoder.layers[0].mlp.fc1.weight
    gradients = []
    for heads_alone in (True, False):
        model.zero_grad()
        furnished_loss(model, heads, adapter, batch, make_plan(MergeSpec(), adapter.shape), heads_alone)[
            0
        ].backward()
        assert weight.grad is not None
        gradients.append(weight.grad.clone())
    assert not torch.equal(*gradients)


def test_at_its_own_resolution_the_tower_is_the_shipped_one(tokenizer: PreTrainedTokenizerFast) -> None:
    tower = build_model(build_config(tokenizer), seed=0).model.vision_tower
    pixels = torch.randn(1, 3, HIGH.size, HIGH.size)
    assert torch.equal(at_grid(tower, HIGH.grid).embed(pixels), adapt(tower).embed(pixels))


def test_training_favours_neither_method() -> None:
    drawn = [draw_spec(random.Random(step)) for step in range(2000)]
    methods = [spec.method for spec in drawn]
    assert 0.25 < methods.count("none") / 2000 < 0.35
    assert abs(methods.count("tome") - methods.count("tosa")) < 120
    assert {spec.keep_ratio for spec in drawn if spec.method != "none"} == {0.5, 0.35, 0.25}


def test_a_share_of_the_frames_is_spoiled_and_a_resumed_run_sees_the_same(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    low, high = recipes(0.5)
    assert (low.first_seed, high.first_seed) == (LOW.first_seed, HIGH.first_seed)
    mixed, plain = (
        RoomBatches(replace(one, scenes=6, per_scene=0, size=96, grid=6), tokenizer, range(3, 5))
        for one in (low, LOW)
    )
    spoiled, clean = mixed[1], plain[1]
    again = RoomBatches(mixed.recipe, tokenizer, range(4, 5))[0]
    assert spoiled.pixels is not None and clean.pixels is not None and again.pixels is not None
    assert torch.equal(again.pixels, spoiled.pixels)
    seeds = range(LOW.first_seed + 4 * 6, LOW.first_seed + 5 * 6)
    changed = [not torch.equal(one, other) for one, other in zip(spoiled.pixels, clean.pixels, strict=True)]
    assert changed == [condition_at(seed, 0.5) is not None for seed in seeds]
    assert 0 < sum(changed) < 6
    assert torch.equal(spoiled.symbols, clean.symbols)


def test_conditions_are_as_frequent_as_asked_and_of_every_kind() -> None:
    found = [condition_at(seed, 0.4) for seed in range(2000)]
    labels = [one.label for one in found if one is not None]
    assert len(labels) / len(found) == pytest.approx(0.4, abs=0.03)
    assert len(set(labels)) == 27
    assert not any(condition_at(seed, 0.0) for seed in range(100))


def test_scenes_to_train_on_are_of_no_split() -> None:
    assert first_seed("0") == 0 and first_seed("8000000") == 8_000_000
    for seed in ("-1", "9000000", "20000000", "77000000"):
        with pytest.raises(argparse.ArgumentTypeError, match="begin between 0 and 8000000"):
            first_seed(seed)
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 1"):
        share("1.5")
