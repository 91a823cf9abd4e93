"""Endings of requests as the exchange would tell them, for tests of what is written down about them."""

from __future__ import annotations

from typing import Any

from service.pipeline.response_models import VqaResponse
from service.telemetry import RequestOutcome
from service.timing import StageTimer, TimingsMs

TIMINGS = {
    "receive": 1.0,
    "queue": 3.0,
    "decode": 2.0,
    "preprocess": 3.0,
    "estimate": None,
    "depth": 1.0,
    "vision": 60.0,
    "language_queue": None,
    "prefill": 10.0,
    "generate": 20.0,
    "total": 100.0,
}


def answer(method: str = "tosa", **changes: Any) -> VqaResponse:
    """An answer."""
    body: dict[str, Any] = {
        "answer": "2",
        "request_id": "abc",
        "model": {"id": "room-tiny", "revision": "0"},
        "merge": {
            "method": method,
            "keep_ratio": 0.25,
            "tokens_in": 576,
            "tokens_out": 144,
            "vit_flops_ratio": 0.6,
            "saves": ["vit", "lm"],
            "prop_attn": True,
        },
        "views": [{"kind": "single", "count": 1, "grid": [24, 24], "tiles": [0, 0], "tokens": 145}],
        "depth": None,
        "usage": {"prompt_tokens": 160, "completion_tokens": 3},
        "timings_ms": dict(TIMINGS),
        "batch_size": 2,
        "cached": False,
        "finish_reason": "stop",
    }
    return VqaResponse.model_validate(body | changes)


def answered(**changes: Any) -> RequestOutcome:
    """A question that was answered."""
    values: dict[str, Any] = {
        "route": "/vqa",
        "request_id": "abc",
        "status": 200,
        "code": None,
        "where": "done",
        "key": None,
        "answers": (answer(),),
        "timings_ms": TimingsMs.model_validate(TIMINGS),
        "total_s": 0.101,
        "question": "how many cubes ?",
    }
    return RequestOutcome(**(values | changes))


def refused(
    code: str = "overloaded", status: int = 503, where: str = "admission", **changes: Any
) -> RequestOutcome:
    """A question that was not."""
    nothing = StageTimer().timings_ms()
    return answered(code=code, status=status, where=where, answers=(), timings_ms=nothing, **changes)
