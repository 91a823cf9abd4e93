"""The pipeline does what its parts do: the service neither adds to nor takes from the model's answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from depth import decode_depth, depth_codes
from service.images import decode_image
from service.pipeline import infer, prepare, public_id, see
from service.schemas import VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tests.depth.files import png16
from tests.service.files import DEPTH, IMAGE
from tosa import MergeSpec, make_plan, spatial_tokens
from vlm import GenerationParams, Vlm, encode, features, generate, load_vlm, pixel_values, prefill, prompt_ids


@pytest.fixture(scope="module")
def vlm(checkpoint: Path) -> Vlm:
    return load_vlm(checkpoint)


@pytest.mark.parametrize("method", ["none", "tome", "tosa"])
def test_answer_is_that_of_the_model(vlm: Vlm, method: str) -> None:
    fields = VqaFields(question="how many cubes ?", method=method, max_new_tokens=6)
    timer = StageTimer()
    prepared = prepare(vlm, VqaRequest(fields, (IMAGE,), (DEPTH,)), Settings(), timer)
    answer = infer(vlm, prepared, timer)

    plan = make_plan(MergeSpec(method, keep_ratio=None if method == "none" else 0.25), vlm.shape)
    codes = depth_codes(decode_depth(DEPTH), vlm.shape.grid, vlm.shape.grid[0])
    with torch.inference_mode():
        pixels = pixel_values(vlm, [decode_image(IMAGE, 10_000)])
        tokens = encode(vlm.tower, pixels, plan, spatial_tokens(codes[None]))
        ids = prompt_ids(vlm, "how many cubes ?", [plan.tokens_out])
        direct = generate(vlm, prefill(vlm, ids, features(vlm, tokens)), GenerationParams(max_new_tokens=6))

    assert answer.generation == direct and answer.prompt_tokens == ids.shape[1]
    assert torch.equal(see(vlm, prepared).source, tokens.source)
    assert (prepared.spatial is None) is (method != "tosa")


def test_depth_changes_the_merging_only_where_it_is_used(vlm: Vlm) -> None:
    def source(method: str, depth: bytes) -> torch.Tensor:
        fields = VqaFields(question="?", method=method)
        return see(vlm, prepare(vlm, VqaRequest(fields, (IMAGE,), (depth,)), Settings(), StageTimer())).source

    blocks = np.random.default_rng(0).integers(300, 9000, (4, 4))
    other = png16(np.kron(blocks, np.ones((12, 16))))
    assert torch.equal(source("tome", DEPTH), source("tome", other))
    assert not torch.equal(source("tosa", DEPTH), source("tosa", other))


def test_paths_are_not_published(vlm: Vlm) -> None:
    assert public_id(vlm) == "tiny"
    assert public_id(replace(vlm, id="owner/name")) == "owner/name"
    assert public_id(replace(vlm, id="room-tiny")) == "room-tiny"
    assert public_id(replace(vlm, id="./models/mine/")) == "mine"
