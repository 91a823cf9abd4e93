"""Chat requests as clients of OpenAI's API write them, made in memory."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.service.files import DEPTH, IMAGE

QUESTION = "how many cubes ?"


def uri(data: bytes, kind: str = "image/png") -> str:
    """Write a file as a data: URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def text(given: str = QUESTION) -> dict[str, Any]:
    return {"type": "text", "text": given}


def image(data: bytes = IMAGE) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri(data), "detail": "high"}}


def depth(data: bytes = DEPTH) -> dict[str, Any]:
    return {"type": "depth_url", "depth_url": {"url": uri(data)}}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def chat(*messages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a good request, with other messages or fields if given; ... leaves a field out."""
    fields = {"messages": list(messages) or [user(text(), image())], "max_tokens": 4, **changes}
    return {name: value for name, value in fields.items() if value is not ...}


def body(request: Any) -> bytes:
    """Write a request as clients do."""
    return json.dumps(request).encode()
