"""Response models of the endpoints below /v1/; response.py fills them."""

from __future__ import annotations

from typing import Literal

from service.pipeline.response_models import (
    DepthUsed,
    EpisodeUsed,
    MergeDone,
    ResponseModel,
    Usage,
    ViewsUsed,
    described_field,
)
from service.timing import TimingsMs


class ChatUsage(Usage):
    """Count the tokens of the language model."""

    total_tokens: int = described_field("Both together.", 162)


class Extras(ResponseModel):
    """Hold the fields of our own answer that are copied unchanged."""

    merge: MergeDone = described_field("What merging did.")
    views: list[ViewsUsed] = described_field("How each picture, or the video, was seen, in order.")
    depth: DepthUsed | None = described_field(
        "Which depth guided the merging; null if none did and none was sent."
    )
    timings_ms: TimingsMs = described_field("Time of each stage in milliseconds.")
    cached: bool = described_field("Whether every frame was remembered, so that no encoder ran.", False)
    batch_size: int = described_field("Questions that were answered together, this one among them.", 1)
    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    episode: EpisodeUsed | None = described_field(
        "How tokens merged across frames; only of an episode.", default=None
    )


class _Head(ResponseModel):
    id: str = described_field("Name of the answer, made of the request's.", "chatcmpl-robot-7.0042")
    created: int = described_field("When it was made, in seconds since 1970.", 1_790_000_000)
    model: str = described_field("The model that answered.", "room-tiny")
    system_fingerprint: str = described_field(
        "Revision of the model, or a digest of its weights.", "0123456789abcdef"
    )


class CalledFunction(ResponseModel):
    """Name a function and its arguments."""

    name: str = described_field("Name of the function.", "report")
    arguments: str = described_field(
        "Its arguments, as JSON that matches its parameters.", '{"answer": "left"}'
    )


class ToolCall(ResponseModel):
    """Hold the call of a function that the request asked for."""

    id: str = described_field("Name of the call.", "call-robot-7.0042-0")
    type: Literal["function"] = described_field("Kind of the call.", "function")
    function: CalledFunction = described_field("The function and its arguments.")


class AssistantMessage(ResponseModel):
    """Hold the answer."""

    role: Literal["assistant"] = described_field("Role of the author.", "assistant")
    content: str | None = described_field("The answer; null where it is a call.", "2")
    refusal: None = described_field("Always null: this model refuses nothing.", None)
    tool_calls: list[ToolCall] | None = described_field(
        "The call, in a list of one, if the request asked for one.", default=None
    )


class LikelyToken(ResponseModel):
    """Hold a token with its probability."""

    token: str = described_field("What the token adds to the text.", "left")
    logprob: float = described_field(
        "Natural logarithm of its probability, before temperature, top_p and schema.", -0.01
    )
    bytes: list[int] = described_field("The token in UTF-8, for tokens that are parts of characters.", [108])


class WrittenToken(LikelyToken):
    """Hold a token of the answer, and the likeliest ones in its place."""

    top_logprobs: list[LikelyToken] = described_field("As many as top_logprobs asks for, most likely first.")


class ChoiceLogprobs(ResponseModel):
    """Hold the probabilities of the tokens that the model chose."""

    content: list[WrittenToken] = described_field("The tokens of the answer, in order.")
    refusal: None = described_field("Always null.", None)


FinishReason = Literal["stop", "length", "tool_calls"]


class Choice(ResponseModel):
    """Hold one answer."""

    index: int = described_field("Number of the choice, from 0.", 0)
    message: AssistantMessage = described_field("The message of the model.")
    logprobs: ChoiceLogprobs | None = described_field("Probabilities of its tokens, if asked for.")
    finish_reason: FinishReason = described_field(
        "length: cut off at max_completion_tokens or at the end of the context, JSON too.", "stop"
    )


class ChatCompletion(_Head, Extras):
    """Answer a conversation; merge and what follows is ours, the rest as OpenAI has it."""

    object: Literal["chat.completion"] = described_field("Kind of this object.", "chat.completion")
    choices: list[Choice] = described_field("The answers: n of them.")
    usage: ChatUsage = described_field("Tokens of the language model.")


