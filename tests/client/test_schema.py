"""The client has every field of the service's requests and responses, by its name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel

from service.api import responses
from service.api.compare import CompareFields
from service.api.episodes import responses as episodes
from service.api.methods_listing import methods_listing
from service.pipeline import response_models
from service.request.schemas import (
    EpisodeFields,
    FrameFields,
    InspectFields,
    MergeFields,
    OverlayFields,
    QuestionFields,
    VqaFields,
)
from service.timing import TimingsMs
from tosa_vqa_client import options, results
from tosa_vqa_client.options import CallOptions
from tosa_vqa_client.reading import read

PAIRS = {
    results.Answer: response_models.VqaResponse,
    results.MergeDone: response_models.MergeDone,
    results.ViewsUsed: response_models.ViewsUsed,
    results.Guessed: response_models.Guessed,
    results.DepthNote: response_models.DepthNote,
    results.Estimator: response_models.Estimator,
    results.DepthUsed: response_models.DepthUsed,
    results.EpisodeUsed: response_models.EpisodeUsed,
    results.FrameKept: response_models.FrameKept,
    results.EpisodeWalk: response_models.EpisodeWalk,
    results.WalkCamera: response_models.WalkCamera,
    results.WalkToken: response_models.WalkToken,
    results.EpisodeState: episodes.EpisodeState,
    results.EpisodeList: episodes.EpisodeList,
    results.EpisodeDeleted: episodes.EpisodeDeleted,
    results.FrameTaken: episodes.FrameTaken,
    results.Usage: response_models.Usage,
    results.ModelUsed: response_models.ModelUsed,
    results.TimingsMs: TimingsMs,
    results.DepthInspection: responses.Inspected,
    results.ComparedAnswer: responses.ComparedAnswer,
    results.ComparedRefusal: responses.ComparedRefusal,
    results.Comparison: responses.CompareResponse,
    results.Refusal: responses.ErrorDetail,
    results.DepthValues: response_models.DepthValues,
    results.Overlay: responses.OverlayResponse,
    results.OverlayView: responses.OverlayView,
    results.OverlayLayer: responses.OverlayLayer,
}
FORMS = {
    options.AskOptions: VqaFields,
    options.CompareOptions: CompareFields,
    options.InspectOptions: InspectFields,
    options.MergeOptions: MergeFields,
    options.OverlayOptions: OverlayFields,
    options.EpisodeOptions: EpisodeFields,
    options.PushOptions: FrameFields,
    options.EpisodeAskOptions: QuestionFields,
}
GIVEN_OTHERWISE = {"question", "specs", "stream"}
"""Arguments of a method, or the method itself."""


def example(model: Any) -> dict[str, Any]:
    """Fill a model with the examples of its own documentation."""
    found = {}
    for name, one in model.model_fields.items():
        inner = [kind for kind in _inner(one.annotation) if isinstance(kind, type)]
        models = [kind for kind in inner if issubclass(kind, BaseModel)]
        if models and "list" in str(one.annotation):
            found[name] = [example(kind) for kind in models]
        elif models:
            found[name] = example(models[0])
        elif one.examples:
            found[name] = one.examples[-1]
    return found


def _inner(annotation: Any) -> list[Any]:
    args = getattr(annotation, "__args__", ())
    return [each for arg in args for each in _inner(arg)] if args else [annotation]


@pytest.mark.parametrize("ours", PAIRS, ids=lambda one: one.__name__)
def test_a_result_has_the_fields_of_the_response(ours: Any) -> None:
    assert {one.name for one in fields(ours)} - {"raw"} == set(PAIRS[ours].model_fields)


@pytest.mark.parametrize("ours", PAIRS, ids=lambda one: one.__name__)
def test_a_result_reads_what_the_service_documents(ours: Any) -> None:
    told = example(PAIRS[ours])
    assert told, "the models of the service bring examples"
    found = read(ours, told)
    for name, value in told.items():
        mine = getattr(found, name)
        if isinstance(value, str | int | float) and name != "picture":
            assert mine == value, name


def test_a_response_with_another_type_is_refused_and_one_with_more_is_not() -> None:
    told = example(response_models.Usage)
    assert read(results.Usage, {**told, "new": 1}) == read(results.Usage, told)
    for wrong in ({**told, "prompt_tokens": "1"}, {"prompt_tokens": 1}, [], {**told, "prompt_tokens": True}):
        with pytest.raises(ValueError):
            read(results.Usage, wrong)


@pytest.mark.parametrize("ours", FORMS, ids=lambda one: one.__name__)
def test_options_have_the_fields_of_the_request(ours: Any) -> None:
    mine = set(get_type_hints(ours)) - set(CallOptions.__annotations__)
    theirs = {{"depth": "depth_source"}.get(name, name) for name in FORMS[ours].model_fields}
    assert mine == theirs - GIVEN_OTHERWISE - {"timeout_s"}


def test_the_methods_of_the_service_are_read() -> None:
    told = methods_listing()
    found = read(results.Methods, told)
    for method, theirs in zip(found.methods, told["methods"], strict=True):
        assert {one.name for one in fields(method)} == set(theirs)
        assert [one.name for one in method.options] == [one["name"] for one in theirs["options"]]
    assert found["tosa"].needs_depth == "always" and found.defaults == told["defaults"]
    with pytest.raises(KeyError):
        found["tosb"]
