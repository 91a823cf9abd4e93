"""The pipeline does what its parts do: the service neither adds to nor takes from the model's answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depth import depth_codes
from depth.estimate import estimate
from depth.estimators import load_depth_estimator
from service.engine.batch_runner import answer_here
from service.pipeline.estimation import load_estimation, to_wait
from service.pipeline.frame_cache import FrameCache
from service.pipeline.frames import attach_spatial, estimate_depth
from service.pipeline.images import decode_image
from service.pipeline.merge_trace import see
from service.pipeline.model_names import public_id
from service.pipeline.models import Models
from service.pipeline.prepare import Prepared, prepare
from service.request.schemas import VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tests.depth.files import decode_depth, png16
from tests.service.files import DEPTH, IMAGE
from tosa import MergeSpec, make_plan, spatial_tokens
from vlm import (
    GenerationParams,
    VlmError,
    encode,
    features,
    generate,
    load_vlm,
    pixel_values,
    prompt_ids,
)


@pytest.fixture(scope="module")
def models(checkpoint: Path) -> Models:
    return Models(load_vlm(checkpoint), None, FrameCache(0))


@pytest.mark.parametrize("method", ["none", "tome", "tosa"])
def test_answer_is_that_of_the_model(models: Models, method: str) -> None:
    fields = VqaFields(question="how many cubes ?", method=method, max_new_tokens=6)
    prepared = prepare(models, VqaRequest(fields, (IMAGE,), (DEPTH,)), Settings(), StageTimer())
    answer = answer_here(models, prepared)

    vlm = models.vlm
    plan = make_plan(MergeSpec(method, keep_ratio=None if method == "none" else 0.25), vlm.shape)
    codes = depth_codes(decode_depth(DEPTH), vlm.shape.grid, vlm.shape.grid[0])
    with torch.inference_mode():
        pixels = pixel_values(vlm, [decode_image(IMAGE, 10_000)])
        tokens = encode(vlm.tower, pixels, plan, spatial_tokens(codes[None]))
        ids = prompt_ids(vlm, "how many cubes ?", [plan.tokens_out])
        direct = generate(vlm, ids, features(vlm, tokens), GenerationParams(max_new_tokens=6))

    assert (answer.text, answer.completion_tokens) == (direct.text, len(direct.token_ids))
    assert (answer.finish_reason, answer.prompt_tokens) == (direct.finish_reason, ids.shape[1])
    assert torch.equal(see(models, prepared).source, tokens.source)
    assert (prepared.frames[0].spatial is None) is (method != "tosa")


def test_depth_changes_the_merging_only_where_it_is_used(models: Models) -> None:
    def source(method: str, depth: bytes) -> torch.Tensor:
        fields = VqaFields(question="?", method=method)
        sent = VqaRequest(fields, (IMAGE,), (depth,))
        return see(models, prepare(models, sent, Settings(), StageTimer())).source

    blocks = np.random.default_rng(0).integers(300, 9000, (4, 4))
    other = png16(np.kron(blocks, np.ones((12, 16))))
    assert torch.equal(source("tome", DEPTH), source("tome", other))
    assert not torch.equal(source("tosa", DEPTH), source("tosa", other))


def test_estimated_depth_steers_as_the_estimator_gave_it(models: Models, estimator: Path) -> None:
    settings = Settings(depth_model=str(estimator), depth_size_px=56)
    loaded = load_depth_estimator(estimator, size_px=56)
    sent = VqaRequest(VqaFields(question="?", method="tosa"), (IMAGE,), ())
    prepared = prepare(models, sent, settings, StageTimer())
    assert prepared.frames[0].spatial is None and prepared.depth is None
    estimation = load_estimation(settings)
    assert estimation is not None
    depths, known = estimate_depth(prepared.frames, estimation)
    (frame,) = attach_spatial(prepared.frames, depths)

    depth = estimate(loaded, [decode_image(IMAGE, 10_000)])[0]
    codes = depth_codes(depth, models.vlm.shape.grid, models.vlm.shape.grid[0])
    assert frame.spatial is not None and frame.to_estimate == ()
    assert known == [[False]]
    assert torch.equal(frame.spatial, spatial_tokens(codes[None], levels=models.vlm.shape.grid[0]))
    seen = see(replace(models, estimation=estimation), prepared)
    assert not torch.equal(seen.source, see(models, _without_depth(models, sent)).source)


def test_a_prompt_without_room_is_refused_before_any_work(models: Models) -> None:
    question = "how many " * 300
    sent = VqaRequest(VqaFields(question=question), (IMAGE,), ())
    with pytest.raises(VlmError, match="takes 511"):
        prepare(models, sent, Settings(max_question_chars=10_000), StageTimer())


def test_a_sampled_answer_is_the_same_if_its_batch_has_to_run_again(models: Models) -> None:
    fields = VqaFields(question="how many ?", temperature=2.0, max_new_tokens=16)
    prepared = prepare(models, VqaRequest(fields, (IMAGE,), ()), Settings(), StageTimer())
    assert answer_here(models, prepared).text == answer_here(models, prepared).text
    again = prepare(models, VqaRequest(fields, (IMAGE,), ()), Settings(), StageTimer())
    assert prepared.params[0].seed != again.params[0].seed


def test_a_prompt_that_may_not_be_remembered_has_one_salt_of_its_own(models: Models) -> None:
    """Also if its batch has to run again."""

    def salt(tenant: str | None, cache: bool) -> str | None:
        fields = VqaFields(question="how many ?", cache=cache)
        prepared = prepare(models, VqaRequest(fields, (IMAGE,), ()), Settings(), StageTimer(), tenant)
        assert prepared.salt == prepared.salt
        return prepared.salt

    assert salt(None, True) is None and salt("one", True) == salt("one", True) != salt("two", True)
    assert len({salt(tenant, False) for tenant in (None, None, "one", "one")}) == 4


def test_images_that_wait_for_an_estimate_are_not_larger_than_any_estimator_sees() -> None:
    small, large = Image.new("RGB", (3071, 8)), Image.new("RGB", (64, 4096), "red")
    assert to_wait(small) is small
    assert to_wait(large).size == (32, 2048) and to_wait(large).getpixel((5, 2047)) == (255, 0, 0)


def _without_depth(models: Models, sent: VqaRequest) -> Prepared:
    fields = sent.fields.model_copy(update={"depth": "none"})
    return prepare(models, replace(sent, fields=fields), Settings(), StageTimer())


def test_paths_are_not_published(models: Models) -> None:
    assert public_id(models.vlm.id) == "tiny"
    assert public_id("owner/name") == "owner/name"
    assert public_id("room-tiny") == "room-tiny"
    assert public_id("./models/mine/") == "mine"
