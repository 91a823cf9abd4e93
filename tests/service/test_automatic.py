"""method=auto: chosen by calibration, target and the picture's own noise; said in the response."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import ServiceError
from service.pipeline.calibration import (
    Calibration,
    CalibrationError,
    choose,
    read_calibration,
    require_same,
)
from service.pipeline.frame_cache import FrameCache
from service.pipeline.models import Models
from service.pipeline.picture_noise import noise_of
from service.pipeline.prepare import prepare
from service.pipeline.response import merge_done
from service.request.schemas import VqaRequest
from service.request.validation import check_fields
from service.settings import Settings
from service.timing import StageTimer
from vlm import Vlm, load_vlm

SETTINGS = Settings()


def measured(merge: dict[str, Any], total_ms: float, clean: float, noisy: float) -> dict[str, Any]:
    accuracy = {"clean": clean, "noise:2": noisy}
    return {
        "merge": merge,
        "needs_depth": merge["method"] == "tosa",
        "total_ms": total_ms,
        "accuracy": accuracy,
    }


NONE = measured({"method": "none"}, 100, 0.90, 0.80)
HALF = measured({"method": "tome", "keep_ratio": 0.5}, 80, 0.91, 0.80)
TENTH = measured({"method": "tome", "keep_ratio": 0.1}, 40, 0.89, 0.60)
DEPTH = measured({"method": "tosa", "alpha": "auto", "keep_ratio": 0.1}, 45, 0.89, 0.82)
SLOW = measured({"method": "tome", "keep_ratio": 0.9}, 101, 0.99, 0.99)


def calibration(*settings: dict[str, Any], **changes: Any) -> Calibration:
    return Calibration.model_validate(
        {
            "model": "room-tiny",
            "revision": "0123",
            "device": "cpu",
            "dtype": "float32",
            "threads": 1,
            "date": "2026-11-30",
            "questions": 100,
            "kinds": [{"name": "clean", "noise": 2.0}, {"name": "noise:2", "noise": 31.0}],
            "settings": settings or (NONE, HALF, TENTH, DEPTH, SLOW),
        }
        | changes
    )


@pytest.mark.parametrize(
    ("noise", "has_depth", "target", "method", "keep"),
    [
        (1.0, True, {}, "tome", 0.1),  # the fastest that keeps 98 % in clean light
        (25.0, True, {}, "tosa", 0.1),  # in noise only depth keeps it
        (25.0, False, {}, "tome", 0.5),
        (25.0, False, {"target_accuracy": 1.0}, "tome", 0.5),
        (1.0, True, {"target_accuracy": 1.0}, "tome", 0.5),
        (1.0, True, {"target_ms": 90}, "tome", 0.5),  # the most accurate that is fast enough
        (25.0, True, {"target_ms": 90}, "tosa", 0.1),
        (25.0, False, {"target_ms": 1}, "tome", 0.1),  # out of reach: the fastest
        (1.0, True, {"target_ms": 1000}, "tome", 0.5),  # never what is slower than none
    ],
)
def test_the_choice(
    noise: float, has_depth: bool, target: dict[str, float], method: str, keep: float
) -> None:
    chosen = choose(calibration(), noise, has_depth, **target)
    assert (chosen.merge["method"], chosen.merge["keep_ratio"]) == (method, keep)
    assert "calibrated 2026-11-30" in chosen.because and f"{noise:.0f} of 255" in chosen.because


def test_where_nothing_serves_it_is_none() -> None:
    chosen = choose(calibration(NONE, SLOW, TENTH), 30.0, True)
    assert chosen.merge == {"method": "none"} and "80.0 % right in 100 ms" in chosen.because
    assert choose(calibration(NONE, SLOW), 1.0, True, target_ms=1).merge == {"method": "none"}


def test_noise_is_seen_and_edges_are_not() -> None:
    rng = np.random.default_rng(0)
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::20] = 255
    assert noise_of(Image.fromarray(stripes)) == 0
    for sigma in (5, 20):
        noisy = (128 + rng.normal(0, sigma, (300, 300))).clip(0, 255).astype(np.uint8)
        assert noise_of(Image.fromarray(noisy)) == pytest.approx(sigma, rel=0.1)
    assert noise_of(Image.new("RGB", (2, 500))) == 0


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"target_ms": 50}, "bad_target", "target_ms"),
        ({"method": "tome", "target_accuracy": 0.9}, "bad_target", "target_accuracy"),
        ({"method": "auto", "target_ms": 50, "target_accuracy": 0.9}, "bad_target", "target_accuracy"),
        ({"method": "auto", "keep_ratio": 0.5}, "bad_target", "keep_ratio"),
        ({"method": "auto", "target_accuracy": 1.5}, "bad_target", "target_accuracy"),
        ({"method": "auto", "target_ms": 0}, "bad_target", "target_ms"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], code: str, field: str) -> None:
    with pytest.raises(ServiceError) as refused:
        check_fields({"question": "?", **fields}, SETTINGS, strict=True)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert field in refused.value.message


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return load_vlm("room-tiny")


def request(**fields: Any) -> VqaRequest:
    written = BytesIO()
    Image.new("RGB", (64, 64), (120, 130, 140)).save(written, "PNG")
    asked = check_fields({"question": "How many chairs?", "method": "auto", **fields}, SETTINGS, strict=True)
    return VqaRequest(asked, (written.getvalue(),), ())


def test_the_chosen_setting_is_planned_and_said(vlm: Vlm) -> None:
    models = Models(vlm, None, FrameCache(0), calibration())
    prepared = prepare(models, request(target_ms=50), SETTINGS, StageTimer())
    merge = merge_done([frame.planned for frame in prepared.frames], prepared.because)
    assert (merge.method, merge.tokens_out) == ("tome", 58)
    assert merge.chosen_because is not None and "is the most accurate within 50 ms" in merge.chosen_because
    with pytest.raises(ServiceError, match="no_calibration") as refused:
        prepare(Models(vlm, None, FrameCache(0)), request(), SETTINGS, StageTimer())
    assert "tosa-vqa calibrate" in refused.value.message


def test_a_calibration_of_something_else_is_refused(vlm: Vlm, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    same = calibration(revision=vlm.revision)
    path.write_text(same.model_dump_json())
    require_same(read_calibration(path), vlm)
    with pytest.raises(CalibrationError, match="run tosa-vqa calibrate again"):
        require_same(calibration(), vlm)
    for text in ("{}", same.model_dump_json().replace('"none"', '"tome"')):
        path.write_text(text)
        with pytest.raises(CalibrationError, match="write it anew"):
            read_calibration(path)
    with pytest.raises(CalibrationError, match="No such file"):
        read_calibration(tmp_path / "missing.json")


def test_a_calibration_is_measured_through_the_whole_pipeline(vlm: Vlm, tmp_path: Path) -> None:
    from service.cli.calibrating import calibrate

    said: list[str] = []
    merges = ({"method": "tome", "keep_ratio": 0.1}, {"method": "saint", "keep_ratio": 0.01})
    models = Models(vlm, None, FrameCache(2**26))
    found = calibrate(models, SETTINGS, 4, 1, ("clean", "noise:3"), merges, said.append)
    assert [one.merge["method"] for one in found.settings] == ["none", "tome"]  # saint cannot keep so few
    assert found.questions == 4 and len(said) == 2
    assert found.kinds[0].noise < 5 < 30 < found.kinds[1].noise
    (tmp_path / "found.json").write_text(found.model_dump_json())
    require_same(read_calibration(tmp_path / "found.json"), vlm)
