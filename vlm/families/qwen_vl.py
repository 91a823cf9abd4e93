"""What the Qwen-VL families share: native proportions, a merger of 2 x 2 patches, positions in space.

The positions of a prompt are those of the cells whose places merged tokens keep, so that what is left of a
picture stands where it stood. Nothing is kept on the model: its own rope_deltas are neither read nor written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor

from tosa import EncoderShape, MergePlan, Tokens, cell_places, cells_of, whole_grid
from vlm.adapters import adapt
from vlm.families.agreement import require_equal, require_made_views
from vlm.families.cells import CellFamily
from vlm.families.family import split_views
from vlm.families.layout import Grid, Layout, Size, View, Views, Visual
from vlm.families.video import OPTIONS, as_video
from vlm.families.visual_runs import Steps, VisualRun, visual_runs
from vlm.model import ImageSettings, VlmError

MOST_SHAPES = 1024  # shapes to keep: pictures have as many grids as sizes


class QwenVL(CellFamily):
    """One view of every image in its own proportions; two frames of a video share a view."""

    kinds: ClassVar[tuple[Views, ...]] = ("single", "video")
    tower_name: ClassVar[str] = "visual"
    has_places: ClassVar[bool] = True
    sends_pictures: ClassVar[bool] = True
    keeps_grids: bool = False
    """Every cell gets its features back before the merger: for who derives positions from whole grids."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._shapes: dict[Grid, EncoderShape] = {}

    def require_supported(self) -> None:
        """Accept every tower of these model types: each has its own."""

    @property
    def cell(self) -> Grid:
        merge = self.vision.spatial_merge_size
        return merge, merge

    # Views.

    def require_agreement(self) -> None:
        pairs = {
            "patch_size": self.vision.patch_size,
            "merge_size": self.vision.spatial_merge_size,
            "temporal_patch_size": self.vision.temporal_patch_size,
        }
        self.look_for_videos()
        for processor in (self.processor, *(() if self.no_videos else (self.video_processor,))):
            for name, said in pairs.items():
                require_equal(name, getattr(processor, name), said)
        require_made_views(self)

    def pixel_shape(self, layout: Layout) -> tuple[int, ...]:
        values = 3 * self.vision.temporal_patch_size * self.vision.patch_size**2
        return len(layout.views), math.prod(layout.grid), values

    @cached_property
    def settings(self) -> ImageSettings:
        """Return how colours are scaled; a view has no size of its own."""
        return self._settings_of(self.processor)

    @property
    def view_px(self) -> Size:
        return 0, 0

    @property
    def _block_px(self) -> int:
        return self.vision.patch_size * self.vision.spatial_merge_size

    def squeezes(self, views: Views) -> bool:
        return False

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        return self.whole(size)

    def whole(self, size: Size) -> Layout:
        pixels = self._resized(size)
        patch = self.vision.patch_size
        return Layout("native", size, (pixels[0] // patch, pixels[1] // patch), pixels)

    def _resized(self, size: Size) -> Size:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        least, most = self.processor.size["shortest_edge"], self.processor.size["longest_edge"]
        return smart_resize(*size, factor=self._block_px, min_pixels=least, max_pixels=most)

    def video_layout(self, sizes: Sequence[Size]) -> Layout:
        together, patch = self.vision.temporal_patch_size, self.vision.patch_size
        number, last = -(-len(sizes) // together), len(sizes) - 1
        frames = (tuple(min(at * together + i, last) for i in range(together)) for at in range(number))
        pixels = self._resized_video(sizes[0], len(sizes))
        grid = pixels[0] // patch, pixels[1] // patch
        return Layout("video", sizes[0], grid, pixels, tuple(View(frames=each) for each in frames))

    def _resized_video(self, size: Size, num_frames: int) -> Size:
        """Return the size in px that frames of a video are resized to."""
        raise NotImplementedError

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        if layout.kind == "video":
            values = self.video_processor(as_video(images), **OPTIONS)["pixel_values_videos"]
        else:
            values = self.processor(images=[images[0]], return_tensors="pt")["pixel_values"]
        return values.unflatten(0, (len(layout.views), math.prod(layout.grid)))

    # The tower.

    def shape(self, layout: Layout) -> EncoderShape:
        shape = self._shapes.get(layout.grid)
        if shape is None:
            shape = adapt(self._without_weights, -1, layout.pixels).shape
            if len(self._shapes) >= MOST_SHAPES:
                self._shapes.clear()
            self._shapes[layout.grid] = shape
        return shape

    @cached_property
    def _without_weights(self) -> Any:
        with torch.device("meta"):
            return self._tower_class()(self.vision)

    def _tower_class(self) -> Any:
        """Return the class of the tower in transformers."""
        raise NotImplementedError

    # From the tower to the language model.

    def recovers(self, layout: Layout, plan: MergePlan) -> bool:
        return self.keeps_grids and plan.tokens_out < plan.tokens_in

    def counts(self, layout: Layout, plan: MergePlan) -> tuple[int, ...]:
        if not self.recovers(layout, plan):
            return super().counts(layout, plan)
        return (plan.cells_in,) * len(layout.views)

    def reduce(
        self,
        core: Any,
        layouts: Sequence[Layout],
        plan: MergePlan,
        tokens: Tokens,
        levels: Sequence[Tensor] = (),
    ) -> list[Visual]:
        if self.recovers(layouts[0], plan):
            levels = [whole_grid(replace(tokens, x=level)).x for level in levels]
            tokens = whole_grid(tokens)
        tower, cells = self.tower(core), cells_of(tokens)
        features = tower.merger(cells.flatten(0, 2)).unflatten(0, cells.shape[:2])
        deep = [
            split_views(layouts, merger(level.flatten(0, 1)).unflatten(0, cells.shape[:2]))
            for merger, level in zip(self.level_mergers(core), levels, strict=True)
        ]
        places = split_views(layouts, cell_places(tokens))
        span = max(side // each for side, each in zip(plan.shape.grid, self.cell, strict=True))
        return [
            Visual(
                own.flatten(0, 1),
                tuple(level[at].flatten(0, 1) for level in deep),
                self._places(layout, places[at]),
                span,
            )
            for at, (layout, own) in enumerate(zip(layouts, split_views(layouts, features), strict=True))
        ]

    def level_mergers(self, core: Any) -> Sequence[Any]:
        """Return the mergers of earlier layers that the language model reads."""
        return ()

    def view_times(self, layout: Layout) -> list[int]:
        """Return the time of each view among the positions of its run."""
        return (self.steps if layout.kind == "video" else Steps()).positions(len(layout.views))

    @property
    def steps(self) -> Steps:
        """Return how time is counted among the positions of a run."""
        return Steps()

    def _places(self, layout: Layout, places: Tensor) -> Tensor:
        """Return time, row and column of every token: [3, views * cells]."""
        times = torch.tensor(self.view_times(layout), device=places.device)
        time = times[:, None].expand(places.shape[:2])
        return torch.cat((time[..., None], places), dim=2).flatten(0, 1).T

    # A language engine elsewhere.

    def for_servers(self) -> Self:
        family = copy(self)
        family.keeps_grids = True
        return family

    def require_sendable(self, layout: Layout) -> None:
        """Refuse videos so long that vLLM counts other positions behind them."""
        rows, columns = (side // each for side, each in zip(layout.grid, self.cell, strict=True))
        if self.steps.end(len(layout.views), (rows, columns)) > max(rows, columns):
            message = (
                "the video is too long for its size: language servers count other positions behind it than "
                "this model was trained with. Send fewer frames."
            )
            raise VlmError("unsupported_views", message, field="views")

    def visual_runs(self, ids: Sequence[int], visuals: Sequence[Visual]) -> tuple[VisualRun, ...]:
        return visual_runs(ids, self.visual_token_ids, visuals, self.cell, self.steps)

    # The language model.

    def positions(
        self, ids: Sequence[int], visuals: Sequence[Visual], device: torch.device
    ) -> tuple[Tensor, int]:
        if sum(id_ in self.visual_token_ids for id_ in ids) != sum(len(each.features) for each in visuals):
            raise ValueError("every visual token of this model needs a place: give its Visual, not features")
        spans = (span for visual in visuals for span in [visual.span] * len(visual.features))
        base = torch.tensor(list(self._bases(ids, iter(spans)))).expand(3, -1).to(device)
        at = self.is_visual(torch.tensor(ids, device=device))
        shift = torch.zeros_like(base)
        if visuals:
            found = [visual.places.to(device) for visual in visuals if visual.places is not None]
            shift[:, at] = torch.cat(found, dim=1)
        positions = base + shift
        return positions, int(positions.max()) + 1

    def _bases(self, ids: Sequence[int], spans: Iterator[int]) -> Iterator[int]:
        """Yield the position of every text token, and for visual ones where their run begins."""
        after = 0
        for visual, run in groupby(ids, key=lambda id_: id_ if id_ in self.visual_token_ids else None):
            length = len(list(run))
            if visual is None:
                yield from range(after, after + length)
                after += length
            else:
                yield from [after] * length
                after += [next(spans) for _ in range(length)][-1]
