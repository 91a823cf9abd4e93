"""Answer the questions about some frames under any variant; each frame is prepared once for all variants.

Frames are encoded one at a time, as requests are; the language model reads several at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from evals.rooms.compare.batched_answers import answer_frames
from evals.rooms.compare.variants import Variant
from evals.rooms.depth_sources import spatial_from
from evals.rooms.purity import patch_ids, purity
from evals.rooms.splits import Example
from tosa import MergePlan, Tokens
from vlm import ViTAdapter, Vlm, adapt, encode, features, pixel_values

MAX_NEW_TOKENS = 8
TOGETHER = 8  # frames per batch of the language model; it can change answers in the last bit


@dataclass
class VariantResult:
    """The answers and the purity of one variant, one entry per frame in the order of the split."""

    answers: list[list[str]] = field(default_factory=list)
    purity: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Frame:
    """A frame prepared for the encoder, with the thing that each patch shows."""

    example: Example
    pixels: Tensor
    ids: Tensor
    adapter: ViTAdapter


class Evaluator:
    """Evaluate variants on some batches of a split; spatial tokens are computed once and kept."""

    def __init__(
        self, vlm: Vlm, split: Sequence[Example], batches: Sequence[Sequence[int]], estimator: str
    ) -> None:
        self._vlm, self._split, self._estimator = vlm, split, estimator
        adapter = adapt(vlm.tower)
        self._batches = [[_prepare(vlm, adapter, split[frame]) for frame in batch] for batch in batches]
        self._sources: dict[tuple[str, str], Callable[[Example], Tensor]] = {}
        self._spatial: dict[tuple[str, str, int], Tensor] = {}

    @torch.inference_mode()
    def evaluate(self, variant: Variant, plan: MergePlan) -> list[VariantResult]:
        """Answer every question about these frames; return one result per batch."""
        return [self._evaluate(variant, plan, batch) for batch in self._batches]

    def _evaluate(self, variant: Variant, plan: MergePlan, batch: Sequence[_Frame]) -> VariantResult:
        result, read = VariantResult(), list[Tensor]()
        for frame in batch:
            spatial = self._spatial_tokens(variant, frame.example) if plan.needs_spatial else None
            tokens = encode(frame.adapter, frame.pixels, plan, spatial)
            read.append(features(self._vlm, tokens))
            result.purity.append(purity(tokens.source[0].numpy(), frame.ids.numpy()))
        questions = [[question.question for question in frame.example.questions] for frame in batch]
        result.answers = answer_frames(self._vlm, torch.stack(read), questions, MAX_NEW_TOKENS)
        return result

    def _spatial_tokens(self, variant: Variant, example: Example) -> Tensor:
        assert variant.depth is not None, "a variant whose plan needs spatial tokens has a source of depth"
        source = (variant.depth, variant.spec.spatial_kernel)
        if source not in self._sources:
            self._sources[source] = spatial_from(self._vlm, *source, self._split, self._estimator)
        key = (*source, example.scene.seed)
        if key not in self._spatial:
            self._spatial[key] = self._sources[source](example)
        return self._spatial[key]


def batches_of(frames: int) -> list[list[int]]:
    """Group frame numbers into batches, which are the same for any number of processes."""
    return [list(range(first, min(first + TOGETHER, frames))) for first in range(0, frames, TOGETHER)]


def stretches(frames: int, at_once: int) -> list[tuple[int, int]]:
    """Divide frame numbers into stretches of whole batches: the first and the end of each."""
    step = -(-at_once // TOGETHER) * TOGETHER
    return [(first, min(first + step, frames)) for first in range(0, frames, step)]


def joined(
    one: Mapping[Variant, VariantResult], other: Mapping[Variant, VariantResult]
) -> dict[Variant, VariantResult]:
    """Put the results of the same variants on two stretches of frames together."""
    return {variant: concatenated([result, other[variant]]) for variant, result in one.items()}


def concatenated(results: Sequence[VariantResult]) -> VariantResult:
    """Concatenate the results of batches."""
    whole = VariantResult()
    for result in results:
        whole.answers += result.answers
        whole.purity += result.purity
    return whole


@torch.inference_mode()
def _prepare(vlm: Vlm, adapter: ViTAdapter, example: Example) -> _Frame:
    pixels = pixel_values(vlm, [Image.fromarray(example.frame.rgb)])
    ids = torch.from_numpy(patch_ids(example.frame, vlm.shape.grid))
    return _Frame(example, pixels, ids, remembering(adapter, pixels))


def remembering(adapter: ViTAdapter, pixels: Tensor) -> ViTAdapter:
    """Return an adapter for these images only, which computes once what all variants share.

    That is the embedding and, unless tokens merge before it, the attention of the first layer.
    """
    first, embedded, attended = adapter.blocks[0], adapter.embed(pixels), list[tuple[Tensor, Tensor]]()

    def attend(x: Tensor, tokens: Tokens, size: Tensor | None) -> tuple[Tensor, Tensor]:
        if tokens.x is not embedded or size is not None:
            return first.attend(x, tokens, size)
        if not attended:
            attended.append(first.attend(x, tokens, size))
        return attended[0]

    return replace(
        adapter, embed=lambda _: embedded, blocks=(replace(first, attend=attend), *adapter.blocks[1:])
    )
