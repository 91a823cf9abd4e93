"""The language model over a visual prefix, followed by many questions that do not attend to each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration

from training.batches import IGNORE, Packed


def question_loss(
    model: LlavaOnevisionForConditionalGeneration, visual: Tensor, packed: Packed
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the answers to visual [B, N, C] (no newline yet), and the share of right tokens."""
    core = model.model
    newline = core.image_newline.expand(len(visual), 1, -1)
    words = core.language_model.embed_tokens(packed.ids)
    embeds = torch.cat([visual, newline, words], 1)
    n_visual = visual.shape[1] + 1
    positions = torch.arange(n_visual, device=visual.device).expand(len(visual), -1)
    hidden = core.language_model(
        inputs_embeds=embeds,
        attention_mask=_mask(packed.segment, n_visual),
        position_ids=torch.cat([positions, packed.offset + n_visual], 1),
        use_cache=False,
    ).last_hidden_state[:, n_visual:]
    wanted = packed.labels != IGNORE
    logits = model.lm_head(hidden[wanted]).float()
    target = packed.labels[wanted]
    return F.cross_entropy(logits, target), (logits.argmax(-1) == target).float().mean()


def _mask(segment: Tensor, n_visual: int) -> Tensor:
    """[B, 1, T, T], True where attended: causal, and no question sees another."""
    prefix = segment.new_full((len(segment), n_visual), -2)
    segments = torch.cat([prefix, segment], 1)
    total = segments.shape[1]
    causal = torch.ones(total, total, dtype=torch.bool, device=segment.device).tril()
    same = segments.unsqueeze(2) == segments.unsqueeze(1)
    visible = same | (segments == -2).unsqueeze(1)
    return (causal & visible).unsqueeze(1)
