"""LoRA adapters: folders with the difference to a base model alone, merged into it by peft (extra `lora`)."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vlm.description import READER
from vlm.model import Vlm, VlmError

UNMATCHED = "missing adapter keys"
"""What peft warns of where it finds no weights for a layer."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Say whether a folder holds an adapter, and no whole model."""
    whole = (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))
    return (folder / CONFIG).is_file() and not whole


def require_no_adapter(source: str, folder: Path) -> None:
    """Raise VlmError (broken_checkpoint) for a whole model with an adapter beside it."""
    if (folder / CONFIG).is_file():
        reason = f"it holds a whole model and an adapter: delete {CONFIG} if the weights are merged already"
        raise READER.broken(source, reason)


def base_of(source: str, folder: Path) -> str:
    """Return the name of the model that an adapter belongs to.

    Raises VlmError: missing_package without peft, and unsupported_model for what is no LoRA.
    """
    raw = READER.read_json(source, folder / CONFIG)
    base, kind = raw.get("base_model_name_or_path"), raw.get("peft_type")
    if not isinstance(base, str) or not base:
        raise READER.broken(source, f"{CONFIG} does not say base_model_name_or_path, the model it belongs to")
    if kind != "LORA":
        message = f"{source} is an adapter of kind {kind}; of adapters only LORA can be loaded: merge it"
        raise VlmError("unsupported_model", message)
    if find_spec("peft") is None:
        message = (
            f"{source} is a LoRA adapter of {base} without that model: pip install 'tosa-vqa[lora]', or "
            "merge it once with peft (merge_and_unload, then save_pretrained) and name that folder"
        )
        raise VlmError("missing_package", message)
    return base


def merge_adapter(vlm: Vlm, source: str, folder: Path, revision: str) -> Vlm:
    """Add an adapter to the weights of its base, which is not to be used any more."""
    try:
        model = READER.or_broken(source, lambda: _merged(vlm.model, folder))
    except VlmError as error:
        if UNMATCHED not in str(error):
            raise
        reason = (
            f"its weights do not fit {vlm.id}: it was made for another model, or for other names of weights"
        )
        raise READER.broken(source, reason) from error
    both = hashlib.sha256(f"{vlm.revision} {revision}".encode()).hexdigest()[:16]
    return replace(vlm, id=source, model=model, revision=both)


def _merged(model: Any, folder: Path) -> Any:
    from peft import PeftModel  # pyright: ignore[reportMissingImports]

    with warnings.catch_warnings():
        # Only warned of: these weights would stay at their start, which changes nothing.
        warnings.filterwarnings("error", message=f".*{UNMATCHED}.*")
        return PeftModel.from_pretrained(model, folder).merge_and_unload().eval()
