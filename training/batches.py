"""Training batches of RoomQA: frames, symbols and packed questions.

Batch `step` depends only on the recipe and `step`, so a resumed run gets the same batches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from depth.codes import depth_codes
from depth.depth_map import metric_depth
from evals.rooms import Question, make_plain_scene, make_scene, questions, render
from service.roomqa.condition import CONDITIONS, STRENGTHS, Condition
from service.roomqa.depth_cameras import sensed_depth
from service.roomqa.spoil import spoil
from training.model import END, START
from training.symbols import ANCHOR, FACTS, PLACE, THING, WIDTH, patch_symbols

IGNORE = -100


@dataclass(frozen=True)
class Packed:
    """Questions behind one visual prefix, all [B, T]: ids, segment (-1 = padding), offset in it, labels."""

    ids: Tensor
    segment: Tensor
    offset: Tensor
    labels: Tensor

    def to(self, device: str) -> Packed:
        """Move every tensor."""
        return Packed(*(tensor.to(device) for tensor in (self.ids, self.segment, self.offset, self.labels)))


@dataclass(frozen=True)
class Batch:
    """symbols [B, P, WIDTH]; with images also pixels [B, 3, S, S] uint8 and depth codes z [B, h, w]."""

    symbols: Tensor
    pixels: Tensor | None
    z: Tensor | None
    packed: Packed | None

    def to(self, device: str) -> Batch:
        """Move every tensor."""
        pixels, z, packed = self.pixels, self.z, self.packed
        return Batch(
            self.symbols.to(device),
            None if pixels is None else pixels.to(device),
            None if z is None else z.to(device),
            None if packed is None else packed.to(device),
        )


@dataclass(frozen=True)
class Recipe:
    """The recipe of a batch: `size` pixels a frame, `grid` patches a side, `per_scene` questions (0 = none).

    types: types of question, each as often as named; all equally often by default. plain: bare rooms and
    exact depth; furnished ones otherwise, every other frame with the depth of a sensor. conditions_share: of
    the frames, how many are spoiled, each by a condition of its seed, and measured by a sensor.
    """

    size: int
    grid: int
    scenes: int
    per_scene: int
    pixels: bool
    first_seed: int
    types: tuple[str, ...] | None = None
    plain: bool = False
    conditions_share: float = 0.0


class RoomBatches(Dataset[Batch]):
    """Batches by step number, rendered on access."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, steps: range) -> None:
        self.recipe, self.tokenizer, self.steps = recipe, tokenizer, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Batch:
        recipe, step = self.recipe, self.steps[index]
        first = recipe.first_seed + step * recipe.scenes
        symbols, pixels, z, chosen = [], [], [], []
        for seed in range(first, first + recipe.scenes):
            scene = make_plain_scene(seed) if recipe.plain else make_scene(seed)
            frame = render(scene, recipe.size)
            symbols.append(patch_symbols(scene, frame, recipe.grid))
            if recipe.pixels:
                condition = condition_at(seed, recipe.conditions_share)
                rgb = frame.rgb if condition is None else spoil(frame.rgb, condition, seed, frame.depth)
                pixels.append(rgb)
                is_exact = condition is None and (recipe.plain or seed % 2 == 1)
                depth_m = frame.depth if is_exact else sensed_depth(frame.depth, seed)
                z.append(depth_codes(metric_depth(depth_m), (recipe.grid, recipe.grid), recipe.grid))
            if recipe.per_scene:
                chosen.append(questions(scene, frame, seed, recipe.per_scene, recipe.types))
        return Batch(
            torch.from_numpy(np.stack(symbols)),
            torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) if pixels else None,
            torch.stack(z) if z else None,
            pack(chosen, self.tokenizer) if chosen else None,
        )


def condition_at(seed: int, share: float) -> Condition | None:
    """Draw what spoils the frame of a seed, of all conditions and strengths; None for most frames or all."""
    draw = random.Random(f"condition {seed}")
    if draw.random() >= share:
        return None
    return Condition(draw.choice(CONDITIONS), draw.choice(STRENGTHS))


def loader(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, steps: range, workers: int = 1
) -> Iterator[Batch]:
    """Iterate over the batches of `steps`, rendered in background processes."""
    data = RoomBatches(recipe, tokenizer, steps)
    return iter(
        DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=6 if workers else None)
    )


def two_phases(
    first: Recipe, second: Recipe, switch: int, tokenizer: PreTrainedTokenizerFast, workers: int
) -> Callable[[range], Iterator[Batch]]:
    """Make a source of batches that follows `first` before step `switch` and `second` from it on."""

    def batches(steps: range) -> Iterator[Batch]:
        yield from loader(first, tokenizer, range(steps.start, min(steps.stop, switch)), workers)
        yield from loader(second, tokenizer, range(max(steps.start, switch), steps.stop), workers)

    return batches


def pack(scenes: Sequence[Sequence[Question]], tokenizer: PreTrainedTokenizerFast) -> Packed:
    """Concatenate each scene's questions; each is its own segment, with positions counted from 0."""
    start, end = (int(tokenizer.vocab[token]) for token in (START, END))
    rows = [[_encode(question, tokenizer, start, end) for question in scene] for scene in scenes]
    length = max(sum(len(ids) for ids, _ in row) for row in rows)
    shape = (len(rows), length)
    ids, labels = np.full(shape, end), np.full(shape, IGNORE)
    segment, offset = np.full(shape, -1), np.zeros(shape, np.int64)
    for index, row in enumerate(rows):
        at = 0
        for number, (tokens, target) in enumerate(row):
            span = slice(at, at + len(tokens))
            ids[index, span], labels[index, span] = tokens, target
            segment[index, span], offset[index, span] = number, np.arange(len(tokens))
            at = span.stop
    return Packed(*(torch.from_numpy(array.astype(np.int64)) for array in (ids, segment, offset, labels)))


def _encode(
    question: Question, tokenizer: PreTrainedTokenizerFast, start: int, end: int
) -> tuple[list[int], list[int]]:
    """Tokens of question and answer, and their labels (only the answer and the end are predicted)."""
    prompt = tokenizer.encode(question.question, add_special_tokens=False)
    answer = tokenizer.encode(question.answer, add_special_tokens=False)
    return [*prompt, start, *answer], [*[IGNORE] * len(prompt), *answer, end]


def thin(symbols: Tensor, keep: int, generator: torch.Generator) -> Tensor:
    """Keep some patches of each frame, anchors first, then mostly things: [B, keep, WIDTH], raster order."""
    anchor, thing = symbols[..., ANCHOR].squeeze(-1), symbols[..., THING].squeeze(-1)
    score = torch.rand(symbols.shape[:2], generator=generator) + 10 * anchor + 0.4 * thing
    chosen = score.topk(keep, dim=1).indices.sort(1).values
    return symbols.gather(1, chosen.unsqueeze(-1).expand(-1, -1, WIDTH))


def blur(symbols: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise like a tower's to facts and places, so that the model does not rely on exact numbers."""
    spread = torch.zeros(WIDTH)
    spread[PLACE] = torch.tensor([0.0, 0.0, 0.04])
    spread[FACTS] = torch.tensor([0.03, 0.03, 0.05, 0.04, 0.08, 0.08, 0.06])
    strength = torch.rand(symbols.shape[0], 1, 1, generator=generator) * symbols[..., THING]
    noise = torch.randn(symbols.shape, generator=generator) * spread * strength
    soft = noise + symbols
    soft[..., ANCHOR] *= 1 - 0.3 * torch.rand(symbols.shape[:2], generator=generator).unsqueeze(-1)
    return soft
