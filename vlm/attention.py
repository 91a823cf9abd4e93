"""How much an answer read of every visual token: the language model's attention, in one more pass.

The pass reads the prompt with the answer behind it; of every layer only the rows of the answer are kept, so
that memory stays small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from vlm.decoding import Decoding
from vlm.families.layout import Visual
from vlm.model import Vlm
from vlm.sampling import GenerationParams

_NAME = "tosa_vqa_rows"
_switching = Lock()


class _Rows:
    """Add up the attention of the last `number` positions of a prompt over layers."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._total: Tensor | None = None
        self._layers = 0

    @property
    def mean(self) -> Tensor:
        """Return the mean over layers, heads and positions: float32 [T] on the CPU, which adds up to 1."""
        assert self._total is not None, "the model has a layer with attention"
        return self._total / self._layers

    def add(self, query: Tensor, key: Tensor, mask: Tensor | None, **more: Any) -> None:
        """Take one layer, as `_weights` has it."""
        weights = _weights(query[:, :, -self._number :], key, mask, **more).mean(dim=(0, 1, 2)).cpu()
        self._total = weights if self._total is None else self._total + weights
        self._layers += 1


_rows: ContextVar[_Rows | None] = ContextVar("rows of attention", default=None)


@torch.inference_mode()
def visual_attention(vlm: Vlm, prompt: Tensor, features: Sequence[Visual], answer: Sequence[int]) -> Tensor:
    """Return the share of attention that each visual token of a prompt got while its answer was written.

    prompt: ids [1, T]. features: as in `Decoding`. answer: its token ids, without the stop token. The mean
    over the positions that wrote the answer, all layers with attention, and their heads: float32 [V] on the
    CPU, in the order of the prompt; with the shares of all other tokens they add up to 1.
    """
    ids = torch.tensor([list(answer[:-1])], dtype=prompt.dtype, device=vlm.device)
    ids = ids[:, : _first(vlm.family.is_visual(ids[0]))]
    whole = torch.cat([prompt.to(vlm.device), ids], dim=1)
    rows = _Rows(ids.shape[1] + 1)
    with _watched(vlm, rows):
        Decoding(vlm, [whole], [features], [GenerationParams(max_new_tokens=1)])
    return rows.mean[: prompt.shape[1]][vlm.family.is_visual(prompt[0]).cpu()]


@contextmanager
def _watched(vlm: Vlm, rows: _Rows) -> Iterator[None]:
    """Let `rows` see the attention of the language model, of this thread alone."""
    config: Any = vlm.family.decoder(vlm.core).config
    token = _rows.set(rows)
    try:
        with _switching:  # other threads may use the model meanwhile: nothing changes for them
            _register()
            usual = config._attn_implementation
            config._attn_implementation = _NAME
            try:
                yield
            finally:
                config._attn_implementation = usual
    finally:
        _rows.reset(token)


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """Attend as transformers does, and let the rows of this thread see it."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows, scale = _rows.get(), {name: more.get(name) for name in ("scaling", "softcap")}
    if rows is not None:
        rows.add(query, key, attention_mask, **scale)
    if scale["softcap"] is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    weights = _weights(query, key, attention_mask, **scale).to(value.dtype)
    return (weights @ _to_heads(value, query)).transpose(1, 2).contiguous(), None


def _weights(
    query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, softcap: float | None
) -> Tensor:
    """Return the attention of the last R positions: float32 [B, H, R, T].

    query [B, H, R, d], key [B, K, T, d], mask [B, 1, at least R, at least T], of booleans or to be added;
    None: each position sees those up to itself. softcap: bounds scores, where a model does so.
    """
    rows, length = query.shape[2], key.shape[2]
    scores = query.float() @ _to_heads(key, query).float().mT
    scores = scores * (query.shape[3] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        position = torch.arange(length, device=key.device)
        mask = (position[None] <= position[-rows:, None])[None, None]
    mask = mask[..., -rows:, :length]
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)


def _to_heads(shared: Tensor, query: Tensor) -> Tensor:
    """Repeat keys or values that several heads share."""
    return shared.repeat_interleave(query.shape[1] // shared.shape[1], dim=1)


def _first(found: Tensor) -> int:
    """Return where the first True is, and the length without one."""
    at = found.nonzero().flatten()
    return int(at[0]) if len(at) else len(found)
