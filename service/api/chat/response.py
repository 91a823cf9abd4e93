"""Answers and models in the format of OpenAI's API, with our own fields added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.api.chat.schemas import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    ChatUsage,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    FinishReason,
    ServedModel,
    ServedModels,
)
from service.pipeline.model_names import public_id
from service.pipeline.response_models import ModelUsed, VqaResponse
from vlm import Vlm

OWNER = "tosa-vqa"
CHUNK: Literal["chat.completion.chunk"] = "chat.completion.chunk"


def completion(answer: VqaResponse, created: int, choices: Sequence[Choice] | None = None) -> ChatCompletion:
    """Return an answer as a chat.completion; `created` in seconds since 1970.

    choices: all answers of a request that asked for more than a text.
    """
    message = AssistantMessage(role="assistant", content=answer.answer, refusal=None)
    only = Choice(index=0, message=message, logprobs=None, finish_reason=answer.finish_reason)
    return ChatCompletion(
        **_head(answer.request_id, answer.model, created),
        object="chat.completion",
        choices=[only] if choices is None else list(choices),
        usage=usage(answer),
        **_extras(answer),
    )


@dataclass(frozen=True)
class ChatStream:
    """Make the chunks of streamed answers: start, pieces and end of each; then usage if wanted."""

    request_id: str
    model: ModelUsed
    created: int
    include_usage: bool

    def start(self, index: int = 0, delta: Delta | None = None) -> ChatCompletionChunk:
        """Return the first chunk of an answer, with the role."""
        return self.piece(delta or Delta(role="assistant", content="", refusal=None), index)

    def text(self, delta: str) -> ChatCompletionChunk:
        """Return a chunk with a piece of the only answer."""
        return self.piece(Delta(content=delta))

    def piece(
        self, delta: Delta, index: int = 0, logprobs: ChoiceLogprobs | None = None
    ) -> ChatCompletionChunk:
        """Return a chunk with a piece of an answer."""
        return self._chunk(ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=None))

    def end(self, finish_reason: FinishReason, index: int = 0) -> ChatCompletionChunk:
        """Return the last chunk of an answer, with the finish reason."""
        choice = ChunkChoice(index=index, delta=Delta(), logprobs=None, finish_reason=finish_reason)
        return self._chunk(choice)

    def usage(self, answer: VqaResponse) -> ChatCompletionChunk:
        """Return the last chunk: token counts and our own fields, without choices."""
        return ChatCompletionChunk(
            **self._head(), object=CHUNK, choices=[], usage=usage(answer), **_extras(answer)
        )

    def _chunk(self, choice: ChunkChoice) -> ChatCompletionChunk:
        no_usage: dict[str, Any] = {"usage": None} if self.include_usage else {}
        return ChatCompletionChunk(**self._head(), object=CHUNK, choices=[choice], **no_usage)

    def _head(self) -> dict[str, Any]:
        return _head(self.request_id, self.model, self.created)


def usage(answer: VqaResponse) -> ChatUsage:
    """Return token counts and their sum."""
    read, written = answer.usage.prompt_tokens, answer.usage.completion_tokens
    return ChatUsage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def models(vlm: Vlm, created: int = 0) -> ServedModels:
    """Return the list of GET /v1/models: the one that answers. `created` in seconds since 1970."""
    return ServedModels(object="list", data=[model(vlm, created)])


def model(vlm: Vlm, created: int = 0) -> ServedModel:
    """Describe the model that answers; max_model_len is prompt and answer together, in tokens."""
    return ServedModel(
        id=public_id(vlm.id),
        object="model",
        created=created,
        owned_by=OWNER,
        revision=vlm.revision,
        max_model_len=vlm.max_tokens,
    )


def _head(request_id: str, model: ModelUsed, created: int) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request_id}",
        "created": created,
        "model": model.id,
        "system_fingerprint": model.revision,
    }


def _extras(answer: VqaResponse) -> dict[str, Any]:
    """Return the fields of our own answer that are copied unchanged."""
    return {
        "merge": answer.merge,
        "views": answer.views,
        "depth": answer.depth,
        "timings_ms": answer.timings_ms,
        "cached": answer.cached,
        "batch_size": answer.batch_size,
        "request_id": answer.request_id,
        **({} if answer.episode is None else {"episode": answer.episode}),
    }
