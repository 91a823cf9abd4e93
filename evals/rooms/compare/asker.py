"""Ask the questions of some frames under any setting: a frame is prepared once, and read once per setting.

One frame is encoded at a time, as a request is; the language model reads several. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from evals.rooms.compare.batched_answers import answer_frames
from evals.rooms.compare.settings import Setting
from evals.rooms.purity import patch_ids, purity
from evals.rooms.splits import Example
from evals.rooms.steering import spatial_from
from tosa import MergePlan, Tokens
from vlm import ViTAdapter, Vlm, adapt, encode, features, pixel_values

MAX_NEW_TOKENS = 8
TOGETHER = 8  # frames that the language model reads at once; answers could depend on it in the last bit


@dataclass
class Outcome:
    """What came of a setting, a list per frame in the order of the split."""

    answers: list[list[str]] = field(default_factory=list)
    purity: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Seen:
    """A frame as the encoder takes it, and what its patches show."""

    example: Example
    pixels: Tensor
    ids: Tensor
    adapter: ViTAdapter


class Asker:
    """Holds the frames of some batches of a split, and the spatial tokens that were asked for once."""

    def __init__(
        self, vlm: Vlm, split: Sequence[Example], batches: Sequence[Sequence[int]], estimator: str
    ) -> None:
        self._vlm, self._split, self._estimator = vlm, split, estimator
        adapter = adapt(vlm.tower)
        self._batches = [[_see(vlm, adapter, split[frame]) for frame in batch] for batch in batches]
        self._sources: dict[tuple[str, str], Callable[[Example], Tensor]] = {}
        self._spatial: dict[tuple[str, str, int], Tensor] = {}

    @torch.inference_mode()
    def ask(self, setting: Setting, plan: MergePlan) -> list[Outcome]:
        """Ask every question of these frames; an outcome per batch."""
        return [self._ask(setting, plan, batch) for batch in self._batches]

    def _ask(self, setting: Setting, plan: MergePlan, batch: Sequence[_Seen]) -> Outcome:
        outcome, read = Outcome(), list[Tensor]()
        for seen in batch:
            steering = self._steering(setting, seen.example) if plan.needs_spatial else None
            tokens = encode(seen.adapter, seen.pixels, plan, steering)
            read.append(features(self._vlm, tokens))
            outcome.purity.append(purity(tokens.source[0].numpy(), seen.ids.numpy()))
        questions = [[asked.question for asked in seen.example.questions] for seen in batch]
        outcome.answers = answer_frames(self._vlm, torch.stack(read), questions, MAX_NEW_TOKENS)
        return outcome

    def _steering(self, setting: Setting, example: Example) -> Tensor:
        assert setting.depth is not None, "a setting whose plan needs spatial tokens says where from"
        source = (setting.depth, setting.spec.spatial_kernel)
        if source not in self._sources:
            self._sources[source] = spatial_from(self._vlm, *source, self._split, self._estimator)
        key = (*source, example.scene.seed)
        if key not in self._spatial:
            self._spatial[key] = self._sources[source](example)
        return self._spatial[key]


def batches_of(frames: int) -> list[list[int]]:
    """Say which frames are read together: the same whoever asks, so that answers are."""
    return [list(range(first, min(first + TOGETHER, frames))) for first in range(0, frames, TOGETHER)]


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Put the outcomes of batches behind each other."""
    whole = Outcome()
    for outcome in outcomes:
        whole.answers += outcome.answers
        whole.purity += outcome.purity
    return whole


@torch.inference_mode()
def _see(vlm: Vlm, adapter: ViTAdapter, example: Example) -> _Seen:
    pixels = pixel_values(vlm, [Image.fromarray(example.frame.rgb)])
    ids = torch.from_numpy(patch_ids(example.frame, vlm.shape.grid))
    return _Seen(example, pixels, ids, remembering(adapter, pixels))


def remembering(adapter: ViTAdapter, pixels: Tensor) -> ViTAdapter:
    """Return an adapter for these pictures only, which does once what every setting begins with.

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
