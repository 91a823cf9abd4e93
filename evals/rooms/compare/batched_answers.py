"""Greedy answers to many questions about the same images at once, for evaluation.

The language model reads the images once; all questions about them share that cache. Requests do not run here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm.decoding import left_pad
from vlm.language import embed, new_cache, next_logits
from vlm.model import Vlm
from vlm.prompt import answer_text, prompt_ids


@torch.inference_mode()
def answer_frames(
    vlm: Vlm, features: Tensor, questions: Sequence[Sequence[str]], max_new_tokens: int = 32
) -> list[list[str]]:
    """Answer questions about several frames together, as `generate` would one by one.

    features: [F, n, M, D], the n images of each frame; questions: at least one about each of the F frames.
    Raises ValueError where these numbers disagree, or where a prompt does not begin with its images.
    """
    if len(features) != len(questions) or not all(questions):
        raise ValueError(f"give questions about each of {len(features)} frames")
    merged_counts = [features.shape[2] - 1] * features.shape[1]
    prompts = [prompt_ids(vlm, question, merged_counts)[0] for own in questions for question in own]
    shared = int((prompts[0] == vlm.image_token_id).nonzero()[-1]) + 1
    if any(not torch.equal(prompt[:shared], prompts[0][:shared]) for prompt in prompts):
        raise ValueError("the chat template puts the question before the images")
    cache = new_cache(vlm)
    next_logits(vlm, embed(vlm, prompts[0][:shared].expand(len(features), -1), features), cache)
    frame = [number for number, own in enumerate(questions) for _ in own]
    cache.batch_select_indices(torch.tensor(frame, device=vlm.device))

    inputs, real = left_pad([embed(vlm, prompt[None, shared:]) for prompt in prompts])
    answers = prompts[0].new_empty(len(prompts), 0)
    real = answers.new_ones(inputs.shape[:2]) if real is None else real
    attended = torch.cat((real.new_ones(len(prompts), shared), real), dim=1)
    for _ in range(max_new_tokens):
        positions = attended.cumsum(dim=1)[:, -inputs.shape[1] :] - 1
        ids = next_logits(vlm, inputs, cache, attended, positions).argmax(dim=-1, keepdim=True)
        inputs, answers = embed(vlm, ids), torch.cat((answers, ids), dim=1)
        attended = torch.cat((attended, attended.new_ones(len(prompts), 1)), dim=1)
        if all(vlm.eos_token_ids.intersection(answer) for answer in answers.tolist()):
            break
    texts = iter(_text(vlm, answer) for answer in answers.tolist())
    return [[next(texts) for _ in own] for own in questions]


def _text(vlm: Vlm, answer: list[int]) -> str:
    end = next((i for i, token in enumerate(answer) if token in vlm.eos_token_ids), len(answer))
    return answer_text(vlm, answer[:end])
