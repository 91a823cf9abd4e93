"""Read the weights of a checkpoint that was described: the whole model, or all but its language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vlm.description import READER, Description
from vlm.families import Family
from vlm.model import Parts, Vlm, VlmError
from vlm.placement import Devices, by_name, connect, parameters_have_names, place, require_parts
from vlm.quantised import METHODS, prepare


def load_model(
    found: Description, device: torch.device, dtype: torch.dtype, parts: Parts, devices: Devices | None = None
) -> Any:
    """Return the model, or of "vision" its core: tower, reducer and embeddings, no layer above them.

    The weights of what is left out are never read. devices: that share a whole model. Raises VlmError
    (broken_checkpoint, unsupported_device_map).
    """
    if devices is not None:
        return _shared(found, dtype, devices)
    if found.quantised is not None:
        prepare(found.quantised, found.config)
    # accelerate places weights as it reads them, and quantised ones may not move afterwards.
    places = found.quantised is not None and "accelerate" in METHODS[found.quantised].packages
    model = _read(found, dtype, parts, {"": device} if places else None)
    return (model if places else model.to(device)).eval()


def _shared(found: Description, dtype: torch.dtype, devices: Devices) -> Any:
    """Return a whole model whose weights were read to the devices that share it."""
    empty = empty_model(found)
    text_model = found.family.text_model(empty.model)
    try:
        require_parts(text_model)
        places = place(empty, text_model.layers, devices, dtype)
    except VlmError as error:
        raise VlmError(error.code, f"{found.source} cannot be loaded: {error}") from None
    device_map = by_name(empty, text_model.layers, places, devices.first)
    with parameters_have_names():
        model = _read(found, dtype, "all", device_map)
    connect(model, found.family.text_model(model.model), places, devices.first)
    return model.eval()


def empty_model(found: Description) -> Any:
    """Return the model without weights, on torch's meta device, with what is tied counted once."""
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, found.family.model_class)(found.config)
    model.tie_weights()
    return model


def _read(found: Description, dtype: torch.dtype, parts: Parts, device_map: Mapping[str, Any] | None) -> Any:
    """Read weights. device_map: of every part by its name, None for the CPU."""
    model_class, config = _whole(found) if parts == "all" else _core(found)
    with _unexpected_weights_not_told(parts == "vision"):
        model, report = READER.or_broken(
            found.source,
            lambda: model_class.from_pretrained(
                found.folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **({} if device_map is None else {"device_map": device_map}),
            ),
        )
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would leave these at random values
        reason = f"{len(missing)} weights are missing, {missing[0]} among them"
        if found.quantised is not None:
            reason += ": its list of modules that are not quantised may have names of another transformers"
        raise READER.broken(found.source, reason)
    return model


@contextmanager
def _unexpected_weights_not_told(quiet: bool) -> Iterator[None]:
    """Keep transformers from listing, as a warning, all the weights that were left out on purpose."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    if quiet:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _whole(found: Description) -> tuple[Any, Any]:
    import transformers

    return getattr(transformers, found.family.model_class), found.config


def _core(found: Description) -> tuple[Any, Any]:
    """Return the class without a head, and a config whose language model has no layers."""
    from transformers import AutoModel

    config: Any = deepcopy(found.config)
    config.text_config.num_hidden_layers = 0
    if getattr(config.text_config, "layer_types", None) is not None:
        config.text_config.layer_types = []
    return AutoModel, config


def require_embeds(source: str, family: Family) -> None:
    """Raise VlmError (unsupported_language) where prompt embeddings do not say all that is to be read."""
    if family.language_input == "none":
        message = f"{source} cannot be read by a language engine elsewhere: {family.language_refusal}"
        raise VlmError("unsupported_language", message)


def without_language(vlm: Vlm) -> Vlm:
    """Return a whole model less its language model, for weights that had to be read together.

    The given one is not to be used any more.
    """
    core = vlm.core
    vlm.family.decoder(core).layers = nn.ModuleList()
    return replace(vlm, model=core, parts="vision", family=vlm.family.for_servers())
