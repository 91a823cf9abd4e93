"""GET /methods says what each method is; warming up uses every one that can run, and none that cannot."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import service.api.state
import service.engine.warmup
from service.api.methods_listing import describe
from service.engine.warmup import merge_once, possible_plan, warm_up
from service.pipeline.frame_cache import FrameCache
from service.pipeline.models import Models
from service.settings import Settings
from tosa import METHODS, MergeMethod
from tosa.methods.options import option, settings_of
from vlm import Vlm, VlmError, load_vlm


@dataclass(frozen=True)
class ToyOptions:
    """Settings of a toy."""

    reach: float = option(0.0, "how far it looks, in patches.")
    word: str = option("yes", "something to say.")


def toy(**changes: Any) -> MergeMethod:
    declared: dict[str, Any] = {"name": "toy", "title": "Toy", "paper": None, "site": "before_mlp"}
    return MergeMethod(**{**declared, "merge": lambda tokens, metric, step: tokens, **changes})


@pytest.fixture(scope="module")
def vlm(checkpoint: Path) -> Vlm:
    return load_vlm(checkpoint)


def alone(vlm: Vlm) -> Models:
    return Models(vlm, None, FrameCache(0))


def test_methods_are_listed(client: TestClient) -> None:
    listed = client.get("/methods").json()
    assert [method["name"] for method in listed["methods"]] == list(METHODS)
    tosa = next(method for method in listed["methods"] if method["name"] == "tosa")
    assert tosa == {
        "name": "tosa",
        "title": METHODS["tosa"].title,
        "paper": "2506.20066",
        "needs_depth": "always",
        "depth_option": None,
        "keeps_grid": False,
        "dials": ["keep_ratio", "r"],
        "prop_attn": METHODS["tosa"].prop_attn,
        "layers": "all",
        "first_layer": None,
        "options": [],
    }
    assert listed["defaults"] == {
        "method": {"with_depth": "tosa", "without_depth": "none"},
        "keep_ratio": 0.25,
        "schedule": "constant",
        "alpha": "increase",
        "spatial_kernel": "sinusoidal",
        "order": "raster",
    }


def test_what_a_method_declares_is_described() -> None:
    described = describe(toy(options=ToyOptions, spatial_option="reach", keeps_grid=True))
    assert (described["needs_depth"], described["depth_option"]) == ("if asked", "reach")
    assert described["dials"] == ["keep_ratio", "r_hw"] and described["layers"] == "all"
    reach = {"name": "reach", "type": "float", "default": 0.0, "description": "how far it looks, in patches."}
    assert described["options"][0] == reach
    one = describe(toy(layers="one", first_layer=3))
    assert (one["needs_depth"], one["layers"], one["first_layer"]) == ("never", "one", 3)
    nothing = describe(METHODS["none"])
    assert (nothing["dials"], nothing["layers"], nothing["first_layer"]) == ([], None, None)


def accepts_other_types(options: type | None) -> list[str]:
    """Name the options that take text for a number, an unknown word, or a fraction for a count."""
    taken = []
    for setting in settings_of(options):
        is_count = "int" in setting.type and "float" not in setting.type
        for value in ("?" * 33, *([0.5] if is_count else [])):
            with contextlib.suppress(ValueError, TypeError):
                assert options is not None
                options(**{setting.name: value})
                taken.append(setting.name)
    return taken


@pytest.mark.parametrize("name", METHODS)
def test_every_option_refuses_other_types(name: str) -> None:
    """So that a bad value is a refusal, and never a surprise in the model thread."""
    assert accepts_other_types(METHODS[name].options) == []


def test_an_option_that_is_not_checked_is_noticed() -> None:
    assert accepts_other_types(ToyOptions) == ["reach", "word"]


def test_warm_up_uses_every_method(vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    answered, merged = [], []

    def answer_here(models: Models, prepared: Any) -> None:
        answered.append(prepared.plan.method)

    monkeypatch.setattr(service.engine.warmup, "answer_here", answer_here)
    monkeypatch.setattr(service.engine.warmup, "merge_once", lambda vlm, plan: merged.append(plan.method))
    warm_up(alone(vlm), Settings())
    assert answered == ["none", "tosa"]
    assert sorted([*answered, *merged]) == sorted(METHODS)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.merges])
def test_each_method_merges_once(vlm: Vlm, name: str) -> None:
    plan = possible_plan(vlm, name)
    assert plan is not None
    merged = merge_once(vlm, plan)
    assert merged is not None and merged.x.shape[1] < plan.counts[0]
    assert merged.x.dtype == vlm.dtype


def reshape(vlm: Vlm, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let a model describe its tower with these changes."""
    shape = vlm.family.shape
    monkeypatch.setattr(vlm.family, "shape", lambda layout: replace(shape(layout), **changes))


def test_models_that_cannot_keep_so_little_warm_up_with_more(
    vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    reshape(vlm, monkeypatch, num_layers=1)
    plan = possible_plan(vlm, "tome")
    assert plan is not None and plan.keep_ratio == 0.5


def test_methods_that_cannot_run_are_left_out(vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    reshape(vlm, monkeypatch, requires_grid=True)
    assert possible_plan(vlm, "tome") is None and possible_plan(vlm, "none") is not None
    monkeypatch.setattr(service.engine.warmup, "answer_here", lambda *_: None)
    merged: list[str] = []
    monkeypatch.setattr(service.engine.warmup, "merge_once", lambda vlm, plan: merged.append(plan.method))
    warm_up(alone(vlm), Settings())
    assert merged == [name for name, method in METHODS.items() if method.merges and method.keeps_grid]


def test_warm_up_is_quick(vlm: Vlm) -> None:
    start = time.thread_time()
    warm_up(alone(vlm), Settings())
    assert time.thread_time() - start < 10


def test_loading_warms_up(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[str] = []
    monkeypatch.setattr(service.api.state, "warm_up", lambda models, settings: warmed.append(models.vlm.id))
    assert service.api.state.load_and_warm_up(Settings(model=str(checkpoint))).vlm.id == str(checkpoint)
    assert warmed == [str(checkpoint)]
    with pytest.raises(VlmError):
        service.api.state.load_and_warm_up(Settings(model="no/such/thing"))
