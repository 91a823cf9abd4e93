"""The heads of models: what their forward makes of final tokens, each weighed by the patches it holds.

Averages are weighted by `size`, and attention pooling is proportional, as in ToMe's release: pooled without,
a token of many patches counts as little as one of a single patch, and the logits drift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

from torch import Tensor

from tosa import Tokens, recover
from vlm.adapters import CLASSIFIERS, keys_of
from vlm.adapters.adapter import ViTAdapter
from vlm.adapters.hooks import MODEL, PassedBy, require_own_methods
from vlm.model import VlmError

_TIMM_POOLED = ("VisionTransformer", "Eva", "Beit", "NaFlexVit")
_REPLACED = ("forward_features", "forward_head", "pool", "_pool")  # what the functions below stand in for


@dataclass(frozen=True)
class Head:
    """Turn the tokens of an adapter's last layer into what the model's own forward returns.

    logits: of that output, [B, classes]; where the model has no classes, its pooled features.
    """

    output: Callable[[ViTAdapter, Tokens], Any]
    logits: Callable[[Any], Tensor]


def head_of(model: Any) -> Head:
    """Find the head of a model. Raises VlmError (no_head) for a model without one, or with one of its own."""
    for key, kind in keys_of(model):
        library, name = key
        if key in CLASSIFIERS:
            heads = import_module("vlm.adapters.hugging_face_heads")
            return Head(partial(heads.output, model, name, CLASSIFIERS[key]), _logits)
        if "forward_head" not in vars(kind):
            continue
        if library != "timm":
            break
        require_own_methods(PassedBy(model, MODEL, _REPLACED))
        if name == "VisionTransformerDistilled":  # reads its two prefix tokens
            return Head(lambda adapter, tokens: model.forward_head(adapter.finish(tokens.x)), _itself)
        if name == "VisionTransformerSAM":
            return Head(partial(_dense_head, model), _itself)
        if name in _TIMM_POOLED:
            _require_pooling(model)
            return Head(partial(_pooled_head, model), _itself)
        break
    known = "timm's VisionTransformer, Eva, Beit, NaFlexVit and SAM, and transformers' "
    names = known + ", ".join(name for _, name in CLASSIFIERS)
    raise _no_head(model, f"it has no head that is known; known are those of {names}. Use tosa_encode")


def weighted_mean(tokens: Tokens, first: int) -> Tensor:
    """Average the tokens from `first` on, each as often as it stands for a patch: [B, C].

    With every size 1 this is the plain mean, to the last bit.
    """
    x, weight = tokens.x[:, first:], tokens.size[:, first:, None]
    if not tokens.is_weighted:
        return x.mean(dim=1)
    return ((x * weight).sum(dim=1) / weight.sum(dim=1)).to(x.dtype)


def finished(adapter: ViTAdapter, tokens: Tokens) -> Tokens:
    """Apply the final norm."""
    return replace(tokens, x=adapter.finish(tokens.x))


def _itself(output: Tensor) -> Tensor:
    return output


def _logits(output: Any) -> Tensor:
    return output.logits


def _require_pooling(model: Any) -> None:
    pool = getattr(model, "attn_pool", None)
    if pool is not None and (type(pool).__name__ != "AttentionPoolLatent" or pool.pos_embed is not None):
        raise _no_head(model, f"its pooling ({type(pool).__name__}) cannot weigh merged tokens")
    if not model.global_pool:
        raise _no_head(model, "it was built without pooling (global_pool='')")


def _pooled_head(model: Any, adapter: ViTAdapter, tokens: Tokens) -> Tensor:
    pooled = _pooled(model, finished(adapter, tokens))
    return model.head(model.head_drop(model.fc_norm(pooled)))


def _pooled(model: Any, tokens: Tokens) -> Tensor:
    attn_pool = getattr(model, "attn_pool", None)
    # Eva's attention pooling reads the prefix too, that of the others where they are told to.
    with_prefix = getattr(model, "pool_include_prefix", attn_pool is not None)
    first = 0 if with_prefix else tokens.num_prefix
    if attn_pool is not None:
        size = tokens.size[:, None, None, first:]
        mask = size.log().to(tokens.x.dtype) if tokens.is_weighted else None
        return attn_pool(tokens.x[:, first:], attn_mask=mask)
    if model.global_pool == "token":
        return tokens.x[:, 0]
    if model.global_pool == "avg":
        return weighted_mean(tokens, first)
    largest = tokens.x[:, first:].amax(dim=1)
    if model.global_pool == "max":
        return largest
    assert model.global_pool == "avgmax", model.global_pool
    return 0.5 * (largest + weighted_mean(tokens, first))


def _dense_head(model: Any, adapter: ViTAdapter, tokens: Tokens) -> Tensor:
    """SAM's head reads the neck, which needs the full grid."""
    assert adapter.neck is not None
    dense = recover(finished(adapter, tokens)).mT.unflatten(2, adapter.shape.grid)
    return model.forward_head(adapter.neck(dense))


def _no_head(model: Any, reason: str) -> VlmError:
    return VlmError("no_head", f"{type(model).__name__} cannot classify: {reason}")
