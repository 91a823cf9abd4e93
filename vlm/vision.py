"""The vision encoder: our own loop over a loaded SigLIP tower, which only holds the weights.

Does not know prompts, depth or how a method merges; nothing is patched and no state is left on the tower.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

from torch import Tensor
from transformers import LlavaOnevisionConfig, PreTrainedConfig, SiglipVisionModel
from transformers.models.siglip.modeling_siglip import SiglipAttention, SiglipEncoderLayer

from tosa import METHODS, EncoderShape, MergePlan, Tokens, attention, raster_order
from vlm.model import VlmError


def encode(
    tower: SiglipVisionModel, pixel_values: Tensor, plan: MergePlan, spatial: Tensor | None = None
) -> Tokens:
    """Run the layers of `plan` over the pictures, merging tokens between attention and MLP.

    pixel_values: [B, 3, H, W], normalised. spatial: [B, P, S], for methods that need it (P = patches).
    Returns tokens with x [B, N, C] as the last layer that runs leaves it, before any final norm;
    N = plan.tokens_out. Differentiable; callers that only infer wrap it in `torch.inference_mode()`.
    """
    method = METHODS[plan.method]
    x = tower.embeddings(pixel_values)
    tokens = Tokens.start(x, plan.shape.grid, spatial=spatial)
    layers = list(cast(Iterable[SiglipEncoderLayer], tower.encoder.layers))[: len(plan.steps)]
    for layer, step in zip(layers, plan.steps, strict=True):
        size = tokens.size if plan.prop_attn else None
        attended, keys = _self_attention(layer.self_attn, layer.layer_norm1(tokens.x), size)
        tokens = replace(tokens, x=tokens.x + attended)
        if step is not None:
            tokens = method.merge(tokens, keys.mean(dim=1), step)
        tokens = replace(tokens, x=tokens.x + layer.mlp(layer.layer_norm2(tokens.x)))
    return raster_order(tokens) if plan.order == "raster" else tokens


def encoder_shape(config: LlavaOnevisionConfig) -> EncoderShape:
    """Describe the layers of the tower that run, as `vision_feature_layer` selects them.

    Hidden state k is what k layers leave behind, so -1 runs all layers and -2 all but the last.
    """
    vision, selected = cast(PreTrainedConfig, config.vision_config), config.vision_feature_layer
    if not isinstance(selected, int):
        raise VlmError("unsupported_model", "visual features of several layers (a list) are not supported")
    num_layers = selected if selected >= 0 else vision.num_hidden_layers + 1 + selected
    if not 1 <= num_layers <= vision.num_hidden_layers:
        message = f"vision_feature_layer {selected} does not exist in {vision.num_hidden_layers} layers"
        raise VlmError("unsupported_model", message)
    side = vision.image_size // vision.patch_size
    return EncoderShape(
        num_layers=num_layers,
        grid=(side, side),
        hidden_size=vision.hidden_size,
        mlp_size=vision.intermediate_size,
    )


def _self_attention(module: SiglipAttention, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the attention output [B, N, C] and the keys [B, heads, N, head_dim]."""
    q, k, v = (
        _split_heads(proj(x), module.num_heads) for proj in (module.q_proj, module.k_proj, module.v_proj)
    )
    merged = attention(q, k, v, size).transpose(1, 2).flatten(2)
    return module.out_proj(merged), k


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)
