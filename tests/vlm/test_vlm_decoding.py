"""Answers decoded together: every one as if it had been alone, whatever its neighbours are and do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from vlm import Decoding, GeneratedSequence, GenerationParams, Vlm, VlmError, decoding, prompt_ids
from vlm.language import embed, new_cache, next_logits

MERGED = 5  # visual tokens of a image
WIDTH = 32


@dataclass(frozen=True)
class Request:
    """One prompt with made-up features: its images, its words, and how its answer is decoded."""

    num_images: int = 1
    words: int = 3
    seed: int = 0
    params: GenerationParams = GenerationParams(max_new_tokens=12)  # noqa: RUF009  frozen

    def prompt(self, vlm: Vlm) -> Tensor:
        question = " ".join(f"w{(7 * self.seed + 3 * i) % 60}" for i in range(self.words))
        return prompt_ids(vlm, question, [MERGED] * self.num_images)

    def features(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.num_images, MERGED + 1, WIDTH, generator=generator)


def sampled(max_new_tokens: int, seed: int, top_p: float = 0.95) -> GenerationParams:
    return GenerationParams(max_new_tokens, temperature=1.3, top_p=top_p, seed=seed)


NEEDLE = Request(num_images=1, words=4, seed=42)
SAMPLED_NEEDLE = replace(NEEDLE, params=sampled(12, seed=3))
NEIGHBOURS = [
    Request(num_images=2, words=1, seed=1, params=GenerationParams(1)),
    Request(num_images=0, words=1, seed=2, params=sampled(20, seed=5)),
    Request(num_images=3, words=9, seed=3, params=GenerationParams(3)),
    Request(num_images=1, words=4, seed=4),
    Request(num_images=1, words=30, seed=5, params=sampled(2, seed=1, top_p=0.5)),
    Request(num_images=0, words=2, seed=6, params=GenerationParams(24)),
    Request(num_images=4, words=2, seed=7, params=sampled(9, seed=2)),
]
EVERYONE = [NEEDLE, SAMPLED_NEEDLE, *NEIGHBOURS]


def start(vlm: Vlm, requests: Sequence[Request]) -> Decoding:
    prompts = [request.prompt(vlm) for request in requests]
    return Decoding(vlm, prompts, [r.features() for r in requests], [r.params for r in requests])


def finish(decoding: Decoding) -> tuple[GeneratedSequence, ...]:
    while decoding.active:
        decoding.step()
    return decoding.rows


def answers(vlm: Vlm, requests: Sequence[Request]) -> list[tuple[list[int], str | None]]:
    return [(row.token_ids, row.finish_reason) for row in finish(start(vlm, requests))]


@cache
def alone(vlm: Vlm, request: Request) -> tuple[list[int], str | None]:
    """Answer one request by itself, with nothing replaced: remembered, for most tests compare with it."""
    assert decoding.next_logits is next_logits
    return answers(vlm, [request])[0]


@pytest.fixture(scope="module", params=[False, True], ids=["no stop token", "stop token"])
def model(request: pytest.FixtureRequest, vlm: Vlm) -> Vlm:
    """The tiny model, once as it is and once with a stop token that its answers reach."""
    fifth = alone(vlm, NEEDLE)[0][4]
    return replace(vlm, eos_token_ids=vlm.eos_token_ids | {fifth}) if request.param else vlm


@pytest.mark.parametrize("needle", [NEEDLE, SAMPLED_NEEDLE], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("size", "place"), [(size, place) for size in (2, 4, 8) for place in range(size)])
def test_a_needle_answers_as_if_alone(model: Vlm, needle: Request, size: int, place: int):
    neighbours = [NEIGHBOURS[(place + i) % len(NEIGHBOURS)] for i in range(size - 1)]
    requests = [*neighbours[:place], needle, *neighbours[place:]]
    together = answers(model, requests)
    assert together == [alone(model, request) for request in requests]
    assert len(together[place][0]) > 2


def test_the_requests_are_really_different(model: Vlm):
    """The twin: equal answers would make every comparison above pass."""
    assert len({str(alone(model, request)) for request in EVERYONE}) == len(EVERYONE)
    reasons = {alone(model, request)[1] for request in EVERYONE}
    assert ("stop" in reasons) == (len(model.eos_token_ids) > 1)


def test_without_the_padding_mask_answers_change(vlm: Vlm, monkeypatch: pytest.MonkeyPatch):
    expected = [alone(vlm, request) for request in EVERYONE]

    def unmasked(vlm: Vlm, embeds: Tensor, cache: Any, attended: Any = None, positions: Any = None) -> Tensor:
        attended = None if attended is None else torch.ones_like(attended)
        return next_logits(vlm, embeds, cache, attended, positions)

    monkeypatch.setattr(decoding, "next_logits", unmasked)
    assert answers(vlm, EVERYONE) != expected
    assert answers(vlm, [NEEDLE]) == expected[:1]  # nothing to break where nothing is padded


def test_without_position_ids_answers_change(vlm: Vlm, monkeypatch: pytest.MonkeyPatch):
    expected = [alone(vlm, request) for request in EVERYONE]

    def shifted(vlm: Vlm, embeds: Tensor, cache: Any, attended: Any = None, positions: Any = None) -> Tensor:
        return next_logits(vlm, embeds, cache, attended, None if positions is None else 2 * positions)

    monkeypatch.setattr(decoding, "next_logits", shifted)
    assert answers(vlm, EVERYONE) != expected


@torch.inference_mode()
def test_one_row_is_bit_equal_to_the_plain_loop(vlm: Vlm, monkeypatch: pytest.MonkeyPatch):
    seen: list[Tensor] = []

    def record(*arguments: Any) -> Tensor:
        seen.append(next_logits(*arguments))
        return seen[-1]

    monkeypatch.setattr(decoding, "next_logits", record)
    (row,) = finish(start(vlm, [NEEDLE]))
    cache = new_cache(vlm)
    logits = next_logits(vlm, embed(vlm, NEEDLE.prompt(vlm), NEEDLE.features()), cache)
    for token, ours in zip(row.token_ids, seen, strict=True):
        assert torch.equal(ours, logits)
        assert token == int(logits.argmax())
        logits = next_logits(vlm, embed(vlm, torch.tensor([[token]])), cache)


@pytest.mark.parametrize("same_length", [False, True])
def test_a_mask_is_used_only_where_something_is_padded(
    vlm: Vlm, monkeypatch: pytest.MonkeyPatch, same_length: bool
):
    masked: list[bool] = []

    def record(vlm: Vlm, embeds: Tensor, cache: Any, *mask: Any) -> Tensor:
        masked.append(bool(mask))
        return next_logits(vlm, embeds, cache, *mask)

    monkeypatch.setattr(decoding, "next_logits", record)
    finish(start(vlm, [NEEDLE, NEIGHBOURS[3] if same_length else NEIGHBOURS[4]]))
    assert set(masked) == {not same_length}


def test_rows_that_end_leave_the_batch_and_the_cache(vlm: Vlm):
    running = start(vlm, [replace(NEEDLE, params=GenerationParams(n)) for n in (1, 3, 2)])
    widths, cached = [], []
    while running.active:
        widths.append([row.index for row in running.step()])
        layer: Any = running._cache.layers[0]
        cached.append(0 if layer.keys is None else len(layer.keys))
    assert widths == [[0, 1, 2], [1, 2], [1]]
    assert cached == [2, 1, 0]
    assert running.step() == []


@pytest.mark.parametrize("gone", [[0], [1], [8], [0, 8], [2, 4, 5], list(range(1, 9))], ids=str)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_dropped_rows_change_nobody(model: Vlm, gone: list[int], after: int):
    running = start(model, EVERYONE)
    for _ in range(after):
        running.step()
    were_active = running.active
    running.cancel([*gone, 99])
    assert set(running.active) == set(were_active) - set(gone)
    rows = finish(running)
    for row, request in zip(rows, EVERYONE, strict=True):
        if row.index in gone and row.index in were_active:
            assert (len(row.token_ids), row.finish_reason) == (after, "cancelled")
        else:
            assert (row.token_ids, row.finish_reason) == alone(model, request)


def test_dropping_everyone_ends_it(vlm: Vlm):
    running = start(vlm, EVERYONE)
    running.cancel(running.active)
    assert (running.active, running.step()) == ((), [])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", range(3))
def test_a_row_that_is_non_finite_ends_alone(model: Vlm, place: int, value: float):
    requests = [NEEDLE, NEIGHBOURS[2], NEIGHBOURS[6]]
    features = [request.features() for request in requests]
    features[place][0, 1, 2] = value
    prompts = [request.prompt(model) for request in requests]
    rows = finish(Decoding(model, prompts, features, [request.params for request in requests]))
    for row, request in zip(rows, requests, strict=True):
        expected = ([], "non_finite") if row.index == place else alone(model, request)
        assert (row.token_ids, row.finish_reason) == expected


def test_a_row_may_stop_being_finite_later(vlm: Vlm, monkeypatch: pytest.MonkeyPatch):
    def spoiled(vlm: Vlm, embeds: Tensor, cache: Any, *mask: Any) -> Tensor:
        logits = next_logits(vlm, embeds, cache, *mask)
        if cache.get_seq_length() == len(NEEDLE.prompt(vlm)[0]) + 2:
            logits[1, 3] = float("nan")
        return logits

    expected = alone(vlm, NEEDLE)
    monkeypatch.setattr(decoding, "next_logits", spoiled)
    first, second = answers(vlm, [NEEDLE, NEEDLE])
    assert first == expected
    assert second == (expected[0][:2], "non_finite")


def test_each_row_has_the_room_of_its_own_prompt(load: Callable[..., Vlm]):
    vlm = load(max_tokens=24)
    requests = [replace(NEEDLE, words=words, params=GenerationParams(40)) for words in (3, 8, 5)]
    rows = finish(start(vlm, requests))
    assert [row.prompt_tokens + len(row.token_ids) for row in rows] == [24, 24, 24]
    assert {row.finish_reason for row in rows} == {"length"}
    assert [row.token_ids for row in rows] == [alone(vlm, request)[0] for request in requests]


def test_too_long_prompts_are_named_before_the_model_runs(
    load: Callable[..., Vlm], monkeypatch: pytest.MonkeyPatch
):
    vlm = load(max_tokens=24)
    monkeypatch.setattr(decoding, "embed", None)
    monkeypatch.setattr(decoding, "next_logits", None)
    with pytest.raises(VlmError, match="takes 23") as error:
        start(vlm, [replace(NEEDLE, words=words) for words in (3, 40, 5, 50)])
    assert (error.value.code, error.value.rows) == ("prompt_too_long", (1, 3))


def test_features_of_one_row_never_fill_the_placeholders_of_another(vlm: Vlm):
    one, two = replace(NEEDLE, num_images=1), replace(NEEDLE, num_images=2)
    prompts, swapped = [one.prompt(vlm), two.prompt(vlm)], [two.features(), one.features()]
    with pytest.raises(ValueError, match="6 image placeholders for 12 visual tokens"):
        Decoding(vlm, prompts, swapped, [one.params] * 2)


@pytest.mark.parametrize("counts", [(0, 0, 0), (2, 1, 2), (1, 1, 2)])
def test_prompts_features_and_parameters_must_be_as_many(vlm: Vlm, counts: tuple[int, int, int]):
    prompts, features, params = ([item] * n for item, n in zip("pfg", counts, strict=True))
    with pytest.raises(ValueError, match="at least one prompt"):
        Decoding(vlm, prompts, features, params)  # type: ignore[arg-type]


def test_decoding_leaves_the_global_generator_alone(vlm: Vlm):
    before = torch.get_rng_state()
    answers(vlm, EVERYONE)
    assert torch.equal(torch.get_rng_state(), before)
