"""Stage 4: fine-tune a model of plain rooms on furnished ones, with more words and more things.

python -m training.stage4_furnished --start runs/plain --out runs/stage4
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipVisionModel,
)

from evals.rooms import TRAIN, TYPES
from tosa import MergePlan, MergeSpec, make_plan, spatial_tokens
from training.batches import Batch, Recipe, two_phases
from training.language import question_loss
from training.loop import Plan, arguments, train
from training.model import GRID, IMAGE_PX, PATCH_PX, DenseHeads, build_config, build_model, build_tokenizer
from training.tower import dense_loss, normalise
from vlm.adapters import ViTAdapter, adapt
from vlm.vision import encode

LOW_PX = 256
APART = 1_000_000  # seeds between the recipes; a run takes less than a tenth of them
HARDER = ("colour", "distance", "nearer/farther", "shape", "size")  # twice as frequent; counting six times
HIGH = Recipe(
    IMAGE_PX,
    GRID,
    scenes=16,
    per_scene=20,
    pixels=True,
    first_seed=TRAIN.start + 8_000_000,
    types=(*TYPES, *HARDER, *["count"] * 5),
)
LOW = replace(HIGH, size=LOW_PX, grid=LOW_PX // PATCH_PX, first_seed=TRAIN.start + 7_000_000)
HEADS_ALONE = 100  # steps in which the fresh dense heads learn without moving the tower
KEEP_RATIOS = (0.5, 0.35, 0.25)
METHODS = ("tome", "tosa")  # equal, so that the comparison favours neither
PLAIN_SHARE = 0.3  # of the steps, without merging


def main() -> None:
    args = arguments(__doc__, "runs/stage4", steps=2700, rate=4e-4, seed=5)
    args.add_argument("--start", type=Path, default=Path("runs/plain"), help="checkpoint of plain rooms")
    args.add_argument("--low-steps", type=int, default=1600, help="steps at the low resolution")
    args.add_argument("--plain-share", type=float, default=PLAIN_SHARE, help="of the steps, without merging")
    args.add_argument("--conditions-share", type=share, default=0.0, help="of the frames, in bad conditions")
    args.add_argument("--first-seed", type=first_seed, help="of the scenes, for a run on other ones")
    given = args.parse_args()
    torch.set_num_threads(given.threads)
    low, high = recipes(given.conditions_share, given.first_seed)

    tokenizer = build_tokenizer()
    model = grown(given.start, tokenizer, given.seed)
    heads = DenseHeads()
    parts = nn.ModuleDict({"model": model, "heads": heads}).to(given.device)

    def step_loss(batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        adapter = at_grid(model.model.vision_tower, (low if step < given.low_steps else high).grid)
        plan = make_plan(
            draw_spec(random.Random(given.seed * 1_000_003 + step), given.plain_share), adapter.shape
        )
        return furnished_loss(model, heads, adapter, batch.to(given.device), plan, step < HEADS_ALONE)

    plan = Plan(given.out, given.steps, given.rate, given.until, decay_share=0.45, save_every=100)
    train(plan, parts, two_phases(low, high, given.low_steps, tokenizer, given.workers), step_loss)


def recipes(conditions_share: float, first: int | None = None) -> tuple[Recipe, Recipe]:
    """Return the recipes at both resolutions, with some frames spoiled, and with scenes from another seed on.

    The second begins a million seeds later, as it does by default.
    """
    seeds = (LOW.first_seed, HIGH.first_seed) if first is None else (first, first + APART)
    return (
        replace(LOW, first_seed=seeds[0], conditions_share=conditions_share),
        replace(HIGH, first_seed=seeds[1], conditions_share=conditions_share),
    )


def share(text: str) -> float:
    """Read a share, from 0 to 1. Raises ArgumentTypeError."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("a share is from 0 to 1")
    return value


def first_seed(text: str) -> int:
    """Read the first seed of a run, whose scenes are all in TRAIN: no split may be trained on.

    Raises ArgumentTypeError.
    """
    last = TRAIN.stop - 2 * APART
    if int(text) not in range(TRAIN.start, last + 1):
        raise argparse.ArgumentTypeError(f"scenes to train on begin between {TRAIN.start} and {last}")
    return int(text)


def grown(
    start: Path, tokenizer: PreTrainedTokenizerFast, seed: int
) -> LlavaOnevisionForConditionalGeneration:
    """Load a checkpoint and extend it to the words of `tokenizer`; words it had keep their embeddings."""
    old = LlavaOnevisionForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    known = AutoTokenizer.from_pretrained(start).get_vocab()
    model = build_model(build_config(tokenizer), seed)
    state, name = old.state_dict(), "model.language_model.embed_tokens.weight"
    rows = model.state_dict()[name].clone()
    for word, index in tokenizer.get_vocab().items():
        if word in known:
            rows[index] = state[name][known[word]]
    model.load_state_dict(state | {name: rows, "lm_head.weight": rows})
    model.tie_weights()
    return model


def at_grid(tower: SiglipVisionModel, grid: int) -> ViTAdapter:
    """Describe the tower at another resolution, its positions interpolated."""
    adapter = adapt(tower)
    shape = replace(adapter.shape, grid=(grid, grid))
    return replace(adapter, shape=shape, embed=partial(tower.embeddings, interpolate_pos_encoding=True))


def draw_spec(draw: random.Random, plain_share: float = PLAIN_SHARE) -> MergeSpec:
    """Choose how a step merges."""
    if draw.random() < plain_share:
        return MergeSpec()
    return MergeSpec(method=draw.choice(METHODS), keep_ratio=draw.choice(KEEP_RATIOS))


def furnished_loss(
    model: LlavaOnevisionForConditionalGeneration,
    heads: DenseHeads,
    adapter: ViTAdapter,
    batch: Batch,
    plan: MergePlan,
    heads_alone: bool,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of the questions, and on unmerged steps of the dense heads."""
    assert batch.pixels is not None and batch.z is not None and batch.packed is not None
    core, merged = model.model, plan.method != "none"
    with torch.autocast(batch.pixels.device.type, torch.bfloat16):
        spatial = spatial_tokens(batch.z, levels=plan.shape.grid[0])
        tokens = encode(adapter, normalise(batch.pixels), plan, spatial)
        visual = core.multi_modal_projector(tokens.x)
        loss, right = question_loss(model, visual, batch.packed)
    measures = {"right_merged" if merged else "right": right.item()}
    if not merged:
        hidden = tokens.x.float()
        dense, seen = dense_loss(heads(hidden.detach() if heads_alone else hidden), batch.symbols)
        loss = loss + 0.25 * dense
        measures |= {"anchor_f1": seen["anchor_f1"], "shape": seen["shape"]}
    return loss, measures


if __name__ == "__main__":
    main()