class DeltaFunction(ResponseModel):
    """Hold the new part of a call."""

    name: str | None = described_field("Name of the function, when it is known.", "report", default=None)
    arguments: str = described_field("A piece of the arguments.", '{"answer": ')


class DeltaCall(ResponseModel):
    """Hold the new part of a call; id and type come with the name."""

    index: int = described_field("Always 0: an answer is one call.", 0)
    id: str | None = described_field("Name of the call.", "call-robot-7.0042-0", default=None)
    type: Literal["function"] | None = described_field("Kind of the call.", "function", default=None)
    function: DeltaFunction = described_field("The new part.")


class Delta(ResponseModel):
    """Hold the new part of the message."""

    role: Literal["assistant"] | None = described_field(
        "Role of the author, in the first chunk.", "assistant", default=None
    )
    content: str | None = described_field("A piece of the answer.", "2", default=None)
    refusal: None = described_field("Always null; in the first chunk.", None, default=None)
    tool_calls: list[DeltaCall] | None = described_field(
        "A piece of the call, if the request asked for one.", default=None
    )


class ChunkChoice(ResponseModel):
    """Hold a piece of one answer."""

    index: int = described_field("Number of the choice, from 0.", 0)
    delta: Delta = described_field("The new part of the message.")
    logprobs: ChoiceLogprobs | None = described_field("Probabilities of its tokens, if asked for.")
    finish_reason: FinishReason | None = described_field("In the last chunk of a choice.", "stop")


class ChatCompletionChunk(_Head):
    """Hold a piece of a streamed answer; with include_usage the last has no choice, but the counts."""

    object: Literal["chat.completion.chunk"] = described_field(
        "Kind of this object.", "chat.completion.chunk"
    )
    choices: list[ChunkChoice] = described_field("A piece of one of the answers; none with the counts.")
    usage: ChatUsage | None = described_field("In the last chunk, if asked for.", default=None)
    merge: MergeDone | None = described_field("With usage: what merging did.", default=None)
    views: list[ViewsUsed] | None = described_field("With usage: how pictures were seen.", default=None)
    depth: DepthUsed | None = described_field("With usage: which depth guided the merging.", default=None)
    timings_ms: TimingsMs | None = described_field(
        "With usage: time of each stage in milliseconds.", default=None
    )
    cached: bool | None = described_field(
        "With usage: whether every frame was remembered.", False, default=None
    )
    batch_size: int | None = described_field("With usage: questions answered together.", 1, default=None)
    request_id: str | None = described_field("With usage: name of the request.", "robot-7.0042", default=None)
    episode: EpisodeUsed | None = described_field(
        "With usage: how tokens merged across frames.", default=None
    )


class ChatErrorDetail(ResponseModel):
    """Describe why a request was refused; `choices` and `limit` are optional."""

    message: str = described_field("One sentence for people.", "There is no such merging method.")
    type: str = described_field("Kind of the refusal, as OpenAI names it.", "invalid_request_error")
    param: str | None = described_field("Where in the request the fault is.", "merge.method")
    code: str = described_field(
        "Stable name of the refusal, for programs; the same as in POST /vqa.", "unknown_method"
    )
    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    choices: list[str] | None = described_field(
        "The accepted values.", ["none", "tome", "tosa"], default=None
    )
    limit: int | float | None = described_field("The bound that was passed.", 8, default=None)


class ChatErrorResponse(ResponseModel):
    """Refuse a request in the shape that clients of OpenAI's API read."""

    error: ChatErrorDetail = described_field("Why the request was refused.")


class ServedModel(ResponseModel):
    """Describe the model that answers."""

    id: str = described_field("Name of the model, as requests may give it.", "room-tiny")
    object: Literal["model"] = described_field("Kind of this object.", "model")
    created: int = described_field("When it was loaded, in seconds since 1970.", 1_790_000_000)
    owned_by: str = described_field("Who serves it.", "tosa-vqa")
    revision: str = described_field("Its revision, or a digest of its weights.", "0123456789abcdef")
    max_model_len: int = described_field("Longest prompt and answer together, in tokens.", 2048)


class ServedModels(ResponseModel):
    """List the model that answers."""

    object: Literal["list"] = described_field("Kind of this object.", "list")
    data: list[ServedModel] = described_field("The models: one.")
