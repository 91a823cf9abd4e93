"""Quantised weights: which can be loaded, the packages that read them, and the dtype they compute in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from vlm.dtypes import short
from vlm.model import VlmError

EXTRA = "tosa-vqa[quantised]"


@dataclass(frozen=True)
class Method:
    """One `quant_method`. packages: by the name they are imported under. extra: ours installs them.

    dtype: the only one that activations may have; None for any. bits: of most weights, for estimates.
    dense: the weights become ordinary ones, of the dtype of the model, while they are read.
    """

    packages: Mapping[str, str]
    extra: bool = True
    dtype: torch.dtype | None = None
    bits: int | None = None
    dense: bool = False


METHODS = {
    "torchao": Method({"torchao": "torchao"}),
    "bitsandbytes": Method(
        {"bitsandbytes": "bitsandbytes", "accelerate": "accelerate"}, dtype=torch.bfloat16
    ),
    "awq": Method({"gptqmodel": "gptqmodel", "accelerate": "accelerate"}, extra=False, bits=4),
    "gptq": Method({"gptqmodel": "gptqmodel", "optimum": "optimum"}, extra=False, bits=4),
    "fp8": Method({"accelerate": "accelerate"}, bits=8),
    "compressed-tensors": Method({"compressed_tensors": "compressed-tensors"}, dense=True),
}


def quantisation(raw: Mapping[str, Any]) -> str | None:
    """Return the `quant_method` of a config.json, None if its weights are not quantised.

    Raises VlmError (unsupported_quantisation) for one that does not run here.
    """
    text = raw.get("text_config")
    found = _settings(raw) or _settings(text if isinstance(text, Mapping) else {})
    if not found:
        return None
    name = found.get("quant_method")
    if name is None and (found.get("load_in_4bit") or found.get("load_in_8bit")):
        name = "bitsandbytes"
    if name not in METHODS:
        message = f"its weights are quantised by {name}; those that load are {', '.join(METHODS)}, or take "
        raise VlmError(
            "unsupported_quantisation", message + "the weights without quantisation", choices=tuple(METHODS)
        )
    return str(name)


def require_packages(name: str) -> None:
    """Raise VlmError (missing_package) where a package that reads these weights is not installed."""
    method = METHODS[name]
    absent = [package for module, package in method.packages.items() if find_spec(module) is None]
    if absent:
        install = f"'{EXTRA}'" if method.extra else " ".join(absent)
        needs = f"which needs {', '.join(absent)}: pip install {install}"
        message = f"its weights are quantised by {name}, {needs}"
        raise VlmError("missing_package", message)


def required_dtype(name: str, dtype: torch.dtype, chosen: bool) -> torch.dtype:
    """Return the dtype that these weights compute in. chosen: somebody asked for `dtype`.

    Raises VlmError (unsupported_dtype) if they do not compute in it.
    """
    needed = METHODS[name].dtype
    if needed is None or dtype == needed:
        return dtype
    if chosen:
        message = f"weights quantised by {name} compute in {short(needed)}, not {short(dtype)}: "
        raise VlmError("unsupported_dtype", f"{message}leave dtype at auto")
    return needed


def prepare(name: str, config: Any) -> None:
    """Ask transformers for dense weights where nothing else runs, in the config of a checkpoint.

    compressed-tensors would unpack them in the first forward of the whole model, which is never called.
    """
    parts: tuple[Any, ...] = (config, getattr(config, "text_config", None))
    for each in parts if METHODS[name].dense else ():
        settings = getattr(each, "quantization_config", None)
        if isinstance(settings, dict):
            each.quantization_config = {**settings, "dequantize": True}


def bits_of(name: str, raw: Mapping[str, Any]) -> int | None:
    """Return the bits of most weights, where the config says them."""
    settings = _settings(raw) or {}
    if name == "bitsandbytes":
        return 4 if settings.get("load_in_4bit") or settings.get("_load_in_4bit") else 8
    bits = settings.get("bits", METHODS[name].bits)
    return bits if isinstance(bits, int) else None


def _settings(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = raw.get("quantization_config", raw.get("compression_config"))
    return found if isinstance(found, Mapping) else None
