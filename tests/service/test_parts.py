"""The small parts of the service, each alone: timer, settings, threads, error table, overlay."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from depth.errors import REASONS as DEPTH_REASONS
from depth.errors import DepthError
from service.engine import TORCH_THREADS, Engine
from service.errors import ERRORS, REASONS, to_api_error
from service.overlay import draw_groups
from service.schemas import VqaFields
from service.settings import Settings
from service.timing import STAGES, StageTimer, server_timing
from tosa import EncoderShape, MergeSpec, PlanError, make_plan


def test_every_moment_belongs_to_one_stage() -> None:
    clock = iter([0.0, 1.0, 3.0, 3.5, 4.0])
    timer = StageTimer(lambda: next(clock))
    for stage in ("queue", "decode", "queue", "vision"):
        timer.mark(stage)
    timings = timer.timings_ms()
    assert timings == {
        **dict.fromkeys(STAGES),
        "queue": 1500,
        "decode": 2000,
        "vision": 500,
        "total": 4000,
    }
    assert server_timing(timings) == "queue;dur=1500.0, decode;dur=2000.0, vision;dur=500.0, total;dur=4000.0"


def test_only_the_model_thread_has_a_team_of_torch_threads() -> None:
    async def threads(engine: Engine) -> tuple[int, int]:
        decoding = await engine.decode(torch.get_num_threads)
        return decoding, await engine.infer(torch.get_num_threads)

    for wanted, expected in ((None, TORCH_THREADS), (3, 3)):
        engine = Engine(max_queue=1, decode_threads=2, torch_threads=wanted)
        try:
            assert asyncio.run(threads(engine)) == (1, expected)
        finally:
            engine.close()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSA_VQA_MAX_QUEUE", "3")
    monkeypatch.setenv("TOSA_VQA_DTYPE", "bfloat16")
    settings = Settings()
    assert (settings.max_queue, settings.torch_dtype) == (3, torch.bfloat16)
    assert settings.model == "room-tiny"
    with pytest.raises(ValidationError):
        settings.max_queue = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "given",
    [{"dtype": "float8"}, {"max_queue": -1}, {"nonsense": 1}, {"num_threads": 0}, {"device": "abacus"}],
)
def test_impossible_settings_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**given)  # type: ignore[arg-type]


def test_settings_and_request_share_no_field() -> None:
    assert not set(Settings.model_fields) & set(VqaFields.model_fields)


def test_every_reason_belongs_to_a_code() -> None:
    assert {code for code, _ in REASONS} <= set(ERRORS)
    assert all(400 <= kind.status < 600 and kind.message.endswith(".") for kind in ERRORS.values())
    for reason in DEPTH_REASONS:
        assert to_api_error(DepthError(reason)).message == DEPTH_REASONS[reason][1]


@pytest.mark.parametrize(
    "spec",
    [
        MergeSpec("zip"),
        MergeSpec("tome"),
        MergeSpec("tome", keep_ratio=0.5, r=1),
        MergeSpec("tome", keep_ratio=2),
        MergeSpec("tome", keep_ratio=0.01),
        MergeSpec("tome", r=-1),
        MergeSpec("tome", r=(1,) * 9),
        MergeSpec("tome", r=1, schedule="x"),
        MergeSpec("tosa", r=1, alpha="x"),
        MergeSpec("tome", r=1, order="x"),  # type: ignore[arg-type]
        MergeSpec("none", keep_ratio=0.5),
    ],
    ids=str,
)
def test_every_refusal_of_the_planner_has_a_sentence_of_its_own(spec: MergeSpec) -> None:
    with pytest.raises(PlanError) as error:
        make_plan(spec, EncoderShape(3, (4, 4), hidden_size=32, mlp_size=48))
    refusal = to_api_error(error.value)
    assert refusal.kind.status == 422 and refusal.field is not None
    is_plain = refusal.code == "unknown_method" or error.value.code == "bad_keep_ratio"
    assert is_plain or refusal.message != ERRORS[refusal.code].message


def test_anything_else_is_internal() -> None:
    assert to_api_error(KeyError("secret")).code == "internal"


def test_overlay_paints_groups_in_their_mean_colour() -> None:
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[:20], pixels[20:, :20], pixels[20:, 20:] = 100, 200, 50
    source = np.array([0, 0, 0, 1])  # three patches are one token, the last is alone
    drawn = np.asarray(draw_groups(Image.fromarray(pixels), source, (2, 2)))
    assert drawn.shape == pixels.shape
    assert drawn[5, 5].tolist() == [133, 133, 133] == drawn[35, 5].tolist()
    assert (drawn[20:, 20:] == 50).all()  # not merged: as it was, no edge
    assert drawn[19, 30].tolist() != [133, 133, 133]  # the edge of the group
    assert (np.asarray(draw_groups(Image.fromarray(pixels), np.arange(4), (2, 2))) == pixels).all()


def test_overlay_shows_dropped_patches_black() -> None:
    pixels = np.full((8, 8, 3), 90, dtype=np.uint8)
    drawn = np.asarray(draw_groups(Image.fromarray(pixels), np.array([0, -1, 1, 2]), (2, 2)))
    assert (drawn[:4, 4:] == 0).all() and (drawn[4:, 4:] == 90).all()
