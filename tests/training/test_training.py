"""Training: symbols tell the truth, packed questions do not see each other, a resumed run is the same run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evals.rooms import Question, make_scene, render
from service.roomqa.questions import World
from tosa import MergeSpec, Tokens, make_plan
from training.batches import Batch, Packed, Recipe, RoomBatches, blur, pack, thin, two_phases
from training.language import question_loss
from training.loop import Plan, train
from training.model import DenseHeads, SymbolCode, build_config, build_model, build_tokenizer
from training.stage3_joint import Parts, _represented, joint_loss
from training.symbols import ANCHOR, COLOUR, PLACE, SHAPE, THING, WIDTH, patch_symbols
from vlm.families import family_of


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.manual_seed(0)
    return Parts(build_model(build_config(build_tokenizer()), seed=0), SymbolCode(), DenseHeads())


@pytest.mark.parametrize("size", [96, 384])
def test_every_thing_that_counts_has_one_anchor(size: int) -> None:
    for seed in range(15):
        scene = make_scene(seed)
        frame = render(scene, size)
        rows = patch_symbols(scene, frame, 24)
        seen = World(scene, frame).seen
        anchors = rows[rows[:, ANCHOR.start] > 0]
        assert len(anchors) == len(seen)
        assert (anchors[:, COLOUR].sum(1) == 1).all() and (anchors[:, SHAPE].sum(1) == 1).all()


@pytest.mark.long
def test_batches_repeat() -> None:
    tokenizer = build_tokenizer()
    recipe = Recipe(96, 24, scenes=2, per_scene=4, pixels=True, first_seed=0)
    one, again = RoomBatches(recipe, tokenizer, range(5))[3], RoomBatches(recipe, tokenizer, range(3, 5))[0]
    assert one.pixels is not None and again.pixels is not None and one.packed and again.packed
    assert torch.equal(one.pixels, again.pixels) and torch.equal(one.packed.ids, again.packed.ids)


def test_two_phases_switch_where_they_should() -> None:
    coarse = Recipe(96, 12, scenes=1, per_scene=0, pixels=False, first_seed=0)
    fine = Recipe(96, 24, scenes=1, per_scene=0, pixels=False, first_seed=100)
    batches = two_phases(coarse, fine, 3, build_tokenizer(), workers=0)
    patches = [batch.symbols.shape[1] for batch in batches(range(1, 5))]
    assert patches == [144, 144, 576, 576]
    assert [batch.symbols.shape[1] for batch in batches(range(3, 4))] == [576]
    (resumed,), whole = batches(range(4, 5)), list(batches(range(5)))
    assert torch.equal(resumed.symbols, whole[4].symbols)


def test_no_word_of_roomqa_is_unknown() -> None:
    tokenizer = build_tokenizer()
    recipe = Recipe(96, 24, scenes=40, per_scene=12, pixels=False, first_seed=20_000_000)
    packed = RoomBatches(recipe, tokenizer, range(1))[0].packed
    assert packed is not None and not packed.ids.eq(tokenizer.vocab["<unk>"]).any()


def test_packed_questions_do_not_see_each_other(parts: Parts) -> None:
    """The loss of three questions packed together is the mean of their own losses."""
    tokenizer = build_tokenizer()
    asked = [
        Question("How many cubes are there?", "2", "count"),
        Question("Is there a red ball?", "yes", "existence"),
        Question("Where is the blue cone?", "left", "where"),
    ]
    visual = torch.randn(1, 9, 192)
    with torch.no_grad():
        alone = [question_loss(parts.model, visual, pack([[question]], tokenizer))[0] for question in asked]
        together, _ = question_loss(parts.model, visual, pack([asked], tokenizer))
        seeing = pack([asked], tokenizer)
        leaky = Packed(seeing.ids, torch.zeros_like(seeing.segment), seeing.offset, seeing.labels)
        leaked, _ = question_loss(parts.model, visual, leaky)
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), abs=1e-4)
    assert abs(leaked.item() - together.item()) > 1e-3  # the check can fail


def test_thinning_keeps_every_anchor_and_the_order() -> None:
    scene = make_scene(5)
    symbols = torch.from_numpy(patch_symbols(scene, render(scene, 96), 24))[None]
    generator = torch.Generator().manual_seed(0)
    kept = thin(symbols, 60, generator)
    assert kept.shape == (1, 60, WIDTH)
    assert kept[..., ANCHOR].sum() == symbols[..., ANCHOR].sum()
    place = kept[0, :, PLACE.start + 1] * 100 + kept[0, :, PLACE.start]
    assert (place.diff() > 0).all()
    blurred = blur(kept, generator)
    assert torch.equal(blurred[..., COLOUR], kept[..., COLOUR]) and not torch.equal(blurred, kept)


def test_a_merged_token_speaks_for_its_anchor() -> None:
    symbols = torch.zeros(1, 4, WIDTH)
    symbols[0, 1, THING] = 1
    symbols[0, 2, THING] = 1
    symbols[0, 2, ANCHOR] = 1
    symbols[..., 18] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    tokens = Tokens(torch.zeros(1, 2, 8), torch.tensor([[3.0, 1.0]]), torch.tensor([[0, 0, 0, 1]]), None)
    assert _represented(symbols, tokens)[0, :, 18].tolist() == [2.0, 3.0]


@pytest.mark.parametrize("spec", [MergeSpec(), MergeSpec(method="tosa", keep_ratio=0.25)])
def test_joint_loss_reaches_every_part(parts: Parts, spec: MergeSpec) -> None:
    recipe = Recipe(384, 24, scenes=1, per_scene=4, pixels=True, first_seed=11)
    batch = RoomBatches(recipe, build_tokenizer(), range(1))[0]
    parts.modules().zero_grad()
    family = family_of(parts.model.config)
    plan = make_plan(spec, family.shape(family.whole(family.view_px)))
    loss, measures = joint_loss(parts, batch, plan)
    loss.backward()
    core = parts.model.model
    for weight in (
        core.vision_tower.encoder.layers[0].mlp.fc1.weight,
        core.multi_modal_projector.linear_1.weight,
        core.language_model.layers[0].mlp.up_proj.weight,
        core.image_newline,
    ):
        assert weight.grad is not None and weight.grad.abs().sum() > 0
    assert ("right" if spec.method == "none" else "right_merged") in measures


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    def run(out: Path, steps: int) -> nn.Linear:
        torch.manual_seed(1)
        layer = nn.Linear(4, 1)

        def batches(wanted: range) -> list[Batch]:
            rows = [torch.randn(8, 4, generator=torch.Generator().manual_seed(step)) for step in wanted]
            return [Batch(row, None, None, None) for row in rows]

        def step_loss(batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
            return (layer(batch.symbols) - batch.symbols.sum(1, keepdim=True)).square().mean(), {}

        plan = Plan(out, steps, rate=0.1, warmup=1, decay_share=0, save_every=5)
        train(plan, nn.ModuleDict({"layer": layer}), batches, step_loss)
        return layer

    whole = run(tmp_path / "whole", 20)
    run(tmp_path / "broken", 10)
    resumed = run(tmp_path / "broken", 20)
    assert torch.equal(whole.weight, resumed.weight)
