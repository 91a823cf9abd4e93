"""Without merging, every family is what transformers makes of it: prompt, logits and answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import getsource
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vlm.families import CASES, kinds
from tests.vlm.family_pictures import ONE_SIZES, QUESTION, picture, pictures, processed, read
from tosa import MergeSpec
from vlm import Decoding, GenerationParams, prompt_ids
from vlm.families import FAMILIES
from vlm.visuals import layouts, plan_views, spell

NEW_TOKENS = 32
FRAMES = [(96, 128)] * 8
INPUTS = {
    **{name: [size] for name, size in ONE_SIZES.items()},
    "two": [(480, 640), (384, 384)],
    "8 images": FRAMES,
}
QUICK = ("640x480", "two")


def test_every_family_has_a_checkpoint_to_test_with() -> None:
    assert CASES.keys() == FAMILIES.keys()


def cases() -> list[Any]:
    """List every family with every input; most of them take seconds with the real sizes."""
    found = []
    for real in (False, True):
        for name in CASES:
            inputs = INPUTS | ({"video": FRAMES} if "video" in kinds(name) else {})
            for label, sizes in inputs.items():
                quick = not real and (label in QUICK or label == "video")
                marks = () if quick else (pytest.mark.long,)
                size = "real" if real else "small"
                found.append(pytest.param(name, label, sizes, real, marks=marks, id=f"{name}-{label}-{size}"))
    return found


@pytest.mark.parametrize(("name", "label", "sizes", "real"), cases())
def test_prompt_logits_and_answer_are_those_of_transformers(
    member: Callable[..., Any], name: str, label: str, sizes: Sequence[tuple[int, int]], real: bool
) -> None:
    it, images = member(name, real), pictures(sizes)
    views = "video" if label == "video" else "auto"
    inputs = processed(name, it.processor, images, views)
    prompt, logits, answer = ask_transformers(it.theirs, inputs)
    ids, visuals = read(it.vlm, images, views=views)
    assert torch.equal(ids, prompt)
    ours, found = ask(it.vlm, ids, visuals)
    assert distance(ours, capped(it, logits)) < 1e-5
    assert found == answer


def ask_transformers(model: Any, inputs: Any) -> tuple[Tensor, Tensor, list[int]]:
    with torch.inference_mode():
        made = model.generate(
            **inputs,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    prompt = inputs["input_ids"]
    return prompt, made.logits[0], made.sequences[0, prompt.shape[1] :].tolist()


def ask(vlm: Any, ids: Tensor, visuals: Any) -> tuple[Tensor, list[int]]:
    decoding = Decoding(vlm, [ids], [visuals], [GenerationParams(max_new_tokens=NEW_TOKENS)])
    logits = decoding._logits
    assert logits is not None
    while decoding.active:
        decoding.step()
    return logits, decoding.rows[0].token_ids


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def capped(it: Any, logits: Tensor) -> Tensor:
    """Cap the logits of PaliGemma 2 where an older transformers forgets to."""
    cap = it.vlm.text_config.final_logit_softcapping if it.name == "paligemma" else None
    if cap is None or "softcapping" in getsource(type(it.theirs).forward):
        return logits
    return torch.tanh(logits / cap) * cap


@pytest.mark.parametrize("name", CASES)
def test_logits_depend_on_the_picture(member: Callable[..., Any], name: str) -> None:
    vlm = member(name).vlm
    (one, other) = (ask(vlm, *read(vlm, [picture((96, 128), seed)]))[0] for seed in (1, 2))
    assert distance(one, other) > 1e-3


@pytest.mark.parametrize("size", ONE_SIZES.values(), ids=ONE_SIZES)
@pytest.mark.parametrize("name", CASES)
def test_views_and_prompt_follow_from_the_size_as_from_the_picture(
    member: Callable[..., Any], name: str, size: tuple[int, int]
) -> None:
    it = member(name)
    image = picture(size)
    inputs = processed(name, it.processor, [image])
    (layout,) = layouts(it.vlm, [size], "auto")
    theirs = inputs["pixel_values"]
    ours = it.vlm.family.pixels([image], layout)
    assert ours.shape[0] == len(layout.views)
    torch.testing.assert_close(ours.flatten(), theirs.flatten().to(ours.dtype), rtol=0, atol=2e-6)
    spelled = spell(it.vlm, layout, plan_views(it.vlm, MergeSpec(), layout))
    assert torch.equal(prompt_ids(it.vlm, QUESTION, [spelled]), inputs["input_ids"])
