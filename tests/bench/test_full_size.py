"""The benchmark of models of full size: its whole path on tiny ones, its arithmetic, the models' widths."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from bench.full_size.__main__ import model
from bench.full_size.arms import KEEP_RATIOS, Arm, arms_of
from bench.full_size.checkpoints import (
    SHAPES,
    without_weights,
    write_all_but_weights,
    write_checkpoint,
)
from bench.full_size.flops import prefill_flops
from bench.full_size.measure import Asked, summarise
from bench.tables import full_size as tables
from bench.tables import markdown
from tests.vlm.family_pictures import picture
from tosa import MergeSpec, make_plan
from vlm import load_vlm, visual_of
from vlm.families import Family, family_of
from vlm.visuals import layouts, plan_views

PARAMETERS = {"llava-onevision-0.5b": 0.894e9, "smolvlm2-500m": 0.507e9, "qwen3-vl-2b": 2.127e9}
"""Of the published checkpoints."""
PAIR = ("llava-onevision-0.5b", "qwen3-vl-2b")
Part = tuple[str, dict[str, Any]]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.long)
        for name in ("llava-onevision-0.5b", "qwen3-vl-2b", "smolvlm2-500m")
    ],
)
def part(request: pytest.FixtureRequest) -> Part:
    """Measure one tiny model over HTTP: its name, and its part of the result."""
    return request.param, model(request.param, "tiny", "cpu", "bfloat16", KEEP_RATIOS, 1)[0]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    """The families of tiny checkpoints, of which the configs count."""
    found: dict[str, Family] = {}
    for name in SHAPES:
        folder = tmp_path_factory.mktemp(name)
        found[name] = family_of(write_checkpoint(folder, name, "tiny").config, folder)
    return found


def test_every_arm_is_answered_or_refused_with_a_reason(part: Part) -> None:
    name, runs = part[0], part[1]["runs"]
    arms = [Arm(run["views"], run["method"], run["keep_ratio"]) for run in runs]
    assert arms == [Arm(arm.views, arm.method, arm.keep_ratio or 1.0) for arm in arms_of(name, KEEP_RATIOS)]
    assert part[1]["parameters"] > 0
    refused = [run for run in runs if "refused" in run]
    assert all(run["refused"].startswith("keep_ratio_out_of_range: keep_ratio 0.1") for run in refused)
    # Three layers that each merge half at most leave an eighth; four leave a sixteenth.
    beyond = {("tosa", 0.1), ("tome", 0.1)} if name == "llava-onevision-0.5b" else set()
    assert {(run["method"], run["keep_ratio"]) for run in refused} == beyond


def test_the_tokens_and_flops_of_a_run_are_those_of_its_plan(part: Part, written: dict[str, Family]) -> None:
    family = written[part[0]]
    for run in answered(part):
        (layout,) = family.layouts([(480, 640)], run["views"])
        keep = None if run["method"] == "none" else run["keep_ratio"]
        plan = make_plan(MergeSpec(run["method"], keep_ratio=keep), family.shape(layout))
        assert run["visual_tokens"] == sum(family.counts(layout, plan))
        assert run["views_count"] == len(layout.views)
        assert run["vision_flops_ratio"] == pytest.approx(plan.flops_ratio, abs=1e-3)
        assert run["prefill_flops"] == prefill_flops(family.config.text_config, run["prompt_tokens"])
        assert run["prompt_tokens"] > run["visual_tokens"]
        assert run["saves"] == (["vit", "lm"] if run["method"] != "none" else [])


def test_the_times_of_a_run_add_up(part: Part) -> None:
    for run in answered(part):
        parts = run["vision_ms"] + run["prefill_ms"] + run["rest_ms"]
        assert parts == pytest.approx(run["first_token_ms"], abs=0.3)
        assert run["vision_ms"] > 0 and run["prefill_ms"] > 0 and run["rest_ms"] > 0
        stages = run["stages_ms"]
        assert stages["vision"] == run["vision_ms"] and stages["total"] <= run["first_token_ms"]
        assert ("depth" in stages) == (run["method"] == "tosa")
        assert run["method"] != "none" or run["first_token_ratio"] == run["flops_ratio"] == 1


def test_a_table_shows_every_arm(monkeypatch: pytest.MonkeyPatch, part: Part) -> None:
    machine = {"processor": "a CPU", "threads": 1, "torch": "2"}
    result = {"rounds": 1, "dtype": "bfloat16", "device": "cpu", "frame_px": [640, 480], "machine": machine}
    monkeypatch.setattr(tables, "_result", lambda: {**result, "date": "2026-11-29", "models": [part[1]]})
    lines = tables.full_size(part[0]).splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(part[1]["runs"])
    assert tables.full_size("another") == tables.NOT_MEASURED
    judged = {line.split(" | ")[0]: line.split(" | ")[-1] for line in tables.bars().splitlines()[2:]}
    assert judged.pop(f"| {part[0]}", "held |") in ("held |", "missed |")
    assert set(judged.values()) <= {"not measured |"}


def answered(part: Part) -> list[dict[str, Any]]:
    return [run for run in part[1]["runs"] if "refused" not in run]


def test_a_bar_is_judged_by_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = {"views": "anyres", "method": "tosa", "keep_ratio": 0.25, "flops_ratio": 0.5}
    for ratio, verdict in ((0.55, "held"), (0.56, "missed")):
        made = {"name": "llava-onevision-0.5b", "runs": [{**run, "first_token_ratio": ratio}]}
        monkeypatch.setattr(tables, "_result", lambda made=made: {"models": [made]})
        first, second = tables.bars().splitlines()[2:]
        assert first.endswith(f"| {ratio:.2f} | 0.50 | {verdict} |") and second.endswith("| not measured |")


def test_pages_can_be_written_before_anything_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(markdown, "RESULTS", tmp_path)
    assert tables.bars() == tables.full_size("qwen3-vl-2b") == tables.NOT_MEASURED


def test_medians_are_over_the_rounds_of_one_arm(written: dict[str, Family]) -> None:
    plain, merged = Arm("single", "none"), Arm("single", "tome", 0.25)
    found = [[_asked(ms, 60, 100) for ms in (200, 500, 210)], [_asked(ms, 20, 60) for ms in (90, 105, 300)]]
    first, second = summarise([plain, merged], found, written["llava-onevision-0.5b"])
    assert (first["first_token_ms"], first["first_token_range_ms"]) == (210, [200, 500])
    assert (second["first_token_ratio"], second["vision_ratio"], second["prefill_ratio"]) == (0.5, 0.333, 1.0)
    assert (second["rest_ms"], second["stages_ms"]["vision"]) == (55, 20)


def test_a_refusal_is_no_measurement(written: dict[str, Family]) -> None:
    (run,) = summarise([Arm("single", "tome", 0.1)], [[Asked(3, {}, "code: why")]], written[PAIR[0]])
    assert run == {"views": "single", "method": "tome", "keep_ratio": 0.1, "refused": "code: why"}


def _asked(ms: float, vision_ms: float, prompt_tokens: int) -> Asked:
    timings = {"decode": 1.0, "estimate": None, "vision": vision_ms, "prefill": 30.0, "total": ms - 1}
    merge = {"keep_ratio": 0.25, "saves": []}
    answer = {"timings_ms": timings, "merge": merge, "views": [{"count": 1, "tokens": 21}]}
    return Asked(ms, {**answer, "usage": {"prompt_tokens": prompt_tokens}})


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_full_model_is_as_large_as_the_published_one(name: str, tmp_path: Path) -> None:
    model = without_weights(name, write_all_but_weights(tmp_path, name, "full"))
    assert model.num_parameters() == pytest.approx(PARAMETERS[name], rel=0.01)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_nothing_overflows_in_bfloat16(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, name, "tiny")
    vlm = load_vlm(tmp_path, dtype=torch.bfloat16)
    (layout,) = layouts(vlm, [(480, 640)])
    visual = visual_of(vlm, [picture((480, 640))], layout, plan_views(vlm, MergeSpec(), layout))
    assert all(torch.isfinite(weight).all() for weight in vlm.model.parameters())
    assert torch.isfinite(visual.features).all() and visual.features.std() > 0


@pytest.mark.parametrize("name", PAIR)
def test_flops_of_a_prompt_are_those_that_torch_counts(name: str, written: dict[str, Family]) -> None:
    text, tokens = copy(written[name].config.text_config), 50
    text._attn_implementation = "eager"
    kinds: dict[str, Any] = {
        "qwen2": transformers.Qwen2Model,
        "qwen3_vl_text": transformers.Qwen3VLTextModel,
    }
    model = kinds[text.model_type](text)
    with FlopCounterMode(display=False) as counter:
        hidden = model(inputs_embeds=torch.zeros(1, tokens, text.hidden_size)).last_hidden_state
        _ = hidden[:, -1] @ torch.zeros(text.hidden_size, text.vocab_size)
    width = model.layers[0].self_attn.o_proj.in_features
    masked = 2 * text.num_hidden_layers * width * tokens * (tokens - 1)  # torch counts these products too
    assert counter.get_total_flops() - masked == pytest.approx(prefill_flops(text, tokens), rel=0.005)
