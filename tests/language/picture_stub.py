"""A stub of vLLM's `/inference/v1/generate`: it reads features and grids of pictures as vLLM does."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgpack
import torch
from torch import Tensor

from tests.language.stub_server import Stub, running
from vlm import Visual, Vlm

TENSOR = 3


class PictureStub(Stub):
    """One server that gets ids and pictures. pictures: how many of them each prompt had."""

    path = "/inference/v1/generate"

    def __init__(self, vlm: Vlm) -> None:
        super().__init__(vlm)
        self.pictures: list[int] = []

    def heard(self, body: dict[str, Any]) -> dict[str, Any]:
        features = body.get("features") or {}
        self.pictures.append(sum(map(len, features.get("mm_hashes", {}).values())))
        kept = {name: body[name] for name in ("model", "stream", "cache_salt") if name in body}
        prefix = "".join(digest for own in features.get("mm_hashes", {}).values() for digest in own)
        return {**kept, **body["sampling_params"], "ids": body["token_ids"], "features": features} | {
            "prompt_embeds": prefix
        }

    def said(self, event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "choices": [_choice(choice) for choice in event["choices"]]}

    def _prompt(self, asked: dict[str, Any]) -> tuple[Tensor, list[Visual]]:
        found = [
            (place, modality, items(base64.b64decode(data)))
            for modality, every in (asked["features"].get("kwargs_data") or {}).items()
            for place, data in zip(asked["features"]["mm_placeholders"][modality], every, strict=True)
        ]
        found.sort(key=lambda each: each[0]["offset"])
        visuals: list[Visual] = []
        end = 0
        for place, modality, item in found:  # one behind the other is one run to the model here
            shift = visuals[-1].span if visuals and place["offset"] == end else 0
            visuals.append(self._visual(modality, item, place["length"], shift))
            end = place["offset"] + place["length"]
        return torch.tensor([asked["ids"]]), visuals

    def _visual(self, modality: str, item: Mapping[str, Tensor], length: int, shift: int) -> Visual:
        times, rows, columns = item[f"{modality}_grid_thw"].tolist()
        rows, columns = rows // 2, columns // 2
        factor = float(item.get("second_per_grid_ts", torch.tensor(1.0))) * getattr(
            self.vlm.family.vision, "tokens_per_second", 1
        )
        axes = [torch.arange(times), torch.arange(rows), torch.arange(columns)]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
        if modality == "video":
            places[0] = (places[0].double() * factor).long()
        wide = item[f"{modality}_embeds"]
        assert len(wide) == times * rows * columns == length, "here the engine of vLLM would end"
        features, *deep = wide.split(self.vlm.text_config.hidden_size, dim=1)
        return Visual(features, tuple(deep), places + shift, shift + max(rows, columns))


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    held = choice["logprobs"]
    if held is None:
        return choice
    rows = zip(choice["token_ids"], held["token_logprobs"], held["top_logprobs"], strict=True)
    content = [
        {
            "token_id": token,
            "logprob": _number(value),
            "top_logprobs": [
                {"token_id": int(name.split(":")[1]), "logprob": _number(one)} for name, one in top.items()
            ],
        }
        for token, value, top in rows
    ]
    return {**choice, "logprobs": {"content": content}}


def _number(value: float | None) -> float:
    return -9999.0 if value is None else value


def picture_stub(vlm: Vlm) -> AbstractContextManager[PictureStub]:
    return running(PictureStub(vlm))


def items(data: bytes) -> dict[str, Tensor]:
    """Read the arguments of one picture, as vLLM's own decoder does."""
    return {name: _tensor(each["data"]) for name, each in unpacked(data).items()}


def _tensor(written: Sequence[Any]) -> Tensor:
    dtype, shape, data = written
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(getattr(torch, dtype)).view(shape)


def unpacked(data: bytes) -> Any:
    """Read MessagePack; extensions are the bytes of tensors."""
    return msgpack.unpackb(data, ext_hook=_raw)


def _raw(code: int, data: bytes) -> bytes:
    assert code == TENSOR
    return data
