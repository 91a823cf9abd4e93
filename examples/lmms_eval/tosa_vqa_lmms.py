"""The model tosa_vqa for lmms-eval: its own OpenAI client, with the request's extra fields added.

lmms-eval's client (0.7.3) passes no extra fields, so without this only `method=none` can be measured.
The server validates `merge` and `depth`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from lmms_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
from lmms_eval.models.chat.openai import OpenAICompatible  # pyright: ignore[reportMissingImports]
from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

EXAMPLE = 'merge={"method":"tosa","keep_ratio":0.25}'


@register_model("tosa_vqa")
class TosaVqa(OpenAICompatible):
    """Ask a tosa-vqa server. merge, depth: objects of the request, as JSON text; the rest as `openai`."""

    is_simple = False

    def __init__(self, merge: Any = "", depth: Any = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        extra = {name: _object(name, text) for name, text in (("merge", merge), ("depth", depth)) if text}
        completions = self.client.chat.completions
        completions.create = sending(completions.create, extra)


def sending(create: Callable[..., Any], extra: Mapping[str, Any]) -> Callable[..., Any]:
    """Return `create` with `extra` merged into the extra_body of each call."""

    def create_with(**payload: Any) -> Any:
        return create(**{**payload, "extra_body": {**payload.get("extra_body", {}), **extra}})

    return create_with


def manifest() -> ModelManifest:
    """Return the manifest by which lmms-eval finds the model."""
    return ModelManifest(model_id="tosa_vqa", chat_class_path="tosa_vqa_lmms.TosaVqa")


def _object(name: str, text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise ValueError(f"{name} is not JSON ({error}): {text}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object, such as {EXAMPLE}, not {text}")
    return value
