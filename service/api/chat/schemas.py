"""What clients of OpenAI's API get back; response.py makes the values."""

from __future__ import annotations

from typing import Literal

from service.pipeline.response_models import DepthUsed, MergeDone, ResponseModel, Usage, told
from service.timing import TimingsMs


class ChatUsage(Usage):
    """Count the tokens of the language model."""

    total_tokens: int = told("Both together.", 162)


class Extras(ResponseModel):
    """Hold the parts of our own answer that go along unchanged."""

    merge: MergeDone = told("What merging did.")
    depth: DepthUsed | None = told("Which depth steered the merging; null where the scene did not.")
    timings_ms: TimingsMs = told("Time of each stage in milliseconds.")
    cached: bool = told("Whether every frame was remembered, so that no encoder ran.", False)
    batch_size: int = told("Questions that were answered together, this one among them.", 1)
    request_id: str = told("Name of the request, as in X-Request-ID.", "robot-7.0042")


class _Head(ResponseModel):
    id: str = told("Name of the answer, made of the request's.", "chatcmpl-robot-7.0042")
    created: int = told("When it was made, in seconds since 1970.", 1_790_000_000)
    model: str = told("The model that answered.", "room-tiny")
    system_fingerprint: str = told("Revision of the model, or a digest of its weights.", "0123456789abcdef")


class Said(ResponseModel):
    """Hold the answer."""

    role: Literal["assistant"] = told("Who speaks.", "assistant")
    content: str = told("The answer.", "2")
    refusal: None = told("Always null: this model refuses nothing.", None)


class Choice(ResponseModel):
    """Hold the only choice there is."""

    index: int = told("Always 0.", 0)
    message: Said = told("What the model says.")
    logprobs: None = told("Always null.", None)
    finish_reason: Literal["stop", "length"] = told("length: cut off at max_completion_tokens.", "stop")


class ChatCompletion(_Head, Extras):
    """Answer a conversation; merge and what follows is ours, the rest as OpenAI has it."""

    object: Literal["chat.completion"] = told("Kind of this object.", "chat.completion")
    choices: list[Choice] = told("The answer, in a list of one.")
    usage: ChatUsage = told("Tokens of the language model.")


class Delta(ResponseModel):
    """Hold what is new."""

    role: Literal["assistant"] | None = told("Who speaks; in the first chunk.", "assistant", default=None)
    content: str | None = told("A piece of the answer.", "2", default=None)
    refusal: None = told("Always null; in the first chunk.", None, default=None)


class ChunkChoice(ResponseModel):
    """Hold the only choice there is."""

    index: int = told("Always 0.", 0)
    delta: Delta = told("What is new.")
    logprobs: None = told("Always null.", None)
    finish_reason: Literal["stop", "length"] | None = told("In the chunk after the last text.", "stop")


class ChatCompletionChunk(_Head):
    """Hold a piece of a streamed answer; with include_usage the last has no choice, but the counts."""

    object: Literal["chat.completion.chunk"] = told("Kind of this object.", "chat.completion.chunk")
    choices: list[ChunkChoice] = told("A piece of the answer, in a list of one; none with the counts.")
    usage: ChatUsage | None = told("In the last chunk, if asked for.", default=None)
    merge: MergeDone | None = told("With usage: what merging did.", default=None)
    depth: DepthUsed | None = told("With usage: which depth steered the merging.", default=None)
    timings_ms: TimingsMs | None = told("With usage: time of each stage in milliseconds.", default=None)
    cached: bool | None = told("With usage: whether every frame was remembered.", False, default=None)
    batch_size: int | None = told("With usage: questions answered together.", 1, default=None)
    request_id: str | None = told("With usage: name of the request.", "robot-7.0042", default=None)


class ChatErrorDetail(ResponseModel):
    """Say why a request was refused; `choices` and `limit` only where they help."""

    message: str = told("One sentence for people.", "There is no such merging method.")
    type: str = told("Kind of the refusal, as OpenAI names it.", "invalid_request_error")
    param: str | None = told("Where in the request the fault is.", "merge.method")
    code: str = told("Stable name of the refusal, for programs; the same as in POST /vqa.", "unknown_method")
    request_id: str = told("Name of the request, as in X-Request-ID.", "robot-7.0042")
    choices: list[str] | None = told("What may stand there.", ["none", "tome", "tosa"], default=None)
    limit: int | float | None = told("The bound that was passed.", 8, default=None)


class ChatErrorResponse(ResponseModel):
    """Refuse a request in the shape that clients of OpenAI's API read."""

    error: ChatErrorDetail = told("Why the request was refused.")


class ServedModel(ResponseModel):
    """Describe the model that answers."""

    id: str = told("Name of the model, as requests may give it.", "room-tiny")
    object: Literal["model"] = told("Kind of this object.", "model")
    created: int = told("When it was loaded, in seconds since 1970.", 1_790_000_000)
    owned_by: str = told("Who serves it.", "tosa-vqa")
    revision: str = told("Its revision, or a digest of its weights.", "0123456789abcdef")
    max_model_len: int = told("Longest prompt and answer together, in tokens.", 2048)


class ServedModels(ResponseModel):
    """List the model that answers."""

    object: Literal["list"] = told("Kind of this object.", "list")
    data: list[ServedModel] = told("The models: one.")
