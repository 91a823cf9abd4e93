"""Requests about episodes as values, before they are sent; both clients send the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tosa_vqa_client.calls import Form, call_options, files_of, form_texts, json_text, named_fields
from tosa_vqa_client.files import Depth, Image
from tosa_vqa_client.results import Answer, EpisodeDeleted, EpisodeList, EpisodeState, FrameTaken


def begin_form(options: Mapping[str, Any]) -> Form[EpisodeState]:
    """Write what an episode is begun with. Raises BadInput. A lost answer would leave an episode behind."""
    fields = form_texts(named_fields(options))
    return Form("/episodes", EpisodeState, fields, (), False, call_options(options), repeats=False)


def push_form(
    episode: str, image: Image, depth: Depth | None, options: Mapping[str, Any]
) -> Form[FrameTaken]:
    """Write a frame, which would be taken in twice if it were sent again. Raises BadInput, and OSError."""
    fields = form_texts(named_fields(options))
    files = files_of(image, depth)
    return Form(
        f"{_path(episode)}/frames", FrameTaken, fields, files, True, call_options(options), repeats=False
    )


def episode_question_form(episode: str, question: str, options: Mapping[str, Any]) -> Form[Answer]:
    """Write a question about an episode. Raises BadInput."""
    fields = form_texts({"question": question, **named_fields(options)})
    return Form(f"{_path(episode)}/vqa", Answer, fields, (), True, call_options(options))


def move_form(episode: str, poses: Mapping[int, Any], convention: str | None) -> Form[EpisodeState]:
    """Write new poses of frames. Raises BadInput."""
    fields = {"poses": json_text({str(frame): pose for frame, pose in poses.items()}, "poses")}
    fields |= {} if convention is None else {"convention": convention}
    return Form(f"{_path(episode)}/poses", EpisodeState, fields, (), False)


def state_form(episode: str, places: bool) -> Form[EpisodeState]:
    """Ask what an episode holds."""
    path = _path(episode) + ("?places=true" if places else "")
    return Form(path, EpisodeState, {}, (), False, verb="GET")


def list_form() -> Form[EpisodeList]:
    """Ask which episodes there are."""
    return Form("/episodes", EpisodeList, {}, (), False, verb="GET")


def end_form(episode: str) -> Form[EpisodeDeleted]:
    """Ask to delete an episode; to do so again would be refused."""
    return Form(_path(episode), EpisodeDeleted, {}, (), False, verb="DELETE", repeats=False)


def _path(episode: str) -> str:
    return f"/episodes/{quote(episode, safe='')}"
