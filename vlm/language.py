"""The two calls to the language model: embeddings with visual features inserted, and the next logits.

The cache belongs to the caller.
"""

from __future__ import annotations

from functools import cache as cached
from inspect import signature
from typing import TYPE_CHECKING

from torch import Tensor, nn

from vlm.model import Vlm

if TYPE_CHECKING:
    from transformers import DynamicCache


def new_cache(vlm: Vlm) -> DynamicCache:
    """Make an empty cache for one call."""
    from transformers import DynamicCache

    return DynamicCache(config=vlm.text_config)


def embed(vlm: Vlm, input_ids: Tensor, features: Tensor | None = None) -> Tensor:
    """Embed ids [B, T] as [B, T, D], with features [..., D] at the image placeholders, in order."""
    embeds = vlm.model.get_input_embeddings()(input_ids)
    if features is None:
        return embeds
    flat = features.flatten(0, -2).to(embeds.dtype)
    at = input_ids == vlm.image_token_id
    if int(at.sum()) != len(flat):
        raise ValueError(f"the prompt has {int(at.sum())} image placeholders for {len(flat)} visual tokens")
    return embeds.index_put((at,), flat)


def next_logits(
    vlm: Vlm,
    embeds: Tensor,
    cache: DynamicCache,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
) -> Tensor:
    """Run embeddings [B, T, D] after the cache; return the logits [B, vocabulary] that follow."""
    language_model = vlm.model.model.language_model
    hidden = language_model(
        inputs_embeds=embeds,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=True,
        **{cache_argument(type(language_model)): cache},
    ).last_hidden_state
    return vlm.model.lm_head(hidden[:, -1])


@cached
def cache_argument(language_model: type[nn.Module]) -> str:
    """Return the name of the cache argument: `past_key_values` up to transformers 5.23, then `cache`."""
    return "cache" if "cache" in signature(language_model.forward).parameters else "past_key_values"
