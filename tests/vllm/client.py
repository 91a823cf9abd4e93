"""The requests that a language engine makes, written out: what a vLLM server answers to them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import torch
from torch import Tensor

from bench.vllm_server import metrics

MODEL = "model"
KEY = "of-the-speller"
"""The API key of the server that wants one; the other one reads no keys."""


@dataclass(frozen=True)
class Exchange:
    """One request and all that came back. events: the data of every event of a stream, as text."""

    request: Mapping[str, Any]
    status: int
    events: tuple[str, ...]
    body: str

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(event) for event in self.events if event != "[DONE]"]

    @property
    def token_ids(self) -> list[int]:
        return [
            id_
            for chunk in self.chunks
            for choice in chunk.get("choices", ())
            for id_ in choice.get("token_ids") or ()
        ]

    @property
    def finish_reason(self) -> str | None:
        reasons = [choice["finish_reason"] for chunk in self.chunks for choice in chunk.get("choices", ())]
        return next((reason for reason in reversed(reasons) if reason is not None), None)


def packed(embeds: Tensor) -> str:
    """Pack prompt embeddings [T, D] as the server reads them."""
    file = io.BytesIO()
    torch.save(embeds.contiguous().clone(), file)
    return base64.b64encode(file.getvalue()).decode()


def body_of(embeds: Tensor | None, **more: Any) -> dict[str, Any]:
    """Return the body of a greedy request; what is None is left out."""
    body = {
        "model": MODEL,
        "prompt_embeds": None if embeds is None else packed(embeds),
        "max_tokens": 8,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        **more,
    }
    return {name: value for name, value in body.items() if value is not None}


def ask(url: str, body: Mapping[str, Any], path: str = "/v1/completions") -> Exchange:
    """Make one request and read it to its end."""
    key = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=url, timeout=120, trust_env=False, headers=key) as client:
        response = client.post(path, json=dict(body))
    text = response.text
    events = tuple(line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    shown = {name: value for name, value in body.items() if name != "prompt_embeds"}
    return Exchange(shown, response.status_code, events, "" if events else text)


def busy(url: str) -> float:
    """Return how many requests run or wait."""
    found = metrics(url)
    return found["vllm:num_requests_running"] + found["vllm:num_requests_waiting"]
