"""Adapters: the parts of a loaded vision transformer, named for the encoder loop in `vlm.vision`.

A library is imported only for a model that comes from it. Nothing is patched, copied or kept on a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

from torch import nn
from torch.compiler import assume_constant_result

import vlm.adapters
from vlm.adapters.adapter import Block, ViTAdapter, count_layers, first_layers, in_cells, unsupported
from vlm.adapters.hooks import MODEL, PassedBy
from vlm.model import VlmError

# (library, class) -> (module of the adapter, its function)
ADAPTERS = {
    ("transformers", "SiglipVisionModel"): ("siglip", "adapt_siglip"),
    ("transformers", "Siglip2VisionModel"): ("siglip", "adapt_siglip2"),
    ("transformers", "CLIPVisionModel"): ("clip", "adapt_clip"),
    ("transformers", "ViTModel"): ("vit", "adapt_vit"),
    ("transformers", "DeiTModel"): ("vit", "adapt_vit"),
    ("transformers", "Dinov2Model"): ("dinov2", "adapt_dinov2"),
    ("transformers", "Dinov2WithRegistersModel"): ("dinov2", "adapt_dinov2"),
    ("transformers", "DINOv3ViTModel"): ("dinov3", "adapt_dinov3"),
    ("transformers", "BeitModel"): ("beit", "adapt_beit"),
    ("transformers", "InternVLVisionModel"): ("internvl", "adapt_internvl"),
    ("transformers", "Idefics3VisionTransformer"): ("idefics3", "adapt_idefics3"),
    ("transformers", "SmolVLMVisionTransformer"): ("idefics3", "adapt_smolvlm"),
    ("transformers", "Qwen2_5_VisionTransformerPretrainedModel"): ("qwen_vl", "adapt_qwen2_5_vl"),
    ("transformers", "Qwen3VLVisionModel"): ("qwen_vl", "adapt_qwen3_vl"),
    ("transformers", "Qwen3_5VisionModel"): ("qwen_vl", "adapt_qwen3_5"),
    ("timm", "VisionTransformer"): ("timm_vit", "adapt_vit"),
    ("timm", "Eva"): ("eva", "adapt_eva"),
    ("timm", "Beit"): ("timm_beit", "adapt_beit"),
    ("timm", "NaFlexVit"): ("naflex", "adapt_naflex"),
    ("timm", "VisionTransformerSAM"): ("sam", "adapt_sam"),
}
# The classifiers of transformers, and where each holds the tower that is adapted.
CLASSIFIERS = {
    ("transformers", "ViTForImageClassification"): "vit",
    ("transformers", "DeiTForImageClassification"): "deit",
    ("transformers", "DeiTForImageClassificationWithTeacher"): "deit",
    ("transformers", "Dinov2ForImageClassification"): "dinov2",
    ("transformers", "Dinov2WithRegistersForImageClassification"): "dinov2_with_registers",
    ("transformers", "BeitForImageClassification"): "beit",
    ("transformers", "SiglipForImageClassification"): "vision_model",
    ("transformers", "CLIPForImageClassification"): "vision_model",
}


def adapt(
    model: Any,
    feature_layer: int = -1,
    image_size: tuple[int, int] | None = None,
    cell: tuple[int, int] | None = None,
) -> ViTAdapter:
    """Name the parts of a loaded vision transformer for `encode`; cheap enough to do at every call.

    feature_layer: index of the hidden state wanted; -1 runs all layers, -2 all but the last. Any but the
    last is what its layer leaves behind: the final norm, and SAM's neck, are left out.
    image_size: (height, width) in px of the images to come; None means the size the model was built for.
    cell: (rows, columns) of patches that merge as one, slot by slot, for the pixel shuffle or pooling behind
    the model; None means single patches, and for Qwen's towers the blocks that their merger reads.
    The adapter stays valid while the model keeps its weights and its device.
    Raises VlmError: unsupported_tower for a model that no adapter knows or an option that none supports,
    wrong_image_size for images the model cannot take, unsupported_model for a layer it does not have.
    """
    image_size = _whole_size(image_size)
    for key, kind in keys_of(model):
        if key in ADAPTERS:
            module, function = ADAPTERS[key]
            _load(module)
            adapt_model = getattr(getattr(vlm.adapters, module), function)
            adapter: ViTAdapter = adapt_model(model, image_size)
            adapter = first_layers(adapter, count_layers(adapter.shape.num_layers, feature_layer))
            return adapter if cell is None else in_cells(adapter, (cell[0], cell[1]))
        if key in CLASSIFIERS:
            return _adapt_tower(model, kind, CLASSIFIERS[key], feature_layer, image_size)
    raise _unknown(model)


@assume_constant_result  # torch.compile runs it, and does not trace the import
def _load(module: str) -> bool:
    import_module(f"vlm.adapters.{module}")
    return True


def _unknown(model: Any) -> VlmError:
    """Refuse a model; where it wraps one that is supported, say where that stands."""
    kind = type(model)
    supported = ", ".join(f"{library} {name}" for library, name in (*ADAPTERS, *CLASSIFIERS))
    message = f"{kind.__module__}.{kind.__qualname__} is not supported; supported are {supported}"
    for name, part in model.named_modules() if isinstance(model, nn.Module) else ():
        if any(key in ADAPTERS or key in CLASSIFIERS for key, _ in keys_of(part)):
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


def keys_of(model: Any) -> Iterator[tuple[tuple[str, str], type[Any]]]:
    """Yield the classes of a model as (library, name), its own first."""
    for kind in type(model).__mro__:
        yield (kind.__module__.partition(".")[0], kind.__name__), kind


def _adapt_tower(
    model: Any, kind: type[Any], tower: str, feature_layer: int, image_size: tuple[int, int] | None
) -> ViTAdapter:
    """Adapt the tower inside a classifier."""
    if type(model).forward is not kind.forward:
        raise unsupported(type(model).__name__, f"it has its own forward, unlike {kind.__name__}")
    adapter = adapt(getattr(model, tower), feature_layer, image_size)
    inside = (replace(each, name=_inside(tower, each.name)) for each in adapter.passed_by)
    return replace(adapter, passed_by=(PassedBy(model, MODEL), *inside))


def _inside(tower: str, name: str) -> str:
    return tower if name == MODEL else f"{tower}.{name}"


__all__ = ["ADAPTERS", "CLASSIFIERS", "Block", "ViTAdapter", "adapt"]
