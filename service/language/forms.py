"""How prompts travel to a vLLM server: as embeddings alone, or as ids with the features of pictures.

All else of the language engine speaks the completions API. A form says where prompts go, writes them, and
puts what it sends and gets into the words of that API.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from service.language.protocol import Reading
from service.language.wire import prompt_part, saved
from vlm import Vlm
from vlm.language import embed


class Form(Protocol):
    """Write prompts for one address of vLLM. path: of that address."""

    @property
    def path(self) -> str: ...

    def prompt(self, reading: Reading) -> Any:
        """Take all that is sent of a prompt, on the CPU; model thread only."""
        ...

    def part(self, prompt: Any) -> bytes:
        """Write the beginning of a request; any thread."""
        ...

    def body(self, part: bytes, fields: Mapping[str, Any]) -> bytes:
        """Write a request. fields: all but the prompt, in the words of the completions API."""
        ...

    def asked(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request with its prompt: `prompt`, ids, or `prompt_embeds`, of `encode`."""
        ...

    def encode(self, embeds: Tensor) -> Any:
        """Write embeddings [T, D] of tokens as a prompt that visual tokens could have."""
        ...

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return what a server sent in the words of the completions API. Raises Fault."""
        ...


class Embeds:
    """Send the embeddings of the whole prompt, which knows no pictures any more."""

    path = "/v1/completions"

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm

    @torch.inference_mode()
    def prompt(self, reading: Reading) -> Tensor:
        return embed(self._vlm, reading.prompt.to(self._vlm.device), reading.visuals)[0].cpu()

    def part(self, prompt: Tensor) -> bytes:
        return prompt_part(prompt)

    def body(self, part: bytes, fields: Mapping[str, Any]) -> bytes:
        return part + json.dumps(fields, separators=(",", ":")).encode()[1:]

    def asked(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return dict(fields)

    def encode(self, embeds: Tensor) -> str:
        return base64.b64encode(saved(embeds)).decode()

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        return event


def form_of(vlm: Vlm) -> Form:
    """Return the form in which the family of a model sends prompts."""
    if vlm.family.language_input == "pictures":
        from service.language.pictures import Pictures  # which others do not need

        return Pictures(vlm)
    return Embeds(vlm)
