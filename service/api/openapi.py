"""Request bodies and streams for the generated documentation, derived from what checks and makes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from depth.formats.containers import readable
from service.api import openapi_examples
from service.api.chat.messages import ROLES
from service.api.chat.output import MAX_CHOICES, MAX_NAME_CHARS, MAX_TOOLS
from service.api.chat.request import DEPTH_FIELDS, MAX_STOP_CHARS, MAX_STOPS, SHARED_FIELDS
from service.api.chat.schemas import ChatCompletionChunk
from service.api.compare import CompareFields
from service.api.openapi_form import form_schema
from service.pipeline.response_models import VqaResponse
from service.request.schemas import (
    MERGE_FIELDS,
    EpisodeFields,
    FrameFields,
    InspectFields,
    MoveFields,
    OverlayFields,
    QuestionFields,
    VqaFields,
)
from vlm.sampling import MAX_TOP_LOGPROBS

Schema = dict[str, Any]


def inlined(model: type[BaseModel]) -> Schema:
    """Return the schema of a model without references, which would not be found from where it will stand."""
    schema = model.model_json_schema(mode="validation")
    return _resolved(schema, schema.pop("$defs", {}))


def _resolved(node: Any, definitions: Schema) -> Any:
    if isinstance(node, list):
        return [_resolved(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    meant = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
    return {key: _resolved(value, definitions) for key, value in (meant | node).items() if key != "$ref"}


def _files(about: str, **item: Any) -> Schema:
    return {"type": "array", "items": {"type": "string", **item}, "description": about}


def _base64(about: str, example: str) -> Schema:
    return {**_files(about, contentEncoding="base64"), "examples": [[example]]}


_ABOUT_IMAGES = "Colour images: JPEG, PNG or WebP"
_ABOUT_DEPTHS = f"Depth maps: none, or one for each image, in order. {', '.join(readable())}"
_FORM_FILES = {
    "image": _files(f"{_ABOUT_IMAGES}; repeat the part for several.", format="binary"),
    "depth": _files(f"{_ABOUT_DEPTHS}; repeat the part.", format="binary"),
}
_JSON_FILES = {
    "images": _base64(f"{_ABOUT_IMAGES}, in base64 or as data: URIs.", openapi_examples.IMAGE),
    "depths": _base64(f"{_ABOUT_DEPTHS}, in base64 or as data: URIs.", openapi_examples.DEPTH),
}
_AS_JSON = {"specs": {"contentType": "application/json"}, "options": {"contentType": "application/json"}}


def _body(model: type[BaseModel], required_file: str, examples: openapi_examples.Examples) -> Schema:
    """Describe a body; `required_file` is the name of that file in a form, in JSON it is a list."""
    form = {"schema": form_schema(inlined(model), _FORM_FILES, required_file)}
    encoding = {name: how for name, how in _AS_JSON.items() if name in model.model_fields}
    return _request(
        {
            "multipart/form-data": {**form, "encoding": encoding} if encoding else form,
            "application/json": {
                "schema": _with_files(model, _JSON_FILES, f"{required_file}s"),
                "examples": dict(examples),
            },
        }
    )


def _plain(model: type[BaseModel], examples: openapi_examples.Examples) -> Schema:
    """Describe a body without files, as JSON."""
    return _request({"application/json": {"schema": inlined(model), "examples": dict(examples)}})


def _request(content: Schema) -> Schema:
    return {"requestBody": {"required": True, "content": content}}


def request_body(model: type[BaseModel], examples: openapi_examples.Examples) -> Schema:
    """Describe a body that is JSON without files."""
    return _request({"application/json": {"schema": inlined(model), "examples": dict(examples)}})


def _with_files(model: type[BaseModel], files: Schema, required: str) -> Schema:
    schema = inlined(model)
    return {
        **schema,
        "properties": {**files, **schema["properties"]},
        "required": [required, *schema.get("required", [])],
    }


def _object(about: str, **properties: Schema) -> Schema:
    return {"type": "object", "description": about, "properties": properties}


def _string(about: str, *examples: str, **more: Any) -> Schema:
    return {"type": "string", "description": about, "examples": list(examples), **more}


def _part(kind: str, **held: Schema) -> Schema:
    named = {"type": _kind(kind), **held}
    return {"type": "object", "properties": named, "required": list(named)}


def _url_part(kind: str, about: str, base64: str) -> Schema:
    uri = f"data:image/png;base64,{base64}"
    url = _string("data:<media type>;base64,<data>; no other address is read.", uri)
    return _part(kind, **{kind: {**_object(about, url=url), "required": ["url"]}})


def _messages() -> Schema:
    parts = [
        _part("text", text=_string("The text.", "How many chairs are in the room?")),
        _url_part("image_url", "An image, in messages of the user only.", openapi_examples.IMAGE),
        _url_part("depth_url", "The depth of the image right before it.", openapi_examples.DEPTH),
    ]
    content = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": parts}}],
        "description": "A text, or texts, images and their depth in order.",
        "examples": ["How many chairs are in the room?"],
    }
    roles = list(ROLES)
    role = _string("Who speaks; developer is read as system, tool as user.", "user", enum=roles)
    return {
        "type": "array",
        "items": {**_object("One message.", role=role, content=content), "required": ["role", "content"]},
        "description": "The conversation so far, with at least one image. Depth for every image or for none.",
    }


def _output_schema() -> Schema:
    """Describe how answers are written: as JSON, as a call, several, with probabilities."""
    name = _string("Name of the schema or function.", "report", maxLength=MAX_NAME_CHARS)
    schema = {
        **_object("A JSON schema; references lead inside it only."),
        "examples": [openapi_examples.SCHEMA],
    }
    strict = {"type": "boolean", "description": "The schema is enforced either way.", "examples": [True]}
    named = {**_object("A schema.", name=name, schema=schema, strict=strict), "required": ["name", "schema"]}
    plain = _string("Kind of the answer.", "json_object", enum=["text", "json_object"])
    by_schema = _object("An answer that matches a schema.", type=_kind("json_schema"), json_schema=named)
    formats = [_object("Text, or any JSON object.", type=plain), by_schema]
    about = _string("What it does; this model does not read it.", "Report where it is.")
    function = _object("A function.", name=name, description=about, parameters=schema)
    tool = _object("A tool.", type=_kind("function"), function={**function, "required": ["name"]})
    chosen = _object("A function.", type=_kind("function"), function=_object("The function.", name=name))
    return {
        "response_format": {
            "anyOf": formats,
            "description": "What the answer is: text by default.",
            "examples": list(openapi_examples.FORMATS),
        },
        "tools": {
            "type": "array",
            "maxItems": MAX_TOOLS,
            "items": tool,
            "description": "Functions; the answer calls one if tool_choice says so.",
        },
        "tool_choice": {
            "anyOf": [{"type": "string", "enum": ["none", "auto", "required"]}, chosen],
            "description": "required or a function: the answer calls it. none and auto: the answer is text.",
            "examples": ["auto"],
        },
        "n": _integer("How many answers; each has a seed of its own.", 1, MAX_CHOICES, 2),
        "logprobs": {"type": "boolean", "description": "Report probabilities of tokens.", "examples": [True]},
        "top_logprobs": _integer("With logprobs: likeliest tokens to report.", 0, MAX_TOP_LOGPROBS, 0),
    }


def _kind(kind: str) -> Schema:
    return {"const": kind, "description": "Kind of this object.", "examples": [kind]}


def _integer(about: str, least: int, most: int, example: int) -> Schema:
    bounds = {"minimum": least, "maximum": most}
    return {"type": "integer", **bounds, "description": about, "examples": [example]}


def _chat_schema() -> Schema:
    fields = inlined(VqaFields)["properties"]
    longest = {**fields["max_new_tokens"], "default": None}
    longest["description"] = "Longest answer in tokens; as long as the context leaves if not sent."
    stop = {
        "anyOf": [{"type": "string"}, {"type": "array", "maxItems": MAX_STOPS, "items": {"type": "string"}}],
        "description": f"Texts of at most {MAX_STOP_CHARS} characters that end the answer before them.",
        "examples": [["\n"]],
    }
    top_p = {name: value for name, value in fields["top_p"].items() if name != "exclusiveMinimum"}
    usage = {"type": "boolean", "description": "Send a last chunk with usage and ours.", "examples": [True]}
    merge = _object("How to merge, as in POST /vqa.", **{name: fields[name] for name in MERGE_FIELDS})
    depth = _object(
        "What depth is, as in POST /vqa.", **{name: fields[ours] for name, ours in DEPTH_FIELDS.items()}
    )
    properties = {
        "model": _string("The model that answers; GET /v1/models names it. May be left out.", "room-tiny"),
        "messages": _messages(),
        "merge": {**merge, "additionalProperties": False},
        "depth": {**depth, "additionalProperties": False},
        "episode": _string("Id of an episode, which brings the images; messages have none.", "0" * 32),
        "max_completion_tokens": longest,
        "max_tokens": {**longest, "description": "The older name of max_completion_tokens."},
        "stop": stop,
        **_output_schema(),
        "stream_options": _object("How to stream.", include_usage=usage),
        **{name: fields[name] for name in SHARED_FIELDS},
        "top_p": {**top_p, "minimum": 0},
    }
    about = (
        "A chat completion as OpenAI has it; merge, depth, episode, views, timeout_s and cache are ours. "
        "Other fields of OpenAI's are ignored where they are hints, and refused where they would change "
        "the answer."
    )
    return {**_object(about, **properties), "required": ["messages"], "additionalProperties": True}


def _stream(schema: Schema, about: str, example: str) -> dict[int | str, Schema]:
    """Describe the other form of a good answer."""
    return {
        200: {
            "content": {"text/event-stream": {"schema": {**schema, "description": about}, "example": example}}
        }
    }


VQA_BODY = _body(VqaFields, "image", openapi_examples.VQA)
COMPARE_BODY = _body(CompareFields, "image", openapi_examples.COMPARE)
EPISODE_BODY = _plain(EpisodeFields, openapi_examples.EPISODE)
FRAME_BODY = _body(FrameFields, "image", openapi_examples.FRAME)
QUESTION_BODY = _plain(QuestionFields, openapi_examples.QUESTION)
MOVE_BODY = _plain(MoveFields, openapi_examples.MOVE)
INSPECT_BODY = _body(InspectFields, "depth", openapi_examples.INSPECT)
OVERLAY_BODY = _body(OverlayFields, "image", openapi_examples.OVERLAY)
CHAT_BODY = _request(
    {"application/json": {"schema": _chat_schema(), "examples": dict(openapi_examples.CHAT)}}
)
VQA_STREAM = _stream(
    inlined(VqaResponse),
    'Events: `text` with {"text": ...} for every piece; at last `answer` with this object, or `error`.',
    'event: text\ndata: {"text":"2"}\n\nevent: answer\ndata: {"answer":"2", ...}\n\n',
)
CHAT_STREAM = _stream(
    inlined(ChatCompletionChunk),
    "Every line of data is one of these, the last one is [DONE]; an error comes as {error: ...} instead.",
    'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"2"}, ...}]}\n\ndata: [DONE]\n\n',
)
