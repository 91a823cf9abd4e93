"""Frames of walks through the tower: kept on disk, because every method across frames begins with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from depth import metric_depth
from evals.inputs import spatial_of
from evals.rooms.walks.splits import WalkExample
from tosa import MergePlan, MergeSpec, make_plan
from vlm import Vlm, adapt, encode, features, pixel_values


class Towers:
    """Encode frames with a model. kept: folder of what was encoded, None to keep nothing."""

    def __init__(self, vlm: Vlm, kept: Path | None = None) -> None:
        self._vlm, self._adapter = vlm, adapt(vlm.tower)
        self._kept = None if kept is None else kept / vlm.revision
        if self._kept is not None:
            self._kept.mkdir(parents=True, exist_ok=True)

    def plan(self, method: str, tokens: int) -> MergePlan:
        """Plan a method that leaves so many tokens of a frame."""
        whole = self._vlm.shape.patches
        if tokens == whole:
            return make_plan(MergeSpec(), self._vlm.shape)
        return make_plan(MergeSpec(method, keep_ratio=tokens / whole), self._vlm.shape)

    def inside(self, inside: str) -> MergePlan:
        """Plan what INSIDE names."""
        method, _, ratio = inside.partition(" ")
        return self.plan(method, round(float(ratio or 1) * self._vlm.shape.patches))

    @torch.inference_mode()
    def encode(self, example: WalkExample, frame: int, plan: MergePlan) -> tuple[Tensor, Tensor]:
        """Return features [N + 1, D] of a frame, the separator last, and the token of each patch [P]."""
        view = example.frames[frame]
        pixels = pixel_values(self._vlm, [Image.fromarray(view.rgb)])
        spatial = spatial_of(self._vlm, metric_depth(view.depth)) if plan.needs_spatial else None
        tokens = encode(self._adapter, pixels, plan, spatial, track_source=True)
        return features(self._vlm, tokens)[0], tokens.source[0]

    def walk(self, example: WalkExample, frames: Sequence[int], inside: str) -> list[tuple[Tensor, Tensor]]:
        """Return what `encode` does of some frames; all frames of the walk are kept together."""
        plan = self.inside(inside)
        if self._kept is None:
            return [self.encode(example, at, plan) for at in frames]
        moved = "-moved" if example.walk.moves else ""
        path = self._kept / f"{example.walk.seed}{moved}-{inside.replace(' ', '-')}.safetensors"

        def make() -> dict[str, Tensor]:
            features, sources = zip(
                *(self.encode(example, at, plan) for at in range(len(example.frames))), strict=True
            )
            return {"features": torch.stack(features), "source": torch.stack(sources)}

        found = remembered(path, make)
        return [(found["features"][at], found["source"][at]) for at in frames]


def remembered(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; make them and write it, at once, if it is not there."""
    if not path.exists():
        part = path.with_suffix(".part")
        save_file({name: value.contiguous() for name, value in make().items()}, part)
        part.replace(path)
    return load_file(path)
