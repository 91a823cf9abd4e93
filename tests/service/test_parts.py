"""The small parts of the service, each alone: timer, settings, threads, error table."""

from __future__ import annotations

import asyncio

import pytest
import torch
from pydantic import ValidationError

from depth.estimate import EstimatorError
from service.engine.engine import Engine
from service.engine.model_thread import TORCH_THREADS
from service.errors.table import CODES, SENTENCES
from service.errors.translation import to_service_error
from service.request.schemas import VqaFields
from service.settings import Settings
from service.timing import STAGES, StageTimer, server_timing
from tests.service.jobs import silent_observer
from vlm import VlmError


def test_every_moment_belongs_to_one_stage() -> None:
    clock = iter([0.0, 1.0, 3.0, 3.5, 4.0])
    timer = StageTimer(lambda: next(clock))
    for stage in ("queue", "decode", "queue", "vision"):
        timer.mark(stage)
    timings = timer.timings_ms()
    assert timings.model_dump() == {
        **dict.fromkeys(STAGES),
        "queue": 1500,
        "decode": 2000,
        "vision": 500,
        "total": 4000,
    }
    assert server_timing(timings) == "queue;dur=1500.0, decode;dur=2000.0, vision;dur=500.0, total;dur=4000.0"


def test_skipped_time_belongs_to_no_stage() -> None:
    clock = iter([0.0, 1.0, 30.0, 32.0])
    timer = StageTimer(lambda: next(clock))
    timer.mark("decode")
    timer.skip()
    timer.mark("estimate")
    timings = timer.timings_ms()
    assert (timings.decode, timings.estimate, timings.total) == (1000, 2000, 3000)


def test_only_the_model_thread_has_a_team_of_torch_threads() -> None:
    async def threads(engine: Engine) -> tuple[int, int]:
        decoding = await engine.decode(torch.get_num_threads)
        return decoding, await engine.load(torch.get_num_threads)

    for wanted, expected in ((None, TORCH_THREADS), (3, 3)):
        engine = Engine(Settings(num_threads=wanted), silent_observer(), lambda _: None)
        try:
            assert asyncio.run(threads(engine)) == (1, expected)
        finally:
            engine.close()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSA_VQA_MAX_QUEUE", "3")
    monkeypatch.setenv("TOSA_VQA_DTYPE", "bfloat16")
    monkeypatch.setenv("TOSA_VQA_DEPTH_CACHE_MIB", "0.5")
    monkeypatch.setenv("TOSA_VQA_ALLOW_NON_COMMERCIAL", "true")
    settings = Settings()
    assert (settings.max_queue, settings.torch_dtype) == (3, torch.bfloat16)
    assert settings.model == "room-tiny"
    assert (settings.depth_model, settings.depth_size_px, settings.estimates_depth) == (
        "room-depth-tiny",
        252,
        True,
    )
    assert (settings.depth_cache_bytes, settings.allow_non_commercial) == (1 << 19, True)
    monkeypatch.setenv("TOSA_VQA_DEPTH_MODEL", "none")
    assert not Settings().estimates_depth
    with pytest.raises(ValidationError):
        settings.max_queue = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "given",
    [
        {"dtype": "float8"},
        {"max_queue": -1},
        {"nonsense": 1},
        {"num_threads": 0},
        {"device": "abacus"},
        {"depth_size_px": 0},
        {"depth_cache_mib": -1},
    ],
)
def test_impossible_settings_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**given)  # type: ignore[arg-type]


def test_settings_and_request_share_no_field() -> None:
    assert not set(Settings.model_fields) & set(VqaFields.model_fields)


def test_every_reason_belongs_to_a_code() -> None:
    assert {code for code, _ in SENTENCES} <= set(CODES)
    assert all(400 <= code.status < 600 and code.sentence.endswith(".") for code in CODES.values())
    assert all(sentence.endswith(".") for sentence in SENTENCES.values())


def test_what_an_estimator_says_of_folders_stays_here() -> None:
    for code in ("model_not_found", "licence_refused", "broken_checkpoint", "new"):
        refusal = to_service_error(EstimatorError(code, "with a path in it."))
        assert (refusal.code, refusal.field) == ("no_estimator", "depth") and "path" not in refusal.message


def test_what_a_model_says_of_itself_stays_here() -> None:
    for code in ("model_not_found", "unsupported_tower", "non_finite", "wrong_plan", "new"):
        refusal = to_service_error(VlmError(code, "with a path in it."))
        assert refusal.code == "internal" and "path" not in refusal.message


def test_anything_else_is_internal() -> None:
    assert to_service_error(KeyError("secret")).code == "internal"
