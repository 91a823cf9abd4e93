"""Answers: the same tokens as transformers, reproducible sampling, and nothing shared between calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from evals.rooms.compare.batched_answers import answer_frames
from tosa import MergeSpec, make_plan
from vlm import (
    GenerationParams,
    Vlm,
    VlmError,
    encode,
    features,
    generate,
    pixel_values,
    prompt_ids,
)
from vlm.language import embed, new_cache, next_logits

Load = Callable[..., Vlm]
Read = Callable[[Vlm, Sequence[Image.Image], str, MergeSpec], tuple[Tensor, Tensor]]

QUESTIONS = ["how many cubes ?", "the red one is left of the cubes ?", "how ?"]
MERGED = MergeSpec("tosa", keep_ratio=0.5)


def params(temperature: float = 0.0, top_p: float = 1.0, seed: int | None = None) -> GenerationParams:
    return GenerationParams(max_new_tokens=24, temperature=temperature, top_p=top_p, seed=seed)


@pytest.mark.parametrize("feature_layer", [-1, -2])
@pytest.mark.parametrize("image_size", [56, 70], ids=["even grid", "odd grid"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_none_generates_the_tokens_transformers_generates(
    load: Load, read: Read, sample_images: list[Image.Image], feature_layer: int, image_size: int, seed: int
):
    vlm = load(feature_layer=feature_layer, image_size=image_size, seed=seed)
    images, question = sample_images[:2], QUESTIONS[0]
    prompt = prompt_ids(vlm, question, [vlm.shape.patches] * 2)
    model: Any = vlm.model
    theirs = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        pixel_values=pixel_values(vlm, images)[:, None],
        image_sizes=torch.tensor([[image_size, image_size]] * 2),
        batch_num_images=torch.tensor([2]),  # several images: transformers takes one view of each, as we do
        max_new_tokens=24,
        do_sample=False,
    )[0, prompt.shape[1] :].tolist()
    ours = generate(vlm, *read(vlm, images, question, MergeSpec()), params())
    ended = theirs[-1] in vlm.eos_token_ids
    assert list(ours.token_ids) == (theirs[:-1] if ended else theirs)
    assert ours.finish_reason == ("stop" if ended else "length")
    assert len(set(ours.token_ids)) > 1


def test_logits_behind_the_prompt_equal_the_forward_of_transformers(
    vlm: Vlm, read: Read, sample_images: list[Image.Image]
):
    prompt = prompt_ids(vlm, QUESTIONS[0], [vlm.shape.patches] * 2)
    with torch.inference_mode():
        theirs = vlm.model(
            input_ids=prompt,
            pixel_values=pixel_values(vlm, sample_images[:2])[:, None],
            image_sizes=torch.tensor([[56, 56]] * 2),
            batch_num_images=torch.tensor([2]),
        ).logits[:, -1]
        embeds = embed(vlm, *read(vlm, sample_images[:2], QUESTIONS[0], MergeSpec()))
        ours = next_logits(vlm, embeds, new_cache(vlm))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_the_answer_is_the_text_of_the_tokens_without_the_stop_token(
    vlm: Vlm, read: Read, sample_images: list[Image.Image]
):
    answer = generate(vlm, *read(vlm, sample_images, QUESTIONS[0], MERGED), params())
    words = vlm.tokenizer.convert_ids_to_tokens(list(answer.token_ids))
    assert answer.text == " ".join(word for word in words if word not in vlm.tokenizer.get_added_vocab())
    assert not vlm.eos_token_ids.intersection(answer.token_ids)


def test_generation_stops_at_a_stop_token(load: Load, read: Read, sample_images: list[Image.Image]):
    vlm = load()
    free = generate(vlm, *read(vlm, sample_images, QUESTIONS[0], MERGED), params()).token_ids
    third = replace(vlm, eos_token_ids=frozenset({free[2]}))
    cut = generate(third, *read(third, sample_images, QUESTIONS[0], MERGED), params())
    assert (cut.token_ids, cut.finish_reason) == (free[: free.index(free[2])], "stop")


def test_length_is_the_reason_at_max_new_tokens(vlm: Vlm, read: Read, sample_images: list[Image.Image]):
    answer = generate(
        vlm, *read(vlm, sample_images, QUESTIONS[0], MERGED), GenerationParams(max_new_tokens=2)
    )
    assert (len(answer.token_ids), answer.finish_reason) == (2, "length")


def test_should_stop_cancels_after_the_token_at_hand(vlm: Vlm, read: Read, sample_images: list[Image.Image]):
    asked = iter([False, False, True])
    answer = generate(
        vlm, *read(vlm, sample_images, QUESTIONS[0], MERGED), params(), should_stop=lambda: next(asked)
    )
    assert (len(answer.token_ids), answer.finish_reason) == (3, "cancelled")


def test_sampling_is_deterministic_under_a_seed(vlm: Vlm, read: Read, sample_images: list[Image.Image]):
    def sampled(**options: float | int | None) -> tuple[int, ...]:
        torch.manual_seed(torch.seed())  # the global generator must not matter
        prompt = read(vlm, sample_images, QUESTIONS[0], MERGED)
        return generate(vlm, *prompt, params(**options)).token_ids  # type: ignore[arg-type]

    greedy = sampled()
    assert sampled(temperature=1.5, seed=7) == sampled(temperature=1.5, seed=7)
    assert len({sampled(temperature=1.5, seed=seed) for seed in range(4)}) == 4
    assert sampled(temperature=1.5, seed=None) != sampled(temperature=1.5, seed=None)
    assert sampled(temperature=1.5, top_p=1e-6, seed=1) == greedy
    assert sampled(temperature=1e-4, seed=1) == sampled(temperature=1e-320, seed=1) == greedy


def test_sampling_leaves_the_global_generator_alone(vlm: Vlm, read: Read, sample_images: list[Image.Image]):
    before = torch.get_rng_state()
    generate(vlm, *read(vlm, sample_images, QUESTIONS[0], MERGED), params(temperature=1.0))
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_asking_different_things_equal_serial(vlm: Vlm, read: Read, sample_images: list[Image.Image]):
    specs = [MergeSpec(), MERGED, MergeSpec("tome", keep_ratio=0.25), MergeSpec("tome", r=3, prop_attn=False)]
    cases = [(spec, question, n) for spec in specs for question in QUESTIONS for n in (1, 2)]

    def request(case: tuple[MergeSpec, str, int]) -> tuple[int, ...]:
        spec, question, num_images = case
        prompt = read(vlm, sample_images[:num_images], question, spec)
        return generate(vlm, *prompt, GenerationParams(max_new_tokens=4)).token_ids

    serial = {case: request(case) for case in cases}
    requests = [cases[i % len(cases)] for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(request, requests))
    assert sum(answer != serial[case] for case, answer in zip(requests, parallel, strict=True)) == 0
    assert len(set(serial.values())) > len(cases) // 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_non_finite_is_no_answer(vlm: Vlm, temperature: float):
    prompt = prompt_ids(vlm, QUESTIONS[0], [4])
    with pytest.raises(VlmError) as error:
        generate(vlm, prompt, torch.full((1, 5, 32), float("nan")), params(temperature))
    assert error.value.code == "non_finite"


def test_a_last_token_is_not_cancelled(vlm: Vlm, read: Read, sample_images: list[Image.Image]):
    one = GenerationParams(max_new_tokens=1)
    answer = generate(vlm, *read(vlm, sample_images, QUESTIONS[0], MERGED), one, should_stop=lambda: True)
    assert (len(answer.token_ids), answer.finish_reason) == (1, "length")


def test_too_long_a_prompt_is_refused(load: Load, read: Read, sample_images: list[Image.Image]):
    vlm = load(max_tokens=24)
    with pytest.raises(VlmError, match="takes 23") as error:
        generate(vlm, *read(vlm, sample_images[:1], QUESTIONS[0], MergeSpec()))
    assert error.value.code == "prompt_too_long"
    answer = generate(vlm, *read(vlm, sample_images[:1], QUESTIONS[0], MERGED), params())
    assert len(answer.token_ids) < 24
    assert answer.finish_reason == "length"


def test_features_and_placeholders_must_agree(vlm: Vlm):
    with pytest.raises(ValueError, match="3 image placeholders for 5 visual tokens"):
        generate(vlm, prompt_ids(vlm, QUESTIONS[0], [2]), torch.zeros(1, 5, 32))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
    ],
)
def test_impossible_generation_parameters_are_refused(wrong: dict[str, float]):
    with pytest.raises(VlmError) as error:
        GenerationParams(**wrong)  # type: ignore[arg-type]
    assert error.value.code == "invalid_generation"


@pytest.mark.parametrize("num_images", [1, 2])
def test_a_batch_of_questions_gets_the_answers_of_one_by_one(
    vlm: Vlm, read: Read, sample_images: list[Image.Image], num_images: int
):
    images, plan = sample_images[:num_images], make_plan(MergeSpec("tome", keep_ratio=0.5), vlm.shape)
    with torch.inference_mode():
        tokens = encode(vlm.tower, pixel_values(vlm, images), plan)
    single = [generate(vlm, *read(vlm, images, question, plan.spec), params()).text for question in QUESTIONS]
    assert answer_frames(vlm, features(vlm, tokens)[None], [QUESTIONS], 24)[0] == single
    assert len(set(single)) == len(single)
