"""The two calls to the language model: embeddings with visual features inserted, and the next logits.

Every family is driven with its own masks and positions and with none of the model's state. The cache belongs
to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache as cached
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlm.families.layout import Visual
from vlm.model import Vlm, VlmError

if TYPE_CHECKING:
    from transformers import DynamicCache


def new_cache(vlm: Vlm) -> DynamicCache:
    """Make an empty cache for one call."""
    from transformers import DynamicCache

    return DynamicCache(config=vlm.text_config)


def select_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Keep these rows of a cache, in this order; they may repeat."""
    layers: Any = cache.layers
    for layer in layers:
        if hasattr(layer, "recurrent_states"):  # these have no other way to select rows
            layer.reorder_cache(rows)
        else:
            layer.batch_select_indices(rows.to(layer.keys.device))


def embed(vlm: Vlm, input_ids: Tensor, features: Tensor | Sequence[Visual] | None = None) -> Tensor:
    """Embed ids [B, T] as [B, T, D], with visual features at the placeholders, in order.

    features: [..., D], or those of each image and video. Raises ValueError where the numbers disagree.
    """
    embedding: Any = vlm.model.get_input_embeddings()
    if features is None:
        return embedding(input_ids)
    at = vlm.family.is_visual(input_ids)
    if (
        max(vlm.family.visual_token_ids) >= embedding.num_embeddings
    ):  # some models give visual tokens no embedding
        input_ids = input_ids.masked_fill(at, 0)
    embeds = embedding(input_ids)
    if not isinstance(features, Tensor):
        features = torch.cat([embeds.new_empty(0, embeds.shape[-1]), *(each.features for each in features)])
    flat = features.flatten(0, -2).to(embeds.dtype)
    if int(at.sum()) != len(flat):
        raise ValueError(f"the prompt has {int(at.sum())} image placeholders for {len(flat)} visual tokens")
    return embeds.index_put((at,), flat)


def next_logits(
    vlm: Vlm,
    embeds: Tensor,
    cache: DynamicCache,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    **inputs: Any,
) -> Tensor:
    """Run embeddings [B, T, D] after the cache; return the logits [B, vocabulary] that follow.

    position_ids: [B, T] from 0, or [3, B, T]. inputs: `prompt_inputs` of the family, with a prompt. Raises
    VlmError (no_language_model) where only the rest of the model was loaded.
    """
    if vlm.parts == "vision":
        message = f"{vlm.id} was loaded without its language model, to answer by an engine elsewhere"
        raise VlmError("no_language_model", message)
    decoder = vlm.family.decoder(vlm.core)
    first = vlm.family.first_position
    if position_ids is not None and first:
        position_ids = position_ids + first
    hidden = decoder(
        inputs_embeds=embeds,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=True,
        **{cache_argument(type(decoder)): cache},
        **inputs,
    ).last_hidden_state
    return vlm.family.logits(vlm.model, hidden[:, -1])


@cached
def cache_argument(language_model: type[nn.Module]) -> str:
    """Return the name of the cache argument: `past_key_values` up to transformers 5.23, then `cache`."""
    return "cache" if "cache" in signature(language_model.forward).parameters else "past_key_values"
