"""A tiny random vision transformer of every family that has an adapter, beside the library's own forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from timm.layers.norm import RmsNorm
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn
from transformers import (
    BeitConfig,
    BeitModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    Idefics3VisionConfig,
    InternVLVisionConfig,
    InternVLVisionModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    SmolVLMVisionConfig,
    ViTConfig,
    ViTModel,
)
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from tosa import spatial_tokens
from vlm import ViTAdapter, adapt

PATCH_PX, LAYERS, WIDTH, HEADS = 8, 3, 32, 2
TIMM: dict[str, Any] = {
    "img_size": 48,
    "patch_size": PATCH_PX,
    "embed_dim": WIDTH,
    "depth": LAYERS,
    "num_heads": HEADS,
    "num_classes": 0,
}
SAM: dict[str, Any] = TIMM | {"neck_chans": 16, "use_rel_pos": True, "global_attn_indexes": (1,)}
HUGGING_FACE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "patch_size": PATCH_PX,
}


@dataclass(frozen=True)
class Family:
    """How to build a model, what its library computes [B, prefix + patches, C], and what it looks like."""

    build: Callable[[], nn.Module]
    forward: Callable[[Any, Tensor], Tensor]
    num_prefix: int = 0
    grid: tuple[int, int] = (6, 6)


def made(kind: Callable[..., nn.Module], kwargs: dict[str, Any]) -> Callable[[], nn.Module]:
    return lambda: kind(**kwargs)


def vit(num_prefix: int = 1, **kwargs: Any) -> Family:
    return Family(made(VisionTransformer, TIMM | kwargs), features, num_prefix)


def eva(num_prefix: int = 1, **kwargs: Any) -> Family:
    return Family(made(Eva, TIMM | kwargs), features, num_prefix)


def dino(**kwargs: Any) -> Family:
    return eva(5, **DINO | kwargs)


def sam(grid: tuple[int, int] = (6, 6), **kwargs: Any) -> Family:
    size = (grid[0] * PATCH_PX, grid[1] * PATCH_PX)
    return Family(made(VisionTransformerSAM, SAM | {"img_size": size} | kwargs), before_neck, grid=grid)


def named(name: str, num_prefix: int, **kwargs: Any) -> Family:
    """Build a registered timm model, shrunk."""
    kwargs = TIMM | kwargs | {"model_name": name, "pretrained": False}
    return Family(made(timm.create_model, kwargs), features, num_prefix)


def beit(**kwargs: Any) -> Family:
    """Build timm's Beit, whose output norm is the head's when it pools by averaging."""
    return Family(made(Beit, TIMM | {"global_pool": "token"} | kwargs), features, 1)


def naflex_vit(num_prefix: int = 0, **kwargs: Any) -> Family:
    kwargs = TIMM | {"pos_embed_grid_size": (6, 6)} | kwargs
    del kwargs["img_size"]
    return Family(made(NaFlexVit, kwargs), features, num_prefix)


def hugging_face(model: Any, config: Any, num_prefix: int = 1, **kwargs: Any) -> Family:
    """Build a tower of transformers for images of 48 x 48 px."""
    kwargs = HUGGING_FACE | {"image_size": 48} | kwargs
    return Family(lambda: model(config(**kwargs)), last_hidden_state, num_prefix)


def features(model: Any, pixels: Tensor) -> Tensor:
    return model.forward_features(pixels)


def before_neck(model: VisionTransformerSAM, pixels: Tensor) -> Tensor:
    x = model.patch_embed(pixels)
    if model.pos_embed is not None:
        x = x + model.pos_embed
    return model.blocks(model.norm_pre(x)).flatten(1, 2)


def last_hidden_state(model: Any, pixels: Tensor) -> Tensor:
    return model(pixels).last_hidden_state


def naflex(model: Siglip2VisionModel, pixels: Tensor) -> Tensor:
    """Feed the library what its image processor makes: flattened patches, a mask, the grid of each image."""
    batch, _, height, width = pixels.shape
    rows, columns = height // PATCH_PX, width // PATCH_PX
    patches = torch.stack([flat_patches(image, rows, columns) for image in pixels])
    mask = torch.ones(batch, rows * columns, dtype=torch.int32)
    shapes = torch.tensor([[rows, columns]] * batch)
    output = model(patches, pixel_attention_mask=mask, spatial_shapes=shapes)
    assert output.last_hidden_state is not None
    return output.last_hidden_state


def flat_patches(image: Tensor, rows: int, columns: int) -> Tensor:
    cut = [
        image[:, r * PATCH_PX : (r + 1) * PATCH_PX, c * PATCH_PX : (c + 1) * PATCH_PX]
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack([patch.permute(1, 2, 0).flatten() for patch in cut])


DINO: dict[str, Any] = {
    "num_reg_tokens": 4,
    "use_abs_pos_emb": False,
    "use_rot_pos_emb": True,
    "rope_type": "dinov3",
    "rope_temperature": 100,
    "rope_rotate_half": True,
    "init_values": 0.1,
    "qkv_bias": False,
    "use_fc_norm": False,
}
SHARED: dict[str, Any] = {"use_shared_relative_position_bias": True, "layer_scale_init_value": 0.0}
ABSOLUTE: dict[str, Any] = {"use_absolute_position_embeddings": True, "use_mean_pooling": False}
EVA02: dict[str, Any] = {"swiglu_mlp": True, "use_rot_pos_emb": True, "mlp_ratio": 8 / 3}

FAMILIES: dict[str, Family] = {
    "deit": named("deit_tiny_patch16_224", 1),
    "deit distilled": Family(made(VisionTransformerDistilled, TIMM), features, 2),
    "augreg": named("vit_tiny_patch16_224", 1),
    "dinov2": named("vit_small_patch14_dinov2", 1),
    "dinov2 with registers": named("vit_small_patch14_reg4_dinov2", 5),
    "perception encoder": named("vit_pe_core_tiny_patch16_384", 1),
    "timm siglip": vit(0, class_token=False, global_pool="map", act_layer="gelu_tanh"),
    "layer scale": vit(init_values=0.1),
    "qk norm": vit(qk_norm=True, scale_attn_norm=True, scale_mlp_norm=True, norm_layer=RmsNorm),
    "registers": vit(5, reg_tokens=4, no_embed_class=True, init_values=0.1),
    "no embed class": vit(no_embed_class=True),
    "timm clip": vit(pre_norm=True, act_layer="quick_gelu"),
    "average pool": vit(0, class_token=False, global_pool="avg"),
    "res-post": vit(block_fn=ResPostBlock, init_values=0.1),
    "drop path": vit(drop_path_rate=0.3, proj_drop_rate=0.1),
    "eva": eva(init_values=0.1),
    "eva02": eva(**EVA02, scale_mlp=True),
    "eva02 large": eva(
        **EVA02, qkv_fused=False, scale_mlp=True, scale_attn_inner=True, ref_feat_shape=(4, 4)
    ),
    "eva post-norm": eva(use_post_norm=True, use_rot_pos_emb=True),
    "rope attention": eva(
        4, attn_type="rope", num_reg_tokens=3, use_rot_pos_emb=True, qk_norm=True, no_embed_class=True
    ),
    "grouped queries": eva(attn_type="rope", use_rot_pos_emb=True, qkv_fused=False, num_kv_heads=1),
    "mixed rope": eva(attn_type="rope", use_rot_pos_emb=True, rope_type="mixed", rope_grid_indexing="xy"),
    "dinov3": dino(),
    "dinov3 by name": named("vit_small_patch16_dinov3", 5),
    "siglip": Family(
        lambda: SiglipVisionModel(SiglipVisionConfig(**HUGGING_FACE, image_size=48)), last_hidden_state
    ),
    "siglip2": Family(
        lambda: Siglip2VisionModel(Siglip2VisionConfig(**HUGGING_FACE, num_patches=16)), naflex
    ),
    "clip": Family(
        lambda: CLIPVisionModel(CLIPVisionConfig(**HUGGING_FACE, image_size=48)), last_hidden_state, 1
    ),
    "hf vit": hugging_face(ViTModel, ViTConfig),
    "hf deit": hugging_face(DeiTModel, DeiTConfig, 2),
    "hf dinov2": hugging_face(Dinov2Model, Dinov2Config),
    "hf dinov2 gated": hugging_face(Dinov2Model, Dinov2Config, use_swiglu_ffn=True, drop_path_rate=0.2),
    "hf dinov2 registers": hugging_face(Dinov2WithRegistersModel, Dinov2WithRegistersConfig, 5),
    "hf dinov3": hugging_face(DINOv3ViTModel, DINOv3ViTConfig, 5, num_register_tokens=4),
    "hf dinov3 gated": hugging_face(DINOv3ViTModel, DINOv3ViTConfig, use_gated_mlp=True, drop_path_rate=0.2),
    "hf beit": hugging_face(BeitModel, BeitConfig, use_relative_position_bias=True),
    "hf beit shared": hugging_face(BeitModel, BeitConfig, **SHARED),
    "hf beit absolute": hugging_face(BeitModel, BeitConfig, **ABSOLUTE),
    "internvl": hugging_face(InternVLVisionModel, InternVLVisionConfig, patch_size=[8, 8]),
    "internvl norms": hugging_face(
        InternVLVisionModel,
        InternVLVisionConfig,
        patch_size=[8, 8],
        use_qk_norm=True,
        norm_type="rms_norm",
        use_mean_pooling=False,
        layer_scale_init_value=0.3,
        use_absolute_position_embeddings=True,
    ),
    "idefics3": hugging_face(Idefics3VisionTransformer, Idefics3VisionConfig, 0),
    "smolvlm": hugging_face(SmolVLMVisionTransformer, SmolVLMVisionConfig, 0),
    "timm beit": beit(use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.1),
    "timm beit shared": beit(
        use_rel_pos_bias=True, use_shared_rel_pos_bias=True, swiglu_mlp=True, scale_mlp=True
    ),
    "timm beit absolute": beit(qkv_bias=False, drop_path_rate=0.2),
    "naflex": naflex_vit(),
    "naflex factorized": naflex_vit(
        5, pos_embed="factorized", class_token=True, reg_tokens=4, init_values=0.1
    ),
    "naflex axial": naflex_vit(
        1, pos_embed="none", rope_type="axial", class_token=True, embed_proj_type="conv"
    ),
    "naflex mixed": naflex_vit(pos_embed="none", rope_type="mixed", swiglu_mlp=True),
    "naflex dinov3": naflex_vit(pos_embed="none", rope_type="dinov3", rope_rotate_half=True),
    "sam, whole windows": sam(window_size=3),
    "sam, cut windows": sam((7, 6), window_size=4),
    "sam, no windows": sam(window_size=0, qk_norm=True),
    "sam, no positions": sam(window_size=3, use_rel_pos=False, init_values=0.1),
}
FEW = ("deit", "eva02", "dinov3", "siglip", "hf beit", "internvl", "naflex", "sam, cut windows")
"""One tower of every kind that has tables of its own."""
SAMS = [name for name in FAMILIES if name.startswith("sam")]


@cache
def tiny(name: str) -> Any:
    """Build a family's model once, with random values in every weight, so that none can be overlooked."""
    torch.manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():  # whichever test comes first
        model = FAMILIES[name].build().eval()
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
        # transformers' BEiT keeps an index: made under inference, it could not serve training afterwards.
        FAMILIES[name].forward(model, pixels_for(name, 1))
    return model


