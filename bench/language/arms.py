"""The servers that are compared, the requests that each gets, and which of them share a server."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.load.corpus import question_form, view
from bench.load.requests import Request

Server = Literal["vllm alone", "vllm alone, all cores", "torch", "vllm"]
"""vLLM with the whole checkpoint, as it comes and as fast as we could make it; our service by itself; our
service with a vLLM server behind it."""
VLLM_MODEL = "model"
ANSWER_TOKENS = 8


@dataclass(frozen=True)
class Arm:
    """One way to have questions answered: a server, and the fields that our service gets."""

    server: Server
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_alone(self) -> bool:
        """Return whether vLLM answers without us."""
        return self.server not in OURS

    @property
    def name(self) -> str:
        """Return the server, views and method."""
        if self.is_alone:
            return self.server
        keep = f" {self.fields['keep_ratio']:g}" if "keep_ratio" in self.fields else ""
        return f"{self.server}, {self.fields['views']}, {self.fields['method']}{keep}"

    def request(
        self, frame: int, question: int = 0, max_tokens: int = ANSWER_TOKENS, stream: bool = False
    ) -> Request:
        """Return the request of one question about one frame of RoomQA's test split."""
        if self.is_alone:
            return _chat(frame, question, max_tokens)
        fields = {**self.fields, "max_new_tokens": max_tokens, **({"stream": "true"} if stream else {})}
        return Request("/vqa", question_form(frame, fields, question), str(frame))

    def answer(self, body: Mapping[str, Any]) -> str:
        """Return the text of an answer."""
        if self.is_alone:
            return str(body["choices"][0]["message"]["content"]).strip()
        return str(body["answer"])

    def tokens(self, body: Mapping[str, Any]) -> int:
        """Count the tokens of an answer."""
        return int(body["usage"]["completion_tokens"])


def _chat(frame: int, question: int, max_tokens: int) -> Request:
    """Return a question to vLLM by itself, over the API of OpenAI that it has."""
    shown = view(frame)
    url = f"data:image/jpeg;base64,{base64.b64encode(shown.image).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": shown.questions[question]},
    ]
    body = {
        "model": VLLM_MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    return Request("/v1/chat/completions", json.dumps(body).encode(), str(frame), "application/json")


OURS: tuple[Server, Server] = ("torch", "vllm")
NONE, TOSA = {"method": "none"}, {"method": "tosa", "keep_ratio": 0.25}
ANYRES, SINGLE = {"views": "anyres"}, {"views": "single"}
ALONE, ALL_CORES = Arm("vllm alone"), Arm("vllm alone, all cores")
"""Cuts pictures into the views of the checkpoint's own processor, as `anyres` does."""
ARMS: Sequence[Arm] = (
    ALONE,
    ALL_CORES,
    *(
        Arm(server, views | method)
        for server in OURS
        for views in (ANYRES, SINGLE)
        for method in (NONE, TOSA)
    ),
)
LONG_ARMS: Sequence[Arm] = tuple(Arm(server, SINGLE | TOSA) for server in OURS)
"""With a language model of the shape of Qwen2-0.5B, and longer answers."""
