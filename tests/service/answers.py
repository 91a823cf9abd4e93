"""Answers of the service as its own responses have them, made up."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from service.api.serialise import json_response
from service.pipeline.response_models import VqaResponse

BODY: dict[str, Any] = {
    "answer": "2 cubes",
    "request_id": "abc",
    "model": {"id": "tiny", "revision": "0123456789abcdef"},
    "merge": {
        "method": "tosa",
        "keep_ratio": 0.25,
        "tokens_in": 16,
        "tokens_out": 4,
        "vit_flops_ratio": 0.6,
        "saves": ["vit", "lm"],
        "prop_attn": True,
    },
    "views": [{"kind": "single", "count": 1, "grid": [4, 4], "tiles": [0, 0], "tokens": 5}],
    "depth": None,
    "usage": {"prompt_tokens": 20, "completion_tokens": 3},
    "finish_reason": "stop",
    "cached": False,
    "batch_size": 2,
    "timings_ms": {
        "receive": 0.4,
        "queue": 0.1,
        "decode": 1.0,
        "preprocess": 1.0,
        "estimate": None,
        "depth": None,
        "vision": 5.0,
        "prefill": 2.0,
        "generate": 1.0,
        "total": 10.5,
    },
}
ANSWER = VqaResponse.model_validate(BODY)


def sent(body: BaseModel) -> Any:
    """Return what a client reads of a response."""
    return json.loads(bytes(json_response(body).body))


def answered(**changes: Any) -> VqaResponse:
    """Return an answer with some parts changed."""
    return VqaResponse.model_validate({**BODY, **changes})
