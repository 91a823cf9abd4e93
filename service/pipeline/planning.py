"""From the fields of a request to a plan of merging."""

from __future__ import annotations

from service.request.schemas import VqaFields
from tosa import EncoderShape, MergePlan, make_plan


def plan_request(fields: VqaFields, has_depth: bool, shape: EncoderShape) -> MergePlan:
    """Plan the merging of one request. Raises PlanError."""
    return make_plan(fields.merge_spec(has_depth), shape)