def adapter_for(name: str) -> ViTAdapter:
    """Adapt a family's model for its images."""
    rows, columns = FAMILIES[name].grid
    return adapt(tiny(name), image_size=(rows * PATCH_PX, columns * PATCH_PX))


def pixels_for(name: str, batch: int = 2) -> Tensor:
    rows, columns = FAMILIES[name].grid
    size = (batch, 3, rows * PATCH_PX, columns * PATCH_PX)
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def scene_for(name: str, batch: int = 2) -> Tensor:
    """Spatial tokens [B, P, head_dim + ...] of random depths."""
    z = torch.randint(0, 6, (batch, *FAMILIES[name].grid), generator=torch.Generator().manual_seed(2))
    return spatial_tokens(z, dim=12)


def snapshot(model: nn.Module) -> list[object]:
    """List everything a patch could touch: classes and their methods, attributes, hooks, weight versions."""
    classes = {type(module) for module in model.modules()}
    return [
        [(name, type(module), sorted(vars(module))) for name, module in model.named_modules()],
        [
            (module.forward, len(module._forward_hooks), len(module._forward_pre_hooks))
            for module in model.modules()
        ],
        {(kind, name): id(value) for kind in classes for name, value in vars(kind).items()},
        [(id(weight), weight._version) for weight in model.parameters()],
    ]
