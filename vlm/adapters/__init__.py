"""Adapters: the parts of a loaded vision transformer, named for the encoder loop in `vlm.vision`.

A library is imported only for a model that comes from it. Nothing is patched, copied or kept on a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn
from torch.compiler import assume_constant_result

import vlm.adapters
from vlm.adapters.adapter import Block, ViTAdapter, count_layers, first_layers
from vlm.model import VlmError

# (library, class) -> (module of the adapter, its function)
ADAPTERS = {
    ("transformers", "SiglipVisionModel"): ("siglip", "adapt_siglip"),
    ("transformers", "Siglip2VisionModel"): ("siglip", "adapt_siglip2"),
    ("transformers", "CLIPVisionModel"): ("clip", "adapt_clip"),
    ("timm", "VisionTransformer"): ("timm_vit", "adapt_vit"),
    ("timm", "Eva"): ("eva", "adapt_eva"),
    ("timm", "VisionTransformerSAM"): ("sam", "adapt_sam"),
}


def adapt(model: Any, feature_layer: int = -1, image_size: tuple[int, int] | None = None) -> ViTAdapter:
    """Name the parts of a loaded vision transformer for `encode`; cheap enough to do at every call.

    feature_layer: index of the hidden state wanted; -1 runs all layers, -2 all but the last. Any but the
    last is what its layer leaves behind: the final norm, and SAM's neck, are left out.
    image_size: (height, width) in px of the images to come; None means the size the model was built for.
    The adapter stays valid while the model keeps its weights and its device.
    Raises VlmError: unsupported_tower for a model that no adapter knows or an option that none supports,
    wrong_image_size for images the model cannot take, unsupported_model for a layer it does not have.
    """
    image_size = _whole_size(image_size)
    entry = _entry(model)
    if entry is None:
        raise _unknown(model)
    module, function = entry
    _load(module)
    adapt_model = getattr(getattr(vlm.adapters, module), function)
    adapter: ViTAdapter = adapt_model(model, image_size)
    return first_layers(adapter, count_layers(adapter.shape.num_layers, feature_layer))


@assume_constant_result  # torch.compile runs it, and does not trace the import
def _load(module: str) -> bool:
    import_module(f"vlm.adapters.{module}")
    return True


def _entry(model: Any) -> tuple[str, str] | None:
    for kind in type(model).__mro__:
        entry = ADAPTERS.get((kind.__module__.partition(".")[0], kind.__name__))
        if entry is not None:
            return entry
    return None


def _unknown(model: Any) -> VlmError:
    """Refuse a model; where it wraps one that is supported, say where that stands."""
    kind, supported = type(model), ", ".join(f"{library} {name}" for library, name in ADAPTERS)
    message = f"{kind.__module__}.{kind.__qualname__} is not supported; supported are {supported}"
    for name, part in model.named_modules() if isinstance(model, nn.Module) else ():
        if _entry(part) is not None:
            message += f". It holds a {type(part).__name__}: give its .{name} instead"
            break
    return VlmError("unsupported_tower", message)


def _whole_size(image_size: Any) -> tuple[int, int] | None:
    """Check (height, width) and make a tuple of a list."""
    if image_size is None:
        return None
    if not isinstance(image_size, list | tuple) or len(image_size) != 2 or min(image_size) < 1:
        raise VlmError("wrong_image_size", f"image_size must be (height, width) in px, got {image_size}")
    return image_size[0], image_size[1]


__all__ = ["ADAPTERS", "Block", "ViTAdapter", "adapt"]
