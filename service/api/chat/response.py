"""Answers, errors and models in the shape that clients of OpenAI's API read; what we add stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import ApiError
from service.pipeline.model_names import public_id
from service.request.schemas import MERGE_FIELDS
from vlm import Vlm

PREFIX = "/v1/"
"""Addresses below this answer in this shape, errors too."""
EXTRAS = ("merge", "depth", "timings_ms", "cached", "batch_size", "request_id")
"""Parts of our own answer that go along unchanged."""
PARAMS: Mapping[str, str] = {
    **{name: f"merge.{name}" for name in MERGE_FIELDS},
    **{f"depth_{name}": f"depth.{name}" for name in ("preset", "scale", "kind", "invalid")},
    "image": "messages",
    "question": "messages",
    "max_new_tokens": "max_completion_tokens",
}
"""Where a field of a question stands in a chat request, if elsewhere."""
OWNER = "tosa-vqa"


def completion(answer: Mapping[str, Any], created: int) -> dict[str, Any]:
    """Return a chat.completion of a VqaResponse body; `created` in seconds since 1970."""
    message = {"role": "assistant", "content": answer["answer"], "refusal": None}
    return {
        **_head(answer["request_id"], answer["model"], created, "chat.completion"),
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": answer["finish_reason"],
            }
        ],
        "usage": usage(answer),
        **_extras(answer),
    }


@dataclass(frozen=True)
class ChatStream:
    """Make the chunks of one streamed answer, in this order: start, text, ..., end, usage if wanted."""

    request_id: str
    model: Mapping[str, Any]  # id and revision, as in a VqaResponse
    created: int
    include_usage: bool

    def start(self) -> dict[str, Any]:
        """Return the chunk that says who speaks."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def text(self, delta: str) -> dict[str, Any]:
        """Return a chunk with a piece of the answer."""
        return self._chunk({"content": delta})

    def end(self, finish_reason: str) -> dict[str, Any]:
        """Return the chunk that says why the answer ends."""
        return self._chunk({}, finish_reason)

    def usage(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the last chunk, without choices: what a VqaResponse body says of its making."""
        return {**self._head(), "choices": [], "usage": usage(answer), **_extras(answer)}

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish_reason}
        return {**self._head(), "choices": [choice], **({"usage": None} if self.include_usage else {})}

    def _head(self) -> dict[str, Any]:
        return _head(self.request_id, self.model, self.created, "chat.completion.chunk")


def usage(answer: Mapping[str, Any]) -> dict[str, int]:
    """Return token counts and their sum."""
    counts = answer["usage"]
    return {**counts, "total_tokens": counts["prompt_tokens"] + counts["completion_tokens"]}


def models(vlm: Vlm, created: int = 0) -> dict[str, Any]:
    """Return the list of GET /v1/models: the one that answers. `created` in seconds since 1970."""
    return {"object": "list", "data": [model(vlm, created)]}


def model(vlm: Vlm, created: int = 0) -> dict[str, Any]:
    """Describe the model that answers; max_model_len is prompt and answer together, in tokens."""
    return {
        "id": public_id(vlm.id),
        "object": "model",
        "created": created,
        "owned_by": OWNER,
        "revision": vlm.revision,
        "max_model_len": vlm.max_tokens,
    }


def error_body(refusal: ApiError, request_id: str, path: str) -> dict[str, Any]:
    """Return the body of a refusal in the shape that clients of this address read."""
    body = refusal.body(request_id)
    if not path.startswith(PREFIX):
        return body
    error = body["error"]
    field = error.pop("field", None)
    return {
        "error": {
            "message": error.pop("message"),
            "type": _type(refusal.kind.status),
            "param": field if refusal.code == "unknown_field" else PARAMS.get(field, field),
            **error,
        }
    }


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")


def _head(request_id: str, model: Mapping[str, Any], created: int, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request_id}",
        "object": kind,
        "created": created,
        "model": model["id"],
        "system_fingerprint": model["revision"],
    }


def _extras(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in EXTRAS}
