"""POST /vqa/compare: one question and its files with several merge settings, and their answers side by side.

A comparison costs the sum of its questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from service.api.body import Form, read_form
from service.api.responses import ComparedAnswer, ComparedRefusal, CompareResponse, ErrorResponse
from service.errors import ServiceError
from service.pipeline.response_models import Answered, ModelUsed, VqaResponse
from service.request.coercion import read_json
from service.request.schemas import MERGE_FIELDS, AskFields, MergeFields, VqaFields, VqaRequest
from service.request.validation import (
    FORM_FILES,
    JSON_FILES,
    check_counts,
    check_fields,
    known_object,
    unknown_field,
)
from service.settings import Settings
from tosa import PlanError

MAX_SPECS_CHARS = 65_536


class CompareFields(AskFields):
    """Hold the fields of a comparison beside its files."""

    specs: list[MergeFields] = Field(
        description="Merge settings to answer the question with, in order.",
        examples=[[{"method": "none"}, {"method": "tosa", "keep_ratio": 0.25}]],
    )


@dataclass(frozen=True)
class Comparison:
    """Hold one question for each spec, all with the same files; specs as they were sent, checked."""

    specs: tuple[MergeFields, ...]
    requests: tuple[VqaRequest, ...]


def parse_comparison(kind: bytes, boundary: bytes, body: bytes, settings: Settings) -> Comparison:
    """Parse a body of a type that `content_type` let through. Raises ServiceError, DepthError."""
    form = read_form(kind, boundary, body, CompareFields)
    _refuse_outside(form)
    shared = {name: value for name, value in form.fields.items() if name != "specs"}
    # Check what all questions share first, so that an error there is not attributed to the first spec.
    base = form.request(check_fields(shared, settings, strict=form.is_typed))
    check_counts(base, settings)
    given = base.fields.model_dump(exclude_unset=True)
    specs = _specs(form, settings)
    requests = tuple(_with_spec(base, given, spec, f"specs[{i}]", settings) for i, spec in enumerate(specs))
    checked = (one.fields.model_dump(include=set(spec)) for one, spec in zip(requests, specs, strict=True))
    return Comparison(tuple(MergeFields.model_construct(**spec) for spec in checked), requests)


def comparison(
    request_id: str,
    model: ModelUsed,
    compared: Comparison,
    results: Sequence[VqaResponse | ServiceError],
) -> CompareResponse:
    """Return the response; `results` are answers or errors, one for each spec.

    baseline: the first result without merging, if there is one. agree: whether each answer equals its answer;
    null where one of both is missing. Raises the first refusal if there is nothing else.
    """
    errors = [one for one in results if isinstance(one, ServiceError)]
    if len(errors) == len(results):
        raise errors[0]
    answers = [None if isinstance(one, ServiceError) else one.answer for one in results]
    baseline = next((index for index, one in enumerate(results) if _is_unmerged(one)), None)
    truth = None if baseline is None else answers[baseline]
    return CompareResponse(
        request_id=request_id,
        model=model,
        question=compared.requests[0].fields.question,
        results=[_result(spec, one, request_id) for spec, one in zip(compared.specs, results, strict=True)],
        baseline=baseline,
        agree=[None if truth is None or text is None else text == truth for text in answers],
    )


def _refuse_outside(form: Form) -> None:
    files = JSON_FILES if form.is_typed else FORM_FILES
    for name in form.fields:
        if name in VqaFields.model_fields and name not in CompareFields.model_fields:
            known = unknown_field(name, files, CompareFields)
            raise ServiceError("unknown_field", reason="in_specs", field=name, choices=known.choices)
        if name not in CompareFields.model_fields:
            raise unknown_field(name, files, CompareFields)


def _specs(form: Form, settings: Settings) -> list[dict[str, Any]]:
    raw = form.fields.get("specs")
    if not form.is_typed:
        raw = _from_text(raw)
    if not isinstance(raw, list):
        raise ServiceError("compare_count", reason="list", field="specs")
    if not 1 <= len(raw) <= settings.max_compared:
        raise ServiceError("compare_count", field="specs", limit=settings.max_compared)
    return [_spec(one, f"specs[{index}]") for index, one in enumerate(raw)]


def _from_text(text: object) -> Any:
    """Read the specs of a form, which are written as JSON."""
    if not isinstance(text, str) or len(text) > MAX_SPECS_CHARS:
        return None
    try:
        return read_json(text)
    except ValueError:
        return None


def _spec(raw: object, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ServiceError("compare_count", reason="list", field=where)
    return known_object(raw, MERGE_FIELDS, where)


def _with_spec(
    base: VqaRequest, shared: Mapping[str, Any], spec: Mapping[str, Any], where: str, settings: Settings
) -> VqaRequest:
    try:
        fields = check_fields({**shared, **spec}, settings, strict=True)
    except (ServiceError, PlanError) as error:  # nothing but the spec is new here
        error.field = f"{where}.{error.field}"
        raise
    return replace(base, fields=fields)


def _is_unmerged(answer: VqaResponse | ServiceError) -> bool:
    return not isinstance(answer, ServiceError) and answer.merge.method == "none"


def _result(
    spec: MergeFields, answer: VqaResponse | ServiceError, request_id: str
) -> ComparedAnswer | ComparedRefusal:
    if isinstance(answer, ServiceError):
        refusal = ErrorResponse.model_validate(answer.body(request_id))
        return ComparedRefusal(spec=spec, error=refusal.error)
    held = answer.model_fields_set & Answered.model_fields.keys()
    return ComparedAnswer(spec=spec, **{name: getattr(answer, name) for name in held})
