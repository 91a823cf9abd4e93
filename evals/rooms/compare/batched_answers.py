"""Many questions about the same pictures at once, greedily: what an evaluation wants.

Pictures are read by the language model once; the questions about them share that cache. Not a request path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm.language import embed, new_cache, next_logits
from vlm.model import Vlm
from vlm.prompt import answer_text, prompt_ids


def answer_batch(vlm: Vlm, features: Tensor, questions: Sequence[str], max_new_tokens: int = 32) -> list[str]:
    """Answer every question about the pictures behind features [n, M, D], as `generate` would one by one."""
    (answers,) = answer_frames(vlm, features[None], [questions], max_new_tokens)
    return answers


@torch.inference_mode()
def answer_frames(
    vlm: Vlm, features: Tensor, questions: Sequence[Sequence[str]], max_new_tokens: int = 32
) -> list[list[str]]:
    """Answer questions about several frames together, as `generate` would one by one.

    features: [F, n, M, D], the n pictures of each frame; questions: at least one about each of the F frames.
    Raises ValueError where these numbers disagree, or where a prompt does not begin with its pictures.
    """
    if len(features) != len(questions) or not all(questions):
        raise ValueError(f"give questions about each of {len(features)} frames")
    merged_counts = [features.shape[2] - 1] * features.shape[1]
    prompts = [prompt_ids(vlm, question, merged_counts)[0] for asked in questions for question in asked]
    shared = int((prompts[0] == vlm.image_token_id).nonzero()[-1]) + 1
    if any(not torch.equal(prompt[:shared], prompts[0][:shared]) for prompt in prompts):
        raise ValueError("the chat template puts the question before the pictures")
    cache = new_cache(vlm)
    next_logits(vlm, embed(vlm, prompts[0][:shared].expand(len(features), -1), features), cache)
    frame = [number for number, asked in enumerate(questions) for _ in asked]
    cache.batch_select_indices(torch.tensor(frame, device=vlm.device))

    tails, real = _left_pad([prompt[shared:] for prompt in prompts])
    attended = torch.cat((real.new_ones(len(prompts), shared), real), dim=1)
    ids, answers = tails, tails.new_empty(len(prompts), 0)
    for _ in range(max_new_tokens):
        positions = attended.cumsum(dim=1)[:, -ids.shape[1] :] - 1
        ids = next_logits(vlm, embed(vlm, ids), cache, attended, positions).argmax(dim=-1, keepdim=True)
        answers = torch.cat((answers, ids), dim=1)
        attended = torch.cat((attended, attended.new_ones(len(prompts), 1)), dim=1)
        if all(vlm.eos_token_ids.intersection(answer) for answer in answers.tolist()):
            break
    texts = iter(_text(vlm, answer) for answer in answers.tolist())
    return [[next(texts) for _ in asked] for asked in questions]


def _left_pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return ids [B, T] padded on the left, and 1 where they are real."""
    width = max(map(len, rows))
    ids = torch.stack([torch.cat((row.new_zeros(width - len(row)), row)) for row in rows])
    real = torch.stack([torch.arange(width, device=row.device) >= width - len(row) for row in rows])
    return ids, real.long()


def _text(vlm: Vlm, answer: list[int]) -> str:
    end = next((i for i, token in enumerate(answer) if token in vlm.eos_token_ids), len(answer))
    return answer_text(vlm, answer[:end])
