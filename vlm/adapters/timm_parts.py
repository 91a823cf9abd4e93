"""The parts that vision transformers of timm share: input sizes, fused projections, gated MLP widths, hooks.

timm is not imported; the functions read modules that they are given.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tosa import EncoderShape
from vlm.adapters.adapter import Grid, TensorMap, join_heads, same, unsupported, wrong_size
from vlm.adapters.hooks import MODEL, PassedBy, Replaced

MASKS = {"attn_mask": None, "is_causal": False}  # what timm passes to layers and attention, beside tokens


def input_grid(model: Any, image_size: tuple[int, int] | None, dynamic: bool) -> Grid:
    """Return the patch grid of images of this size (height, width), None meaning the built size.

    dynamic: the model resizes its positions to the input; else any other size is refused.
    """
    embed, name = model.patch_embed, type(model).__name__
    if image_size is None or image_size == embed.img_size:
        if embed.grid_size is None:
            raise unsupported(name, "it was built without an image size: say which is to come")
        return embed.grid_size
    if not dynamic:
        height, width = embed.img_size
        raise wrong_size(name, image_size, f"{height} x {width} px (dynamic_img_size is off)")
    rows, columns = embed.feat_ratio(as_scalar=False)
    if not embed.dynamic_img_pad and (image_size[0] % rows or image_size[1] % columns):
        raise wrong_size(name, image_size, f"multiples of {rows} x {columns} px")
    return embed.dynamic_feat_size(image_size)


def require_grid(model: Any, grid: Grid, dynamic: bool, pixel_values: Tensor) -> None:
    """Refuse images of another size than the adapter was made for."""
    image_size = (pixel_values.shape[-2], pixel_values.shape[-1])
    if input_grid(model, image_size, dynamic) != grid:
        takes = f"{grid[0]} x {grid[1]} patches: adapt the model for this size"
        raise wrong_size(type(model).__name__, image_size, takes)


def require_same_forward(model: Any, base: type[Any]) -> None:
    """Refuse a subclass that computes something else, and patches dropped at random while training."""
    name = type(model).__name__
    if type(model).forward_features is not base.forward_features:
        raise unsupported(name, f"it has its own forward_features, unlike {base.__name__}")
    if model.training and getattr(getattr(model, "patch_drop", None), "prob", 0.0) > 0:
        raise unsupported(name, "patch dropout is on while training")


def passed_by(model: Any) -> tuple[PassedBy, ...]:
    """Name what the loop never calls: the model, what holds its blocks, dropout of attention weights."""
    drops = [
        PassedBy(block.attn.attn_drop, f"blocks.{i}.attn.attn_drop") for i, block in enumerate(model.blocks)
    ]
    return (
        PassedBy(model, MODEL, ("forward", "forward_features")),
        PassedBy(model.blocks, "blocks"),
        *drops,
    )


def layer_site(layer: Any, index: int) -> Replaced:
    """Name a layer for its hooks."""
    return Replaced(layer, f"blocks.{index}")


def attention_site(layer: Any, index: int) -> Replaced:
    """Name the attention of a layer for its hooks; it gets masks that are None."""
    return Replaced(layer.attn, f"blocks.{index}.attn", kwargs=MASKS)


def split_qkv(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split a fused projection [B, N, 3 * heads * D] into q, k, v [B, heads, N, D]."""
    q, k, v = qkv.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def fused_qkv(module: Any, x: Tensor) -> Tensor:
    """Project with the biases that EVA and BEiT keep apart (their keys have a fixed bias of zero)."""
    if getattr(module, "q_bias", None) is None:
        return module.qkv(x)
    bias = torch.cat((module.q_bias, module.k_bias, module.v_bias))
    if module.qkv_bias_separate:
        return module.qkv(x) + bias
    return F.linear(x, module.qkv.weight, bias)


def project(module: Any, attended: Tensor, x: Tensor) -> Tensor:
    """Finish attention [B, heads, N, D] -> [B, N, C]: scale norm, gate computed from x, projection."""
    joined = module.norm(join_heads(attended))
    if module.gate is not None:
        joined = joined * module.gate(x).sigmoid()
    return module.proj_drop(module.proj(joined))


def scale(gamma: Tensor | None) -> TensorMap:
    """Return LayerScale by a bare parameter, or nothing."""
    return same if gamma is None else partial(torch.mul, gamma)


def mlp_branch(mlp: TensorMap, scale: TensorMap, drop_path: TensorMap, x: Tensor) -> Tensor:
    """Run the MLP and what follows it: LayerScale or a norm, and stochastic depth."""
    return drop_path(scale(mlp(x)))


def encoder_shape(model: Any, grid: Grid, *, rotary: bool = False) -> EncoderShape:
    """Return the shape of an encoder whose blocks are all alike. Raises VlmError as `mlp_size`."""
    return EncoderShape(
        num_layers=len(model.blocks),
        grid=grid,
        num_prefix=model.num_prefix_tokens,
        hidden_size=model.embed_dim,
        mlp_size=mlp_size(model),
        name=type(model).__name__,
        rotary=rotary,
    )


def mlp_size(model: Any) -> int:
    """Return the width of the plain MLP that costs as much: a gated one has two input projections.

    Raises VlmError for another MLP than those of timm.layers, such as ViTamin's.
    """
    mlp = model.blocks[0].mlp
    if hasattr(mlp, "fc1") and hasattr(mlp, "fc2"):
        return (mlp.fc1.out_features + mlp.fc2.in_features) // 2
    if hasattr(mlp, "fc1_g") and hasattr(mlp, "fc1_x") and hasattr(mlp, "fc2"):
        return (mlp.fc1_g.out_features + mlp.fc1_x.out_features + mlp.fc2.in_features) // 2
    raise unsupported(type(model).__name__, f"its MLP is {type(mlp).__name__}")
