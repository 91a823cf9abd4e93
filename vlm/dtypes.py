"""The dtype that a checkpoint is written in: what its config says, or else its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vlm.checkpoint_files.formats import WEIGHT_FILES

FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Names of dtypes in a safetensors header."""


def short(dtype: torch.dtype) -> str:
    """Return the name of a dtype without the module."""
    return str(dtype).removeprefix("torch.")


NAMED = {short(dtype): dtype for dtype in FLOATS.values()}


def said_dtype(config: Any) -> torch.dtype | None:
    """Return the dtype that a config says of the whole, or else of its language model; None if neither."""
    for each in (config, getattr(config, "text_config", None)):
        found = getattr(each, "dtype", None)
        found = NAMED.get(found) if isinstance(found, str) else found
        if found in NAMED.values():
            return found
    return None


def own_dtype(config: Any, folder: Path) -> torch.dtype:
    """Return the dtype of a checkpoint whose weights are there; float32 where nothing says it."""
    return said_dtype(config) or _of_weights(folder) or torch.float32


def _of_weights(folder: Path) -> torch.dtype | None:
    for path in sorted(folder.glob(WEIGHT_FILES)):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            try:
                tensors = json.loads(file.read(min(length, 100_000_000)))
            except ValueError:  # loading says what is wrong with it
                continue
        kinds = (each.get("dtype") for name, each in tensors.items() if name != "__metadata__")
        found = next((FLOATS[kind] for kind in kinds if kind in FLOATS), None)
        if found is not None:
            return found
    return None
