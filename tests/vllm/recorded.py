"""Exchanges with a real vLLM server, which the stub of the ordinary suite is held to.

`VLLM_RECORD=1 make test-vllm` writes them anew, into tests/language/recorded/.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor

from service.language.grammars import KEPT
from tests.vllm.client import Exchange, ask, body_of
from vlm import Vlm
from vlm.grammar import JSON_OPTIONS, PLAIN
from vlm.language import embed
from vlm.probe import probe_prompts

FOLDER = Path(__file__).parents[1] / "language" / "recorded"
CHANGING = ("id", "request_id", "created", "system_fingerprint")
MEASURED = "metrics"
LOGPROBS = {"logprobs": 2, "return_tokens_as_token_ids": True}
GRAMMAR = {"grammar": PLAIN + json.dumps({**KEPT, "x-guidance": JSON_OPTIONS})}


def prompt_of(vlm: Vlm) -> Tensor:
    """Return the embeddings [12, D] of the prompt of all exchanges."""
    with torch.inference_mode():
        return embed(vlm, probe_prompts(vlm)[0])[0].clone()


def _completion(**more: Any) -> Callable[[str, Tensor], Exchange]:
    return lambda url, embeds: ask(url, body_of(embeds, **more))


def _of(change: Callable[[Tensor], Tensor], **more: Any) -> Callable[[str, Tensor], Exchange]:
    return lambda url, embeds: ask(url, body_of(change(embeds), **more))


def _get(path: str) -> Callable[[str, Tensor], Exchange]:
    def get(url: str, _: Tensor) -> Exchange:
        response = httpx.get(url + path, timeout=60, trust_env=False)
        return Exchange({"path": path}, response.status_code, (), response.text)

    return get


EXCHANGES: Mapping[str, Callable[[str, Tensor], Exchange]] = {
    "stopped_by_its_own_end": _completion(),
    "stopped_by_a_token": _completion(ignore_eos=True, stop_token_ids=[5]),
    "length": _completion(ignore_eos=True, max_tokens=3),
    "logprobs": _completion(ignore_eos=True, max_tokens=3, **LOGPROBS),
    "logprobs_of_the_chosen": _completion(ignore_eos=True, max_tokens=2, **(LOGPROBS | {"logprobs": 0})),
    "choice": _completion(structured_outputs={"choice": ["yes", "no"]}),
    "json_that_no_token_spells": _completion(structured_outputs={"json": {"type": "object"}}),
    "grammar_behind_another_library": _completion(structured_outputs=GRAMMAR),
    "nan": _of(lambda same: same * float("nan"), max_tokens=2, **LOGPROBS),
    "empty_prompt": _of(lambda same: same[:0]),
    "too_long": _of(lambda same: same.repeat(400, 1)),
    "no_room": _completion(max_tokens=1020),
    "too_many_tokens": _completion(max_tokens=5000),
    "other_width": _of(lambda same: same[:, :7]),
    "other_model": _completion(model="nobody"),
    "too_many_logprobs": _completion(logprobs=21),
    "models": _get("/v1/models"),
    "health": _get("/health"),
}
OF_BYTES: Mapping[str, Callable[[str, Tensor], Exchange]] = {
    "grammar": _completion(structured_outputs=GRAMMAR, max_tokens=64, ignore_eos=True, stop_token_ids=[5]),
    "grammar_with_logprobs": _completion(structured_outputs=GRAMMAR, max_tokens=2, **LOGPROBS),
    "grammar_that_is_none": _completion(structured_outputs={"grammar": "%llguidance {}\nstart: %jzon {}"}),
}
"""Of the server whose tokens are bytes."""


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.json"


def written(exchange: Exchange) -> dict[str, Any]:
    """Return an exchange as it is kept: events with the prefix they come with."""
    return {
        "request": dict(exchange.request),
        "status": exchange.status,
        "events": [f"data: {event}" for event in exchange.events],
        "body": exchange.body,
    }


def alike(kept: Mapping[str, Any]) -> Any:
    """Return an exchange less what differs from one run to the next.

    That is names, times, the last digits, and how many tokens come in one event.
    """
    events = [event.removeprefix("data: ") for event in kept["events"]]
    parsed = [event if event == "[DONE]" else _without(json.loads(event)) for event in events]
    return {
        "request": kept["request"],
        "status": kept["status"],
        "events": _joined(parsed),
        "body": _without(json.loads(kept["body"])) if kept["body"] else None,
    }


def _joined(events: Sequence[Any]) -> list[Any]:
    """Return events with the pieces of an answer, which follow each other, as one."""
    whole: list[Any] = []
    for event in events:
        if whole and _has_choices(event) and _has_choices(whole[-1]):
            whole[-1]["choices"] = [_added(whole[-1]["choices"][0], event["choices"][0])]
        else:
            whole.append(event)
    return whole


def _has_choices(event: Any) -> bool:
    return isinstance(event, dict) and bool(event.get("choices"))


def _added(before: Any, after: Any) -> Any:
    """Return two pieces as one: lists and texts one after the other, else the last word."""
    if before is None or after is None:
        return before if after is None else after
    if isinstance(after, dict):
        return {name: _added(before.get(name), value) for name, value in after.items()}
    return before + after if isinstance(after, list | str) else after


def _without(raw: Any) -> Any:
    if isinstance(raw, dict):
        kept = {name: _without(each) for name, each in raw.items() if name not in CHANGING}
        if MEASURED in kept and kept[MEASURED] is not None:
            kept[MEASURED] = sorted(kept[MEASURED])
        kept.pop("root", None)
        kept.pop("permission", None)
        return kept
    if isinstance(raw, list):
        return [_without(each) for each in raw]
    return round(raw, 3) if isinstance(raw, float) else raw
