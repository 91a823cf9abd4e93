"""From the body of POST /v1/chat/completions to a question with its conversation.

Fields of OpenAI's that are hints are ignored; those that would change the answer in a way this server does
not do are refused, and so is anything unknown in our own objects `merge` and `depth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.api.chat.messages import read_messages
from service.api.chat.output import ToolUse, read_output
from service.api.json_body import read_object
from service.errors import ServiceError
from service.pipeline.model_names import public_id
from service.request.coercion import is_unicode
from service.request.schemas import LONGEST_ANSWER, MERGE_FIELDS, VqaFields, VqaRequest
from service.request.validation import check_counts, check_fields, known_object
from service.settings import Settings

MAX_CHAT_MARKS = 60_000
"""Brackets and commas of a body: long histories have more of them than a question has."""
QUESTIONS_LONG = 50
"""A conversation may be as long as this many of the longest questions; then the model's context decides."""
MAX_STOPS, MAX_STOP_CHARS = 4, 64
DEPTH_FIELDS = {
    "source": "depth",
    "preset": "depth_preset",
    "scale": "depth_scale",
    "kind": "depth_kind",
    "invalid": "depth_invalid",
    "key": "depth_key",
    "shape": "depth_shape",
}
"""Names inside `depth`, and those of the same fields of a question."""
LENGTH_NAMES = ("max_completion_tokens", "max_tokens")
SHARED_FIELDS = ("views", "temperature", "top_p", "seed", "timeout_s", "cache", "stream")
LEAST_TOP_P = 1e-9
"""OpenAI takes top_p from 0 on and we above it: with so little, the likeliest token is left alone."""
HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "prompt_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "use_beam_search": (False,),
    "continue_final_message": (False,),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "documents": ([],),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "media_io_kwargs": ({},),
}
"""Fields of OpenAI's API that are not supported, with the values (besides null) that have no effect."""


@dataclass(frozen=True)
class ChatRequest:
    """Hold a question with its conversation, and how to send the answer. episode: what it is about."""

    vqa_request: VqaRequest
    stream: bool
    include_usage: bool
    model: str | None
    stop: tuple[str, ...]
    tool_use: ToolUse | None = None
    episode: str | None = None


def parse_chat(body: bytes, settings: Settings) -> ChatRequest:
    """Parse a JSON body. Raises ServiceError, DepthError."""
    raw = {name: value for name, value in read_object(body, MAX_CHAT_MARKS).items() if value is not None}
    model = _model(raw.get("model"), settings)
    _refuse_unsupported(raw)
    conversation = read_messages(raw.get("messages"), QUESTIONS_LONG * settings.max_question_chars)
    # The turns hold the whole text; the question is what logs show, in no more than its own bound.
    question = conversation.question[: settings.max_question_chars]
    fields = _checked({"question": question, **_fields(raw)}, settings, _length_name(raw))
    output, tool_use = read_output(raw)
    vqa_request = VqaRequest(
        fields,
        conversation.images,
        conversation.depths,
        conversation.turns,
        output,
        conversation.image_names,
        conversation.depth_names,
    )
    episode = _episode(raw, conversation.images)
    if episode is None:
        check_counts(vqa_request, settings)
    stop, include_usage = _stop(raw.get("stop")), _include_usage(raw.get("stream_options"))
    return ChatRequest(vqa_request, fields.stream, include_usage, model, stop, tool_use, episode)


def _episode(raw: Mapping[str, Any], images: Sequence[bytes]) -> str | None:
    """Return the id of an episode, which brings frames and says how they merge. Raises ServiceError."""
    episode = raw.get("episode")
    if episode is None:
        return None
    if not isinstance(episode, str):
        raise ServiceError("bad_request", reason="value", field="episode")
    for name in ("merge", "depth", "views"):
        if name in raw:
            raise ServiceError("bad_merge_frames", reason="begun_with", field=name)
    if images:
        raise ServiceError("bad_merge_frames", reason="no_file", field="messages")
    return episode


def served_names(settings: Settings) -> tuple[str, ...]:
    """Return the names by which a request may call the model, the public one first."""
    return tuple(dict.fromkeys((public_id(settings.model), settings.model)))


def check_model(name: object, settings: Settings) -> None:
    """Refuse a model that is not the one that answers. Raises ServiceError (model_not_found)."""
    names = served_names(settings)
    if name not in names:
        sentence = f"There is no such model here: name {names[0]}, or none."
        raise ServiceError("model_not_found", sentence=sentence, field="model", choices=names[:1])


def _model(name: object, settings: Settings) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise ServiceError("bad_request", reason="value", field="model")
    check_model(name, settings)
    return name


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    """Refuse fields that would be ignored silently: unsupported ones of OpenAI, or ours misplaced."""
    for name, value in raw.items():
        if name in HARMLESS and value not in HARMLESS[name]:
            raise ServiceError("unsupported_field", field=name)
    ours = ("merge", "depth", *LENGTH_NAMES, *SHARED_FIELDS)
    for name in raw:
        if name in VqaFields.model_fields and name not in ours:
            raise ServiceError("unknown_field", reason="inside", field=name, choices=ours)


def _checked(given: Mapping[str, Any], settings: Settings, length_name: str) -> VqaFields:
    try:
        return check_fields(given, settings, strict=True)
    except ServiceError as error:
        if error.field != "max_new_tokens":
            raise
        raise error.about(length_name) from None


def _length_name(raw: Mapping[str, Any]) -> str:
    """Return under which name the longest answer was sent; the newer one decides."""
    return next((name for name in LENGTH_NAMES if name in raw), LENGTH_NAMES[0])


def _fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the fields of a question, under the names they have there."""
    depth = known_object(raw.get("depth"), DEPTH_FIELDS, "depth")
    longest = raw.get(_length_name(raw), LONGEST_ANSWER)
    top_p = raw.get("top_p")
    likeliest = {"top_p": LEAST_TOP_P} if top_p == 0 and not isinstance(top_p, bool) else {}
    return {
        **known_object(raw.get("merge"), MERGE_FIELDS, "merge"),
        **{DEPTH_FIELDS[name]: value for name, value in depth.items()},
        **{name: raw[name] for name in SHARED_FIELDS if name in raw},
        **likeliest,
        "max_new_tokens": longest,
    }


def _stop(raw: object) -> tuple[str, ...]:
    stops = [] if raw is None else [raw] if isinstance(raw, str) else raw
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(map(_is_stop, stops)):
        sentence = (
            f"stop must be a text or a list of at most {MAX_STOPS}, of 1 to {MAX_STOP_CHARS} characters each."
        )
        raise ServiceError("bad_generation", sentence=sentence, field="stop", limit=MAX_STOPS)
    return tuple(stops)


def _is_stop(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= MAX_STOP_CHARS and is_unicode(text)


def _include_usage(raw: object) -> bool:
    if raw is None:
        return False
    wanted = raw.get("include_usage") if isinstance(raw, dict) else raw
    if not isinstance(raw, dict) or not (wanted is None or isinstance(wanted, bool)):
        raise ServiceError("bad_request", reason="value", field="stream_options")
    return bool(wanted)
