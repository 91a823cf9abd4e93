"""Stage 5: the language model learns walks, eight frames in one budget, and still answers about single ones.

python -m training.stage5_walks --out runs/stage5
Tower and projector stay as they are: their outputs are computed once and kept. Across frames, tokens merge by
a method drawn for each step. The control never sees that: python -m training.stage5_walks --merge-frames none
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from evals.rooms import TRAIN
from evals.rooms.walks import TRAIN_WALKS, walk_questions
from evals.rooms.walks.towers import Towers
from tosa.frames import FrameRule, MergeFrames, merge_frames
from training.batches import Packed, pack
from training.language import question_loss
from training.loop import Plan, arguments, train
from training.model import build_tokenizer
from training.stage4_furnished import grown
from training.walk_frames import SINGLE_TOKENS, EncodedWalk, WalkFrames
from training.walk_words import WALK_WORDS
from vlm import load_vlm
from vlm.load import EMBEDDED

BUDGET = 144
ACROSS: tuple[MergeFrames, ...] = ("none", "seen", "cover")
FIRST_SCENE = TRAIN.start + 9_000_000


@dataclass(frozen=True, eq=False)
class Read:
    """What the language model reads: features [B, T, D], where separators stand [B, T], and questions.

    The separator behind the last token is not in it: the loss adds it.
    """

    features: Tensor
    is_separator: Tensor
    packed: Packed


@dataclass(frozen=True, eq=False)
class WalkBatch:
    """Walks, merged by one method, and single frames."""

    method: MergeFrames
    walks: Read
    scenes: Read


@dataclass(frozen=True)
class Recipe:
    """How many walks and scenes are in a step, out of how many, with how many questions each."""

    walks: int = 8
    scenes: int = 8
    pool: int = 1000
    per_walk: int = 10
    per_scene: int = 12
    methods: tuple[MergeFrames, ...] = ACROSS
    seed: int = 6


def main() -> None:
    args = arguments(__doc__, "runs/stage5", steps=1500, rate=3e-4, seed=6)
    args.add_argument("--start", type=Path, default=EMBEDDED["room-tiny"], help="checkpoint of stage 4")
    args.add_argument("--kept", type=Path, default=Path("runs/walk_frames"), help="folder of encoded frames")
    args.add_argument("--pool", type=int, default=Recipe.pool, help="walks to learn from, and as many scenes")
    args.add_argument("--walks", type=int, default=Recipe.walks, help="in a step")
    args.add_argument("--scenes", type=int, default=Recipe.scenes, help="in a step")
    args.add_argument("--merge-frames", nargs="+", choices=ACROSS, default=ACROSS)
    given = args.parse_args()
    torch.set_num_threads(given.threads)
    vlm = load_vlm(str(given.start))
    frames = WalkFrames(Towers(vlm), vlm.shape.grid[0], given.kept)
    tokenizer = build_tokenizer(WALK_WORDS)
    model = learning_language(grown(given.start, tokenizer, given.seed))
    recipe = Recipe(given.walks, given.scenes, given.pool, methods=tuple(given.merge_frames), seed=given.seed)
    plan = Plan(given.out, given.steps, given.rate, given.until, save_every=50)
    parts = nn.ModuleDict({"model": model}).to(given.device)
    train(plan, parts, batches(recipe, frames, tokenizer), lambda batch, step: walk_loss(model, batch))


def learning_language(
    model: LlavaOnevisionForConditionalGeneration,
) -> LlavaOnevisionForConditionalGeneration:
    """Let only the language model and the separator learn."""
    for part in (model.model.vision_tower, model.model.multi_modal_projector):
        part.requires_grad_(False)
    return model


def batches(
    recipe: Recipe, frames: WalkFrames, tokenizer: PreTrainedTokenizerFast
) -> Callable[[range], Iterator[WalkBatch]]:
    """Make a source of batches that depend on the recipe and the step only; the pool comes round again."""

    def source(steps: range) -> Iterator[WalkBatch]:
        for step in steps:
            yield batch_of(recipe, frames, tokenizer, step)

    return source


def batch_of(recipe: Recipe, frames: WalkFrames, tokenizer: PreTrainedTokenizerFast, step: int) -> WalkBatch:
    """Return the batch of a step; a walk that comes again is asked other questions."""
    draw = random.Random(recipe.seed * 1_000_003 + step)
    method, single = draw.choice(recipe.methods), draw.choice(SINGLE_TOKENS)
    read, asked = [], []
    for at in range(recipe.walks):
        number = step * recipe.walks + at
        walk = frames.walk(TRAIN_WALKS[number % recipe.pool])
        read.append(merged(walk, method))
        asked.append(walk_questions(walk.seen, number, recipe.per_walk))
    scenes = [
        frames.scene(FIRST_SCENE + number % recipe.pool, number, recipe.per_scene)
        for number in range(step * recipe.scenes, (step + 1) * recipe.scenes)
    ]
    features = torch.stack([one.tokens[single] for one in scenes])
    return WalkBatch(
        method,
        Read(
            torch.stack([features for features, _ in read]),
            torch.stack([is_separator for _, is_separator in read]),
            pack(asked, tokenizer),
        ),
        Read(
            features,
            torch.zeros(features.shape[:2], dtype=torch.bool),
            pack([one.questions for one in scenes], tokenizer),
        ),
    )


def merged(walk: EncodedWalk, method: MergeFrames) -> tuple[Tensor, Tensor]:
    """Return features [BUDGET - 1, D] of a walk, and where separators are. none: frames are merged alone."""
    if method == "none":
        return in_runs(list(walk.alone))
    kept = merge_frames(walk.frames, FrameRule(method, BUDGET))
    assert kept is not None, "a walk has frames"
    return in_runs(torch.split(kept.features, list(kept.runs)))


def in_runs(runs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Put a separator behind every run but the last, whose separator the loss adds."""
    features = torch.cat([torch.cat([run, run.new_zeros(1, run.shape[1])]) for run in runs])[:-1]
    is_separator = torch.cat([torch.tensor([False] * len(run) + [True]) for run in runs])[:-1]
    return features, is_separator


def walk_loss(
    model: LlavaOnevisionForConditionalGeneration, batch: WalkBatch
) -> tuple[Tensor, dict[str, float]]:
    """Loss of the questions about walks and about single frames, and the share of right tokens of each."""
    device = str(model.device)
    losses, right = [], []
    for read in (batch.walks, batch.scenes):
        separator = model.model.image_newline.expand_as(read.features)
        visual = torch.where(read.is_separator[..., None].to(device), separator, read.features.to(device))
        loss, share = question_loss(model, visual, read.packed.to(device))
        losses.append(loss)
        right.append(share.item())
    return losses[0] + losses[1], {f"right_{batch.method}": right[0], "right_single": right[1]}


if __name__ == "__main__":
    main()
