"""What an answer read: the attention of our pass is that of transformers' own eager attention."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch

from tests.vlm.conftest import Member
from tests.vlm.families import CASES
from tests.vlm.family_pictures import pictures, read
from vlm import Decoding, GenerationParams, Visual, Vlm, prompt_ids
from vlm.attention import visual_attention
from vlm.language import embed, new_cache, next_logits

WIDTH = 32


def asked(vlm: Vlm) -> tuple[torch.Tensor, list[Visual]]:
    features = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0))
    return prompt_ids(vlm, "how many cubes ?", [5]), [Visual(features)]


def eagerly(vlm: Vlm, ids: torch.Tensor, features: Any, rows: int) -> torch.Tensor:
    """Return the mean over layers, heads and the last rows, as transformers reports it."""
    decoder: Any = vlm.family.decoder(vlm.core)
    usual = decoder.config._attn_implementation
    decoder.config._attn_implementation = "eager"
    try:
        with torch.inference_mode():
            out = decoder(inputs_embeds=embed(vlm, ids, features), output_attentions=True, use_cache=False)
    finally:
        decoder.config._attn_implementation = usual
    layers = [layer[0, :, -rows:].mean(dim=(0, 1)) for layer in out.attentions]
    return torch.stack(layers).mean(dim=0)


@pytest.mark.parametrize("answer", [[], [7], [7, 8, 9, 10]], ids=["empty", "a token", "four tokens"])
def test_it_is_what_transformers_reports(vlm: Vlm, answer: list[int]) -> None:
    ids, features = asked(vlm)
    found = visual_attention(vlm, ids, features, answer)
    whole = torch.cat([ids, torch.tensor([answer[:-1]], dtype=ids.dtype)], dim=1)
    theirs = eagerly(vlm, whole, features, max(1, len(answer)))
    torch.testing.assert_close(found, theirs[: ids.shape[1]][vlm.family.is_visual(ids[0])])
    assert 0 < float(found.sum()) < 1 and found.shape == (6,)


def test_a_placeholder_in_the_answer_is_no_picture(vlm: Vlm) -> None:
    ids, features = asked(vlm)
    placeholder = vlm.family.visual_token_ids[0]
    found = visual_attention(vlm, ids, features, [7, placeholder, 8])
    torch.testing.assert_close(found, visual_attention(vlm, ids, features, [7, 9]))


def test_other_threads_and_later_questions_see_nothing_of_it(vlm: Vlm) -> None:
    ids, features = asked(vlm)
    before = next_logits(vlm, embed(vlm, ids, features), new_cache(vlm))
    answers: list[list[int]] = []

    def ask() -> None:
        for _ in range(5):
            decoding = Decoding(vlm, [ids], [features], [GenerationParams(3)])
            while decoding.active:
                decoding.step()
            answers.append(decoding.rows[0].token_ids)

    thread = Thread(target=ask)
    thread.start()
    first = visual_attention(vlm, ids, features, [7, 8])
    for _ in range(5):
        assert torch.equal(visual_attention(vlm, ids, features, [7, 8]), first)
    thread.join()
    assert all(one == answers[0] for one in answers)
    assert torch.equal(next_logits(vlm, embed(vlm, ids, features), new_cache(vlm)), before)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_every_family_tells(member: Callable[..., Member], name: str) -> None:
    vlm = member(name).vlm
    ids, features = read(vlm, pictures([(70, 90)]))
    found = visual_attention(vlm, ids, features, [5, 6])
    assert len(found) == int(vlm.family.is_visual(ids[0]).sum()) and (found >= 0).all()
    assert 0 < float(found.sum()) < 1
