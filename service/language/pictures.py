"""Prompts of models whose positions are in space: ids, with the features and the grid of every picture.

vLLM takes these at `/inference/v1/generate`, as its own preprocessor hands pictures to its engine
(`--enable-scale-out`, `--enable-mm-embeds`). Its engine ends with an error if features are not as many as
their grid has cells, or of another width: nothing else may be sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgpack
import torch
from torch import Tensor

from service.language.faults import Fault
from service.language.protocol import Reading
from service.language.wire import TOKEN
from vlm import Vlm
from vlm.families import VisualRun

RAW = 3
"""The type of extension that vLLM gives the bytes of a tensor (vllm/v1/serial_utils.py)."""
NO_NUMBER = -9999.0
"""Written in place of a log-probability that is NaN or minus infinity."""
SAMPLING = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "stop_token_ids",
    "ignore_eos",
    "seed",
    "logprobs",
    "structured_outputs",
)
"""Fields that this address takes in `sampling_params`."""
ALWAYS = ("return_token_ids", "return_tokens_as_token_ids")
"""Fields of the completions API that ask for what this address does anyway."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """Hold ids and the runs of visual tokens among them. salt: apart from equal pictures of other salts."""

    ids: list[int]
    runs: tuple[VisualRun, ...]
    salt: str = ""


class Pictures:
    """Send ids, and of every picture its features and grid."""

    path = "/inference/v1/generate"

    def __init__(self, vlm: Vlm) -> None:
        self._vlm, self._family = vlm, vlm.family

    @torch.inference_mode()
    def prompt(self, reading: Reading) -> Prompt:
        ids = reading.prompt[0].tolist()
        return Prompt(ids, self._family.visual_runs(ids, reading.visuals), reading.salt or "")

    def part(self, prompt: Prompt) -> bytes:
        return json.dumps(_written(prompt), separators=(",", ":")).encode()[:-1] + b","

    def body(self, part: bytes, fields: Mapping[str, Any]) -> bytes:
        return part + json.dumps(_nested(fields), separators=(",", ":")).encode()[1:]

    def asked(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        others = {name: value for name, value in fields.items() if name not in ("prompt", "prompt_embeds")}
        prompt = fields["prompt_embeds"] if "prompt" not in fields else {"token_ids": fields["prompt"]}
        return {**prompt, **_nested(others)}

    def encode(self, embeds: Tensor) -> dict[str, Any]:
        """Write every token as a picture of one cell: these have the positions that text has."""
        rows, columns = self._family.cell
        levels = embeds.new_zeros(len(embeds), embeds.shape[1] * self._family.num_levels)
        wide = torch.cat((embeds, levels), dim=1)
        runs = (VisualRun(at, wide[at : at + 1], (1, rows, columns)) for at in range(len(wide)))
        return _written(Prompt([self._family.image_token_id] * len(wide), tuple(runs)))

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        try:
            return {**event, "choices": [_choice(choice) for choice in event.get("choices") or ()]}
        except (KeyError, TypeError, AttributeError):
            raise Fault("language_garbled", "an event of another form") from None


def _written(prompt: Prompt) -> dict[str, Any]:
    """Return the fields of a prompt. Videos whose times are one run are of another modality than pictures."""
    if not prompt.runs:
        return {"token_ids": prompt.ids}
    features: dict[str, dict[str, list[Any]]] = {"mm_hashes": {}, "mm_placeholders": {}, "kwargs_data": {}}
    for run in prompt.runs:
        modality = "image" if run.grid[0] == 1 else "video"
        data = packed(_item(modality, run))
        place = {"offset": run.start, "length": len(run.features)}
        digest = hashlib.sha256(data + prompt.salt.encode()).hexdigest()
        for name, value in (
            ("mm_hashes", digest),
            ("mm_placeholders", place),
            ("kwargs_data", base64.b64encode(data).decode()),
        ):
            features[name].setdefault(modality, []).append(value)
    return {"token_ids": prompt.ids, "features": features}


def _item(modality: str, run: VisualRun) -> dict[str, Any]:
    """Return the arguments of the model for one run, each with how vLLM joins those of several."""
    own = {"keep_on_cpu": True}
    rows = {"slices": [[0, len(run.features), None]], "dim": 0, "keep_on_cpu": False}
    item: dict[str, Any] = {
        f"{modality}_embeds": {"data": run.features, "field": ["flat", rows]},
        f"{modality}_grid_thw": {"data": torch.tensor(run.grid), "field": ["batched", own]},
    }
    if modality == "video":
        seconds = torch.tensor(run.seconds, dtype=torch.float64)
        item["second_per_grid_ts"] = {"data": seconds, "field": ["batched", own]}
    return item


def packed(value: object) -> bytes:
    """Write values and tensors in MessagePack, as vLLM reads features."""
    return cast(bytes, msgpack.packb(value, default=_tensor))


def _tensor(value: object) -> tuple[str, list[int], msgpack.ExtType]:
    if not isinstance(value, Tensor):
        raise TypeError(f"a {type(value).__name__} cannot be written")
    data = value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return str(value.dtype).removeprefix("torch."), list(value.shape), msgpack.ExtType(RAW, data)


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of the completions API as this address takes them.

    It counts the chosen token among the likeliest: one more is asked for where it may be none of them.
    """
    sampling = {name: fields[name] for name in SAMPLING if name in fields}
    if sampling.get("logprobs") and sampling["temperature"]:
        sampling["logprobs"] += 1
    others = {name: value for name, value in fields.items() if name not in (*SAMPLING, *ALWAYS)}
    return {**others, "sampling_params": {**sampling, "detokenize": False}}


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    logprobs = choice.get("logprobs")
    return {**choice, "logprobs": None if logprobs is None else _logprobs(logprobs["content"])}


def _logprobs(steps: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return probabilities in lists, one element for each token."""
    steps = steps or ()
    return {
        "token_logprobs": [None if _is_none(step) else step["logprob"] for step in steps],
        "top_logprobs": [
            {f"{TOKEN}{one['token_id']}": one["logprob"] for one in step["top_logprobs"] if not _is_none(one)}
            for step in steps
        ],
    }


def _is_none(one: Mapping[str, Any]) -> bool:
    return one["logprob"] == NO_NUMBER
