"""Probabilities of tokens, and several answers to one prompt: as if each had been asked for alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vlm.test_vlm_decoding import NEEDLE, NEIGHBOURS, SAMPLED_NEEDLE, alone, finish, sampled, start
from vlm import MAX_TOP_LOGPROBS, Decoding, GenerationParams, Vlm, VlmError, decoding
from vlm.grammar import compile_schema
from vlm.language import embed, new_cache, next_logits

REPORTING = replace(NEEDLE, params=GenerationParams(12, top_logprobs=4))


@torch.inference_mode()
def distributions(vlm: Vlm, token_ids: list[int]) -> list[Tensor]:
    """Return the log-probabilities in front of each of these tokens of the needle's answer."""
    cache = new_cache(vlm)
    logits, seen = next_logits(vlm, embed(vlm, NEEDLE.prompt(vlm), NEEDLE.features()), cache), []
    for token in token_ids:
        seen.append(logits[0].double().log_softmax(-1))
        logits = next_logits(vlm, embed(vlm, torch.tensor([[token]])), cache)
    return seen


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_they_are_those_of_the_model_before_the_temperature(vlm: Vlm, temperature: float) -> None:
    params = replace(REPORTING.params, temperature=temperature, top_p=0.9, seed=5)
    (row,) = finish(start(vlm, [replace(REPORTING, params=params)]))
    assert len(row.logprobs) == len(row.token_ids) > 2
    for token, report, expected in zip(
        row.token_ids, row.logprobs, distributions(vlm, row.token_ids), strict=True
    ):
        assert report.token_id == token and report.logprob == pytest.approx(float(expected[token]))
        values, tokens = expected.topk(4)
        assert [one for one, _ in report.top] == tokens.tolist()
        assert [one for _, one in report.top] == pytest.approx(values.tolist())
        assert sum(math.exp(one) for _, one in report.top) <= 1 + 1e-9


def test_a_schema_does_not_change_them(vlm: Vlm) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["left", "red"]}}, "required": ["a"]}
    params = replace(REPORTING.params, grammar=compile_schema(vlm, schema))
    (row,) = finish(start(vlm, [replace(REPORTING, params=params)]))
    (report,) = row.logprobs
    assert report.logprob == pytest.approx(float(distributions(vlm, row.token_ids)[0][row.token_ids[0]]))


def test_they_do_not_depend_on_the_batch(vlm: Vlm) -> None:
    (expected,) = finish(start(vlm, [REPORTING]))
    row = finish(start(vlm, [NEIGHBOURS[0], REPORTING, *NEIGHBOURS[1:]]))[1]
    assert row.token_ids == expected.token_ids
    for ours, theirs in zip(row.logprobs, expected.logprobs, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)


def test_nobody_pays_for_what_was_not_asked_for(vlm: Vlm) -> None:
    rows = finish(
        start(vlm, [REPORTING, NEEDLE, replace(NEEDLE, params=GenerationParams(3, top_logprobs=0))])
    )
    assert rows[1].logprobs == []
    assert [one.top for one in rows[2].logprobs] == [()] * 3


@pytest.mark.parametrize(("number", "limit"), [(-1, 0), (MAX_TOP_LOGPROBS + 1, MAX_TOP_LOGPROBS)])
def test_their_number_has_bounds(number: int, limit: int) -> None:
    with pytest.raises(VlmError) as caught:
        GenerationParams(top_logprobs=number)
    assert (caught.value.field, caught.value.limit) == ("top_logprobs", limit)


def test_several_answers_to_one_prompt_read_it_once(vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []

    def record(vlm: Vlm, embeds: Tensor, *rest: Any) -> Tensor:
        sizes.append((embeds.shape[0], embeds.shape[1]))
        return next_logits(vlm, embeds, *rest)

    asked = [NEEDLE, NEIGHBOURS[4]]
    expected = [alone(vlm, one) for one in (NEEDLE, SAMPLED_NEEDLE, NEEDLE, NEIGHBOURS[4])]
    monkeypatch.setattr(decoding, "next_logits", record)
    running = Decoding(
        vlm,
        [one.prompt(vlm) for one in asked],
        [one.features() for one in asked],
        [NEEDLE.params, SAMPLED_NEEDLE.params, NEEDLE.params, NEIGHBOURS[4].params],
        [0, 0, 0, 1],
    )
    assert sizes[0][0] == 2
    assert [(row.token_ids, row.finish_reason) for row in finish(running)] == expected
    assert sizes[1] == (4, 1)


def test_answers_with_other_seeds_differ(vlm: Vlm) -> None:
    params = [sampled(12, seed=seed) for seed in range(4)]
    running = Decoding(vlm, [NEEDLE.prompt(vlm)], [NEEDLE.features()], params, [0] * 4)
    assert len({str(row.token_ids) for row in finish(running)}) == 4


def test_every_answer_needs_a_prompt(vlm: Vlm) -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        Decoding(vlm, [NEEDLE.prompt(vlm)], [NEEDLE.features()], [NEEDLE.params], [0, 0])
