"""vLLM loads the embedded checkpoint as it is; its own tower answers as we do with the same views."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from bench.load.serving import Serving
from bench.vllm_server import vllm_serving
from tests.needs import skip_without
from tests.vllm.client import ask, body_of
from tests.vllm.questions import FRAMES, asked
from tosa import MergeSpec
from vlm import GenerationParams, Vlm, generate, layouts, plan_views, prompt_ids, spell, visual_of
from vlm.load import EMBEDDED

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def shipped() -> Iterator[Serving]:
    skip_without("vllm")
    with vllm_serving(EMBEDDED["room-tiny"], "--enable-prompt-embeds", "--max-model-len", "2048") as serving:
        yield serving


def test_it_answers_pictures_as_our_own_loop_does(shipped: Serving, whole: Vlm) -> None:
    for frame in FRAMES:
        picture = Image.open(frame / "rgb.png").convert("RGB")
        (layout,) = layouts(whole, [(picture.height, picture.width)], "auto")
        plan = plan_views(whole, MergeSpec(), layout)
        visual = visual_of(whole, [picture], layout, plan)
        for each in json.loads((frame / "scene.json").read_text())["questions"][:3]:
            ids = prompt_ids(whole, each["question"], [spell(whole, layout, plan)])
            ours = generate(whole, ids, [visual], GenerationParams(max_new_tokens=8)).token_ids
            assert _answered(shipped, frame.joinpath("rgb.png").read_bytes(), each["question"]) == list(ours)


def test_it_takes_prompt_embeddings_too(shipped: Serving, alone: Vlm, whole: Vlm) -> None:
    theirs, ours = asked(alone, MergeSpec())[0], asked(whole, MergeSpec())[0]
    found = ask(shipped.url, body_of(theirs.embeds(alone))).token_ids
    expected = generate(whole, ours.ids, ours.features, GenerationParams(max_new_tokens=8)).token_ids
    assert [id_ for id_ in found if id_ not in whole.eos_token_ids] == list(expected)


def _answered(server: Serving, png: bytes, question: str) -> list[int]:
    address = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": question}]
    body = {
        "model": "model",
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": 8,
        "temperature": 0,
        "return_token_ids": True,
    }
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=300, trust_env=False)
    response.raise_for_status()
    return [id_ for id_ in response.json()["choices"][0]["token_ids"] if id_ != 5]
