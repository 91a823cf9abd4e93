"""Exchanges with a real vLLM server about pictures of Qwen2.5-VL, beside those of `recorded`.

The model is that of `write_wide`, whose weights are the same wherever they are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from service.language.pictures import Pictures, Prompt
from service.language.wire import request_fields
from tests.vllm.client import MODEL, Exchange, ask
from tests.vllm.recorded import FOLDER
from vlm import GenerationParams, Vlm
from vlm.families import VisualRun

KEPT = FOLDER.with_name("recorded_pictures")
CELLS = (2, 3)
FIRST = 200  # ids of text; the tiny vocabularies have some of their own below


def prompt_of(vlm: Vlm) -> Prompt:
    """Return text, one picture of six cells whose numbers are drawn, and text."""
    rows, columns = CELLS
    drawn = torch.randn(
        rows * columns, vlm.text_config.hidden_size, generator=torch.Generator().manual_seed(3)
    )
    ids = [FIRST, FIRST + 1, *[vlm.image_token_id] * len(drawn), FIRST + 2, FIRST + 3]
    return Prompt(ids, (VisualRun(2, drawn, (1, rows * 2, columns * 2)),))


def _streamed(**params: Any) -> Callable[[str, Vlm], Exchange]:
    def stream(url: str, vlm: Vlm) -> Exchange:
        form, given = Pictures(vlm), GenerationParams(**params)
        fields = request_fields(MODEL, given, given.max_new_tokens, [5])
        return _asked(url, form, json.loads(form.body(form.part(prompt_of(vlm)), fields)))

    return stream


def _changed(change: Callable[[dict[str, Any]], None]) -> Callable[[str, Vlm], Exchange]:
    def stream(url: str, vlm: Vlm) -> Exchange:
        form = Pictures(vlm)
        fields = request_fields(MODEL, GenerationParams(max_new_tokens=3), 3, [5])
        body = json.loads(form.body(form.part(prompt_of(vlm)), fields))
        change(body)
        return _asked(url, form, body)

    return stream


def _asked(url: str, form: Pictures, body: dict[str, Any]) -> Exchange:
    exchange = ask(url, body, form.path)
    shown = {name: value for name, value in exchange.request.items() if name != "features"}
    return Exchange(shown, exchange.status, exchange.events, exchange.body)


def _without_end(body: dict[str, Any]) -> None:
    body["features"]["mm_placeholders"]["image"][0]["length"] = 99


def _tokens(url: str, vlm: Vlm) -> Exchange:
    form = Pictures(vlm)
    more = {"max_tokens": 1, "temperature": 0, "logprobs": 2, "ignore_eos": True}
    return _asked(url, form, form.asked({"model": MODEL, "prompt": [FIRST, FIRST + 1, FIRST + 2], **more}))


PICTURES: Mapping[str, Callable[[str, Vlm], Exchange]] = {
    "length": _streamed(max_new_tokens=3),
    "logprobs": _streamed(max_new_tokens=3, top_logprobs=2),
    "drawn": _streamed(max_new_tokens=2, top_logprobs=1, temperature=2.0, seed=1),
    "tokens": _tokens,
    "outside": _changed(_without_end),
    "other_model": _changed(lambda body: body.update(model="nobody")),
}
