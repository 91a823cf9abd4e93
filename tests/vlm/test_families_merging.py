"""Merging in every family: placeholders agree with features, batches and threads change no answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vlm.families import CASES, kinds
from tests.vlm.family_pictures import codes, picture, pictures, read, smallest
from tosa import METHODS, MergeSpec, recover
from vlm import (
    Decoding,
    GeneratedSequence,
    GenerationParams,
    Vlm,
    decoding,
    encode_views,
    layouts,
    plan_views,
    reduce_views,
    saves,
    spell,
    view_pixels,
    visual_of,
)
from vlm.families import Visual
from vlm.families.anyres import pack
from vlm.language import next_logits

MERGING = ("tome", "tosa", "cubist")
SIZE = (300, 400)
NEW_TOKENS = 8
Prompt = tuple[Tensor, list[Visual]]


def every_view() -> list[tuple[str, str]]:
    return [(name, views) for name in CASES for views in ("auto", *kinds(name))]


def answers(vlm: Vlm, prompts: list[Prompt]) -> list[list[int]]:
    return [row.token_ids for row in rows_of(vlm, prompts)]


def logprobs(vlm: Vlm, prompts: list[Prompt]) -> Tensor:
    """Return the log-probability of every token of every answer: [prompts, tokens]."""
    return torch.tensor([[each.logprob for each in row.logprobs] for row in rows_of(vlm, prompts)])


def rows_of(vlm: Vlm, prompts: list[Prompt], limits: tuple[int, ...] = ()) -> tuple[GeneratedSequence, ...]:
    """Decode prompts together. limits: most tokens of each answer."""
    most = limits or (NEW_TOKENS,) * len(prompts)
    params = [GenerationParams(max_new_tokens=limit, top_logprobs=0) for limit in most]
    running = Decoding(vlm, [ids for ids, _ in prompts], [visuals for _, visuals in prompts], params)
    while running.active:
        running.step()
    assert all(row.finish_reason == "length" for row in running.rows)
    return running.rows


def state_of(model: Any) -> dict[str, Any]:
    """Return the identity of everything that modules of a model hold."""
    return {
        f"{name}.{key}": value if isinstance(value, int | float | str | None) else id(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
    }


@pytest.mark.parametrize("method", MERGING)
@pytest.mark.parametrize(("name", "views"), every_view())
def test_placeholders_agree_with_features_and_nothing_stays_on_the_model(
    member: Callable[..., Any], name: str, views: str, method: str
) -> None:
    vlm = member(name).vlm
    images = pictures([SIZE] * (3 if views == "video" else 1))
    before = state_of(vlm.model)
    ids, visuals = read(vlm, images, MergeSpec(method, keep_ratio=0.25), views)
    whole, _ = read(vlm, images, views=views)
    assert int(vlm.family.is_visual(ids).sum()) == sum(len(visual.features) for visual in visuals)
    assert ids.shape[1] < whole.shape[1]
    assert all(torch.isfinite(visual.features).all() for visual in visuals)
    assert len(answers(vlm, [(ids, visuals)])[0]) == NEW_TOKENS
    assert state_of(vlm.model) == before


@pytest.mark.long
@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.merges])
@pytest.mark.parametrize("name", CASES)
def test_every_method_runs_or_says_how_much_it_has_to_keep(
    member: Callable[..., Any], name: str, method: str
) -> None:
    vlm = member(name).vlm
    for views, keep_ratio in product(("auto", *kinds(name)), (0.1, 0.5)):
        images = pictures([SIZE] * (3 if views == "video" else 1))
        layout = layouts(vlm, [SIZE] * len(images), views)[0]  # type: ignore[arg-type]
        ids, visuals = read(vlm, images, smallest(vlm, layout, method, keep_ratio), views)
        assert len(answers(vlm, [(ids, visuals)])[0]) == NEW_TOKENS


def mixed(vlm: Vlm) -> list[Prompt]:
    """Make prompts of other lengths, plans and numbers of pictures; the last has none."""
    return [
        read(vlm, [picture(SIZE, 1)], MergeSpec("tome", keep_ratio=0.25)),
        read(vlm, [picture((96, 128), 2), picture((128, 96), 3)], MergeSpec("cubist", keep_ratio=0.5)),
        read(vlm, [picture((96, 128), 4)]),
        read(vlm, []),
    ]


def with_videos(vlm: Vlm) -> list[Prompt]:
    """Make prompts about videos of other lengths, sizes and plans, and about an image."""
    return [
        read(vlm, pictures([SIZE] * 3), MergeSpec("tome", keep_ratio=0.25), "video"),
        read(vlm, pictures([(96, 128)] * 8), MergeSpec("cubist", keep_ratio=0.5), "video"),
        read(vlm, pictures([(128, 96)] * 2), views="video"),
        read(vlm, [picture(SIZE, 1)], MergeSpec("tosa", keep_ratio=0.25)),
    ]


@pytest.mark.parametrize(
    ("name", "make"),
    [*((name, mixed) for name in CASES), *((name, with_videos) for name in CASES if "video" in kinds(name))],
)
def test_together_prompts_give_the_answers_of_each_alone(
    member: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Callable[[Vlm], list[Prompt]],
) -> None:
    vlm = member(name).vlm
    prompts = make(vlm)
    alone = [answers(vlm, [each])[0] for each in prompts]
    likely = torch.cat([logprobs(vlm, [each]) for each in prompts])
    assert answers(vlm, prompts) == alone
    assert answers(vlm, prompts[::-1]) == alone[::-1]
    limits = (3, NEW_TOKENS, 1, 5)  # rows leave the batch before others
    found = [row.token_ids for row in rows_of(vlm, prompts, limits)]
    assert found == [answer[:limit] for answer, limit in zip(alone, limits, strict=True)]
    torch.testing.assert_close(logprobs(vlm, prompts), likely, rtol=1e-4, atol=1e-4)

    def unmasked(
        vlm: Vlm, embeds: Tensor, cache: Any, attended: Any = None, *rest: Any, **more: Any
    ) -> Tensor:
        return next_logits(
            vlm, embeds, cache, None if attended is None else torch.ones_like(attended), *rest, **more
        )

    monkeypatch.setattr(decoding, "next_logits", unmasked)
    # The twin: what is padded must be masked.
    assert not torch.allclose(logprobs(vlm, prompts), likely, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_encoded_together_pictures_give_what_each_gives_alone(member: Callable[..., Any], name: str) -> None:
    vlm = member(name).vlm
    images = pictures([SIZE, SIZE])
    laid = layouts(vlm, [SIZE, SIZE])
    plan = plan_views(vlm, MergeSpec("tome", keep_ratio=0.5), laid[0])
    pixels = [view_pixels(vlm, [image], layout) for image, layout in zip(images, laid, strict=True)]
    with torch.inference_mode():
        together = reduce_views(vlm, laid, plan, encode_views(vlm, laid[0], torch.cat(pixels), plan))
        for layout, own, found in zip(laid, pixels, together, strict=True):
            (alone,) = reduce_views(vlm, [layout], plan, encode_views(vlm, layout, own, plan))
            torch.testing.assert_close(found.features, alone.features, rtol=1e-4, atol=1e-4)
            assert sum(spell(vlm, layout, plan).counts) == len(found.features)


@pytest.mark.parametrize("name", [name for name in CASES if "video" in kinds(name)])
def test_encoded_together_videos_give_what_each_gives_alone(member: Callable[..., Any], name: str) -> None:
    vlm = member(name).vlm
    lengths = (3, 4)  # of one grid in all families
    videos = [pictures([(96, 128)] * length) for length in lengths]
    laid = [layouts(vlm, [(96, 128)] * length, "video")[0] for length in lengths]
    plan = plan_views(vlm, MergeSpec("tome", keep_ratio=0.25), laid[0])
    assert plan == plan_views(vlm, MergeSpec("tome", keep_ratio=0.25), laid[1])
    pixels = [view_pixels(vlm, frames, layout) for frames, layout in zip(videos, laid, strict=True)]
    with torch.inference_mode():
        together = reduce_views(vlm, laid, plan, encode_views(vlm, laid, torch.cat(pixels), plan))
    for layout, frames, found in zip(laid, videos, together, strict=True):
        alone = visual_of(vlm, frames, layout, plan)
        torch.testing.assert_close(found.features, alone.features, rtol=1e-4, atol=1e-4)
        assert sum(spell(vlm, layout, plan).counts) == len(found.features)


@pytest.mark.parametrize("method", MERGING)
@pytest.mark.parametrize("first", [0, 1])
def test_encoded_together_an_image_and_a_video_are_each_as_alone(
    member: Callable[..., Any], method: str, first: int
) -> None:
    """One of them goes back to all patches, and the other does not."""
    vlm = member("llava_onevision").vlm
    laid = [*layouts(vlm, [SIZE], "single"), *layouts(vlm, [SIZE] * 3, "video")]
    groups = [[picture(SIZE)], pictures([SIZE] * 3)]
    if first:
        laid, groups = laid[::-1], groups[::-1]
    plan = plan_views(vlm, MergeSpec(method, keep_ratio=0.6), laid[0])
    assert {vlm.family.recovers(layout, plan) for layout in laid} == {True, False}
    pixels = [view_pixels(vlm, images, layout) for images, layout in zip(groups, laid, strict=True)]
    own = [codes(layout, plan) for layout in laid]
    spatial = torch.cat([each for each in own if each is not None]) if plan.needs_spatial else None
    with torch.inference_mode():
        together = reduce_views(vlm, laid, plan, encode_views(vlm, laid, torch.cat(pixels), plan, spatial))
    for layout, images, code, found in zip(laid, groups, own, together, strict=True):
        alone = visual_of(vlm, images, layout, plan, code)
        torch.testing.assert_close(found.features, alone.features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(480, 640), (100, 900), (900, 100), (1080, 1920)], ids=str)
@pytest.mark.parametrize("name", ["llava_onevision", "llava_next"])
def test_merged_tiles_are_never_more_tokens_than_unmerged_ones(
    member: Callable[..., Any], name: str, size: tuple[int, int]
) -> None:
    vlm = member(name).vlm
    (layout,) = layouts(vlm, [size], "anyres")
    (most,) = vlm.family.counts(layout, plan_views(vlm, MergeSpec(), layout))
    recovered = 0
    for method, keep in product(("tome", "cubist"), (0.25, 0.5, 0.7, 0.8, 0.9)):
        plan = plan_views(vlm, MergeSpec(method, keep_ratio=keep), layout)
        (count,) = vlm.family.counts(layout, plan)
        assert count <= most
        is_whole = vlm.family.recovers(layout, plan)
        recovered += is_whole
        assert saves(vlm, layout, plan) == (("vit",) if count == most else ("vit", "lm"))
        assert count == most if is_whole else True
        if is_whole:
            visual = visual_of(vlm, [picture(size)], layout, plan)
            assert len(visual.features) == count
    assert recovered > 0


def test_tiles_that_go_back_to_all_patches_are_packed_as_those(member: Callable[..., Any]) -> None:
    vlm = member("llava_next").vlm
    (layout,) = layouts(vlm, [(100, 900)], "anyres")
    plan = plan_views(vlm, MergeSpec("tome", keep_ratio=0.9), layout)
    pixels = view_pixels(vlm, [picture((100, 900))], layout)
    with torch.inference_mode():
        encoded = encode_views(vlm, layout, pixels, plan)
        (visual,) = reduce_views(vlm, [layout], plan, encoded)
        patches = vlm.core.multi_modal_projector(recover(encoded.tokens))
    expected = pack(patches, layout, layout.grid, vlm.core.image_newline, None)
    torch.testing.assert_close(visual.features, expected)


def disagreements(vlm: Vlm, repetitions: int) -> int:
    """Answer with 8 threads and different plans at once; count the answers that differ from those alone."""
    specs = [MergeSpec()] + [MergeSpec(name, keep_ratio=keep) for name in MERGING for keep in (0.25, 0.5)]

    def one(number: int) -> list[int]:
        with torch.inference_mode():
            return answers(vlm, [read(vlm, [picture(SIZE, number % 3)], specs[number % len(specs)])])[0]

    numbers = list(range(len(specs) * 3))
    alone = [one(number) for number in numbers]
    asked = [numbers[at % len(numbers)] for at in range(repetitions)]
    with ThreadPoolExecutor(8) as threads:
        return sum(found != alone[at] for at, found in zip(asked, threads.map(one, asked), strict=True))


def test_threads_with_different_plans_do_not_disturb_each_other(member: Callable[..., Any]) -> None:
    assert disagreements(member("qwen3_vl").vlm, 24) == 0


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_threads_do_not_disturb_each_other_in_any_family(member: Callable[..., Any], name: str) -> None:
    assert disagreements(member(name).vlm, 200) == 0


def test_what_a_plan_saves_is_said(member: Callable[..., Any]) -> None:
    vlm = member("llava_onevision").vlm
    (single,) = layouts(vlm, [SIZE], "single")
    (video,) = layouts(vlm, [SIZE] * 3, "video")
    said = [
        saves(vlm, layout, plan_views(vlm, MergeSpec(method, keep_ratio=keep), layout))
        for layout, method, keep in (
            (single, "none", None),
            (single, "tome", 0.5),
            (video, "tome", 0.5),
            (video, "tome", 0.25),
        )
    ]
    # A frame of a video is pooled from 81 tokens to 25: more than 25 go back to the patches before that.
    assert said == [(), ("vit", "lm"), ("vit",), ("vit", "lm")]


def test_frames_that_keep_more_than_their_pooling_are_pooled_behind_it(member: Callable[..., Any]) -> None:
    vlm = member("llava_onevision").vlm
    images = pictures([SIZE] * 3)
    for keep, tokens in ((0.9, 25), (0.4, 25), (0.3, 24)):
        _, (visual,) = read(vlm, images, MergeSpec("tome", keep_ratio=keep), "video")
        assert len(visual.features) == 3 * tokens + 1
