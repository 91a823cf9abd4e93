"""Tiny random towers of vision-language models with the real geometry, beside the library's own forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Idefics3VisionConfig,
    InternVLVisionConfig,
    InternVLVisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    SmolVLMVisionConfig,
)
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5VisionConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5VisionModel
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from tosa import spatial_tokens
from tosa.grid import Grid
from vlm import ViTAdapter, adapt

WIDTH, LAYERS, HEADS = 32, 4, 2
PLAIN: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
}
QWEN: dict[str, Any] = {
    "depth": LAYERS,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_heads": HEADS,
    "out_hidden_size": WIDTH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
QWEN3: dict[str, Any] = QWEN | {"patch_size": 16, "num_position_embeddings": 100}


@dataclass(frozen=True)
class Tower:
    """How to build a tower, what its library computes, the cell it merges in, and grids it must take.

    forward(model, pixels) -> [B, prefix + P, C], or, of `cells`, the slots of each cell side by side.
    """

    build: Callable[[], nn.Module]
    forward: Callable[[Any, Tensor], Tensor]
    patch: int
    cell: Grid
    grids: tuple[Grid, ...]
    num_prefix: int = 0


def last_hidden_state(model: Any, pixels: Tensor) -> Tensor:
    return model(pixels).last_hidden_state


def flat_patches(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Cut patches as the processor does, one by one: [B * P, 3 * frames * p * p], and the grids."""
    patch, merge, frames = model.config.patch_size, model.config.spatial_merge_size, 2
    rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
    found = [
        image[:, None, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
        .expand(-1, frames, -1, -1)
        .flatten()
        for image in pixels
        for top in range(0, rows, merge)
        for left in range(0, columns, merge)
        for r in range(top, top + merge)
        for c in range(left, left + merge)
    ]
    return torch.stack(found), torch.tensor([[1, rows, columns]] * len(pixels))


def qwen3(model: Any, pixels: Tensor) -> Tensor:
    flat, grids = flat_patches(model, pixels)
    return model(flat, grid_thw=grids).last_hidden_state.unflatten(0, (len(pixels), -1))


def qwen2_5(model: Any, pixels: Tensor) -> Tensor:
    """Put what the model leaves in the order of its windows back into that of its merged output."""
    from transformers.vision_utils import get_vision_window_index

    flat, grids = flat_patches(model, pixels)
    order, _ = get_vision_window_index(grids, 2, model.window_size, model.patch_size)
    left = model(flat, grid_thw=grids).last_hidden_state.unflatten(0, (-1, 4))
    return left[order.argsort()].flatten(0, 1).unflatten(0, (len(pixels), -1))


def tower(kind: Any, config: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: kind(config(**kwargs))


def internvl(**kwargs: Any) -> Callable[[], nn.Module]:
    size = {"image_size": [224, 224], "patch_size": [14, 14], "attention_bias": True}
    return tower(InternVLVisionModel, InternVLVisionConfig, **PLAIN, **size, **kwargs)


def qwen2_5_tower(**kwargs: Any) -> Callable[[], nn.Module]:
    sizes = {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [2], **kwargs}
    return tower(Qwen2_5_VisionTransformerPretrainedModel, Qwen2_5_VLVisionConfig, **QWEN, **sizes)


TOWERS: dict[str, Tower] = {
    "internvl": Tower(internvl(), last_hidden_state, 14, (2, 2), ((16, 16), (8, 12)), 1),
    "internvl, norms": Tower(
        internvl(use_qk_norm=True, use_mean_pooling=False, norm_type="rms_norm"),
        last_hidden_state,
        14,
        (2, 2),
        ((16, 16),),
        1,
    ),
    "idefics3": Tower(
        tower(Idefics3VisionTransformer, Idefics3VisionConfig, **PLAIN, image_size=364, patch_size=14),
        last_hidden_state,
        14,
        (2, 2),
        ((26, 26), (10, 14)),
    ),
    "smolvlm": Tower(
        tower(SmolVLMVisionTransformer, SmolVLMVisionConfig, **PLAIN, image_size=512, patch_size=16),
        last_hidden_state,
        16,
        (4, 4),
        ((32, 32), (12, 20)),
    ),
    "smolvlm, threes": Tower(
        tower(SmolVLMVisionTransformer, SmolVLMVisionConfig, **PLAIN, image_size=384, patch_size=14),
        last_hidden_state,
        14,
        (3, 3),
        ((27, 27), (9, 15)),
    ),
    "gemma3": Tower(
        tower(SiglipVisionModel, SiglipVisionConfig, **PLAIN, image_size=448, patch_size=14),
        last_hidden_state,
        14,
        (4, 4),
        ((32, 32),),
    ),
    "qwen2.5": Tower(qwen2_5_tower(), qwen2_5, 14, (2, 2), ((34, 46), (8, 16), (6, 10), (12, 20))),
    "qwen2.5, global": Tower(
        qwen2_5_tower(fullatt_block_indexes=[0, 1, 2, 3]), qwen2_5, 14, (2, 2), ((12, 10),)
    ),
    "qwen3": Tower(
        tower(Qwen3VLVisionModel, Qwen3VLVisionConfig, **QWEN3, deepstack_visual_indexes=[1, 2]),
        qwen3,
        16,
        (2, 2),
        ((30, 40), (2, 2), (8, 12)),
    ),
    "qwen3.5": Tower(tower(Qwen3_5VisionModel, Qwen3_5VisionConfig, **QWEN3), qwen3, 16, (2, 2), ((12, 20),)),
}
GRIDS = [(name, grid) for name, tower in TOWERS.items() for grid in tower.grids]
SMALL = {name: tower.grids[-1] for name, tower in TOWERS.items()}  # a quick one of each


@cache
def tiny(name: str) -> Any:
    """Build a tower once, with random values in every weight, so that none can be overlooked."""
    torch.manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():  # whichever test comes first
        model = TOWERS[name].build().eval()
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def adapter_for(name: str, grid: Grid | None = None, cell: Grid | None = None) -> ViTAdapter:
    """Adapt a tower for a grid, in the cells that its reducer reads."""
    (rows, columns), tower = grid or SMALL[name], TOWERS[name]
    return adapt(tiny(name), image_size=(rows * tower.patch, columns * tower.patch), cell=cell or tower.cell)


def pixels_for(name: str, grid: Grid | None = None, batch: int = 2) -> Tensor:
    (rows, columns), patch = grid or SMALL[name], TOWERS[name].patch
    size = (batch, 3, rows * patch, columns * patch)
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def scene_for(name: str, grid: Grid | None = None, batch: int = 2) -> Tensor:
    """Spatial tokens [B, P, 12] of random depths."""
    z = torch.randint(0, 6, (batch, *(grid or SMALL[name])), generator=torch.Generator().manual_seed(2))
    return spatial_tokens(z, dim=12)
