"""The clients that people use, each on one kept-alive connection: httpx, requests, openai."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import openai
import requests
from PIL import Image

TIMEOUT_S = 60
MERGE = {"method": "cubist", "keep_ratio": 0.25}
QUESTION = "how many chairs are there?"
FIELDS = {"question": QUESTION, "max_new_tokens": "1", **{name: str(value) for name, value in MERGE.items()}}

Ask = Callable[[], dict[str, Any]]
"""Send one request and read its whole answer; return the timings_ms that it reports, empty if none."""


def image_of(size: int) -> bytes:
    """Return a PNG of about `size` bytes that is quickly decoded: random pixels, stored uncompressed."""
    side = round((size / 3) ** 0.5)
    pixels = np.random.default_rng(size).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


@contextmanager
def over_httpx(url: str, body_bytes: int) -> Iterator[Ask]:
    """Ask with httpx, as a form."""
    files = {"image": ("frame.png", image_of(body_bytes))}
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        yield lambda: _timings(client.post(f"{url}/vqa", data=FIELDS, files=files).raise_for_status().json())


@contextmanager
def over_requests(url: str, body_bytes: int) -> Iterator[Ask]:
    """Ask with requests, as a form."""
    files = {"image": ("frame.png", image_of(body_bytes))}
    with requests.Session() as session:
        session.trust_env = False

        def ask() -> dict[str, Any]:
            response = session.post(f"{url}/vqa", data=FIELDS, files=files, timeout=TIMEOUT_S)
            response.raise_for_status()
            return _timings(response.json())

        yield ask


@contextmanager
def over_openai(url: str, body_bytes: int) -> Iterator[Ask]:
    """Ask with OpenAI's client, as JSON that holds the image in base64."""
    uri = f"data:image/png;base64,{base64.b64encode(image_of(body_bytes * 3 // 4)).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": QUESTION}]
    messages: list[Any] = [{"role": "user", "content": parts}]
    http = openai.DefaultHttpxClient(timeout=TIMEOUT_S, trust_env=False)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http) as client:

        def ask() -> dict[str, Any]:
            answer = client.chat.completions.create(
                model="room-tiny", messages=messages, max_tokens=1, extra_body={"merge": MERGE}
            )
            return _timings(answer.model_extra or {})

        yield ask


CLIENTS = {"httpx": over_httpx, "requests": over_requests, "openai": over_openai}


def _timings(answer: dict[str, Any]) -> dict[str, Any]:
    return answer.get("timings_ms") or {}
