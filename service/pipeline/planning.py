"""From the fields of a request and the sizes of its pictures to views, plans of merging, and placeholders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.request.schemas import VqaFields
from tosa import MergePlan, MergeSpec
from vlm import Layout, Spelled, Vlm, layouts, plan_views, saves, spell

Size = tuple[int, int]


@dataclass(frozen=True)
class Planned:
    """Say how one picture or video is seen: its views, and the plan that all of them share.

    spelled: what stands for it in the prompt. saves: "vit" for work in the encoder, "lm" for tokens.
    """

    layout: Layout
    plan: MergePlan
    spelled: Spelled
    saves: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Count what the language model reads of it."""
        return sum(self.spelled.counts)


def plan_request(vlm: Vlm, fields: VqaFields, has_depth: bool, sizes: Sequence[Size]) -> tuple[Planned, ...]:
    """Plan the merging of one request, whose pictures have these (height, width) in px.

    One for each picture, or one for all of them as a video. Raises PlanError, and VlmError
    (unsupported_views).
    """
    spec = fields.merge_spec(has_depth)
    return tuple(_planned(vlm, spec, layout) for layout in layouts(vlm, sizes, fields.views))


def _planned(vlm: Vlm, spec: MergeSpec, layout: Layout) -> Planned:
    plan = plan_views(vlm, spec, layout)
    return Planned(layout, plan, spell(vlm, layout, plan), saves(vlm, layout, plan))
