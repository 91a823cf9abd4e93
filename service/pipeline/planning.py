"""From the fields of a request and the sizes of its pictures to views, plans of merging, and placeholders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.request.schemas import VqaFields
from tosa import MergePlan, MergeSpec
from vlm import Layout, Spelled, Turn, Vlm, VlmError, layouts, plan_views, saves, spell

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
    views = "single" if fields.has_geometry else fields.views
    return tuple(_planned(vlm, spec, layout) for layout in layouts(vlm, sizes, views))


def with_one_video(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Put one video in the place of the first of its frames, which all stand in one turn.

    Raises VlmError (unsupported_views) for frames in several turns.
    """
    if sum(None in turn.content for turn in turns) > 1:
        message = "the frames of a video stand in one message, and these stand in several."
        raise VlmError("unsupported_views", message, field="views")
    return tuple(Turn(turn.role, _with_one(turn.content)) for turn in turns)


def _with_one(content: tuple[str | None, ...]) -> tuple[str | None, ...]:
    first = content.index(None) if None in content else len(content)
    return (*content[: first + 1], *(part for part in content[first + 1 :] if part is not None))


def _planned(vlm: Vlm, spec: MergeSpec, layout: Layout) -> Planned:
    plan = plan_views(vlm, spec, layout)
    return Planned(layout, plan, spell(vlm, layout, plan), saves(vlm, layout, plan))
