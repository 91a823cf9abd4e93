"""The small parts of the service, each alone: timer, settings, threads, error table."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pydantic import ValidationError

import checkpoints
import depth
import tosa
from depth.errors import REASONS as DEPTH_REASONS
from depth.errors import DepthError
from depth.estimate import EstimatorError
from service.engine.engine import Engine
from service.engine.model_thread import TORCH_THREADS
from service.error_table import ERRORS, REASONS
from service.request.schemas import VqaFields
from service.settings import Settings
from service.timing import STAGES, StageTimer, server_timing
from service.translation import to_api_error
from tests.service.jobs import silent_watcher
from tosa import EncoderShape, MergeSpec, PlanError, make_plan


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
        engine = Engine(Settings(num_threads=wanted), silent_watcher(), lambda _: None)
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
    assert {code for code, _ in REASONS} <= set(ERRORS)
    assert all(400 <= kind.status < 600 and kind.message.endswith(".") for kind in ERRORS.values())


def raised(package: ModuleType, error: str) -> set[str]:
    """Find the first argument of every `error(...)` and `self.error(...)` in a package."""
    assert package.__file__ is not None
    return {
        first.value
        for path in Path(package.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) == error
        for first in node.args[:1]
        if isinstance(first, ast.Constant) and isinstance(first.value, str)
    }


def has_sentence(error: DepthError | EstimatorError, reason: str) -> bool:
    """Say whether the table knows the code of an error, and this reason has words of its own."""
    refusal = to_api_error(error)
    own = (refusal.code, reason) in REASONS or refusal.code == reason
    return refusal.code != "internal" and own and refusal.field is not None


def test_every_refusal_of_depth_has_a_sentence_of_its_own() -> None:
    assert raised(depth, "DepthError") - {"reason"} <= set(DEPTH_REASONS)
    assert {"aspect", "truncated", "format"} <= raised(depth, "DepthError")
    for reason in DEPTH_REASONS:
        assert has_sentence(DepthError(reason), reason)
        refusal = to_api_error(DepthError(reason))
        assert DEPTH_REASONS[reason][1].startswith(refusal.message)  # names come as choices
        assert refusal.message == DEPTH_REASONS[reason][1] or refusal.choices


def test_every_refusal_of_an_estimator_has_a_sentence_of_its_own() -> None:
    codes = raised(depth, "EstimatorError") | raised(checkpoints, "error")
    assert {"estimate_failed", "licence_refused", "broken_checkpoint"} <= codes
    for code in codes:
        assert has_sentence(EstimatorError(code, "with a path in it"), code), code
        assert "path" not in to_api_error(EstimatorError(code, "with a path in it")).message


def test_an_unknown_refusal_of_depth_is_noticed() -> None:
    assert not has_sentence(EstimatorError("new", ""), "new")


@pytest.mark.parametrize(
    "spec",
    [
        MergeSpec("zip"),
        MergeSpec("tome"),
        MergeSpec("tome", keep_ratio=0.5, r=1),
        MergeSpec("tome", keep_ratio=2),
        MergeSpec("tome", keep_ratio=0.01),
        MergeSpec("tome", r_hw=(1, 1)),
        MergeSpec("tome", r=1, layers=(3,)),
        MergeSpec("tome", r=1, spatial_kernel="x"),  # type: ignore[arg-type]
        MergeSpec("tome", r=1, options={"margin": 1}),
        MergeSpec("pool", r_hw=(4, 4)),
        MergeSpec("saint", r=1, options={"tau": 2}),
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
    is_plain = refusal.code not in ("bad_merge_spec", "keep_ratio_out_of_range")
    assert is_plain or error.value.code == "bad_keep_ratio" or refusal.message != ERRORS[refusal.code].message


def test_every_code_of_the_planner_is_in_the_table() -> None:
    sources = [path.read_text() for path in (Path(tosa.__file__).parent).glob("*.py")]
    codes = set(re.findall(r'PlanError\(\s*"(\w+)"', "".join(sources)))
    assert {"wrong_dial", "incompatible", "keep_ratio_too_small", "bad_option"} <= codes
    for code in codes:
        refusal = to_api_error(PlanError(code, "r", "text of the planner"))
        is_plain = refusal.code not in ("bad_merge_spec", "internal") or code == "bad_keep_ratio"
        assert is_plain or refusal.message != ERRORS[refusal.code].message, code
    assert to_api_error(PlanError("new", "r", "")).message == ERRORS["bad_merge_spec"].message


def test_anything_else_is_internal() -> None:
    assert to_api_error(KeyError("secret")).code == "internal"
