"""The comparison: its variants, batching that changes no answer, resuming, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from evals.rooms import VALIDATION, examples
from evals.rooms.compare import __main__ as command
from evals.rooms.compare import evaluator as evaluator_module
from evals.rooms.compare import report, workers
from evals.rooms.compare.batched_answers import answer_frames
from evals.rooms.compare.evaluator import Evaluator, batches_of, concatenated, remembering
from evals.rooms.compare.latency import by_work, measure
from evals.rooms.compare.result_store import ResultStore
from evals.rooms.compare.variants import Ablation, Variant, ablations, compared, plan_all
from evals.rooms.compare.workers import ComparisonError
from evals.rooms.conditions import Condition
from evals.rooms.depth_sources import DEPTHS, spatial_from
from evals.rooms.splits import Example
from tosa import METHODS, MergeSpec, Tokens, make_plan
from vlm import Vlm, adapt, encode, features, load_vlm, pixel_values

MERGING = [name for name, method in METHODS.items() if method.merges]
ESTIMATOR = "room-depth-tiny"


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return load_vlm("room-tiny")


@pytest.fixture(scope="module")
def split() -> list[Example]:
    return list(examples(VALIDATION, 16))


def test_every_method_ratio_and_schedule_is_there_once() -> None:
    variants = compared(MERGING, (0.25, 0.1))
    assert len(variants) == len({variant.name for variant in variants})
    found = {(one.spec.method, one.spec.keep_ratio, one.spec.schedule) for one in variants}
    kinds = ("constant", "decreasing")
    both = {(name, keep, kind) for name in MERGING for keep in (0.25, 0.1) for kind in kinds}
    assert both <= found and ("none", None, "constant") in found


def test_names_tell_all_settings_apart(vlm: Vlm) -> None:
    changes = ablations(MERGING, (0.25, 0.1), vlm.shape.num_layers)
    variants = {one for each in changes for one in (each.variant, each.shipped, each.control) if one}
    variants |= set(compared(MERGING, (0.25, 0.1)))
    assert len({variant.name for variant in variants}) == len(variants)


def test_what_cannot_be_is_listed_with_its_reason_and_equal_work_is_done_once(vlm: Vlm) -> None:
    refused, twice = Variant(MergeSpec("saint", keep_ratio=0.05)), MergeSpec("expedite", keep_ratio=0.25)
    late = Variant(replace(twice, schedule="decreasing"))
    planned = plan_all([refused, Variant(twice), late, Variant(twice)], vlm.shape)
    assert list(planned.plans) == [Variant(twice), late] and planned.same_as == {late: Variant(twice)}
    assert "smallest possible keep_ratio is 0.0617" in planned.refused[refused]
    assert len(by_work(list(planned.plans.values()))) == 1


def test_depth_makes_two_settings_of_one_plan(vlm: Vlm) -> None:
    spec = MergeSpec("tosa", keep_ratio=0.25)
    planned = plan_all([Variant(spec, "true"), Variant(spec, "shuffled")], vlm.shape)
    assert planned.same_as == {} and len(by_work(list(planned.plans.values()))) == 1


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_source_of_depth_codes_a_frame(vlm: Vlm, split: list[Example], depth: str) -> None:
    coded = spatial_from(vlm, depth, "distance", split, ESTIMATOR)(split[0])
    assert coded.shape == (1, vlm.shape.patches, 4 if depth == "x and y" else 6)
    true = spatial_from(vlm, "true", "distance", split, ESTIMATOR)(split[0])
    assert torch.equal(coded, true) == (depth == "true")


@pytest.fixture(scope="module")
def evaluator(vlm: Vlm, split: list[Example]) -> Evaluator:
    """Share one evaluator, as runs do, so that cached values are tested, too."""
    return Evaluator(vlm, split, batches_of(len(split)), ESTIMATOR)


@pytest.mark.parametrize(
    "variant",
    [
        Variant(MergeSpec()),
        Variant(MergeSpec("tosa", keep_ratio=0.1), "true"),
        Variant(MergeSpec("saint", keep_ratio=0.25, schedule="decreasing")),
        Variant(MergeSpec("cubist", keep_ratio=0.25)),
    ],
    ids=lambda variant: variant.name,
)
def test_answers_are_those_of_the_ordinary_path(
    vlm: Vlm, split: list[Example], evaluator: Evaluator, variant: Variant
) -> None:
    plan = make_plan(variant.spec, vlm.shape)
    ordinary = []
    for example in split:
        spatial = spatial_from(vlm, "true", "sinusoidal", split, ESTIMATOR)(example)
        with torch.inference_mode():
            tokens = encode(vlm.tower, pixel_values(vlm, [Image.fromarray(example.frame.rgb)]), plan, spatial)
        texts = [asked.question for asked in example.questions]
        ordinary.append(answer_frames(vlm, features(vlm, tokens)[None], [texts], 8)[0])
    assert concatenated(evaluator.evaluate(variant, plan)).answers == ordinary
    assert len({answer for answers in ordinary for answer in answers}) > 4


def test_what_settings_share_is_done_once_and_is_the_same(vlm: Vlm, split: list[Example]) -> None:
    pixels = pixel_values(vlm, [Image.fromarray(split[0].frame.rgb)])
    calls: list[int] = []

    def counted(x: Tensor, tokens: Tokens, size: Tensor | None) -> tuple[Tensor, Tensor]:
        calls.append(len(tokens.x))
        return plain.blocks[0].attend(x, tokens, size)

    plain = adapt(vlm.tower)
    adapter = replace(plain, blocks=(replace(plain.blocks[0], attend=counted), *plain.blocks[1:]))
    with torch.inference_mode():
        adapter, early = remembering(adapter, pixels), MergeSpec("cubist", keep_ratio=0.25, layers=(0,))
        for spec in (MergeSpec(), MergeSpec("tome", keep_ratio=0.1), early):
            plan = make_plan(spec, vlm.shape)
            assert torch.equal(encode(adapter, pixels, plan).x, encode(plain, pixels, plan).x)
    assert len(calls) == 2  # once for all, and for cubist, which merges before it


def test_shares_of_the_frames_come_back_in_order(vlm: Vlm, split: list[Example]) -> None:
    batches = [[0], [1, 2], [3]]
    variant = Variant(MergeSpec("pool", keep_ratio=0.1))
    plan = make_plan(variant.spec, vlm.shape)
    whole = concatenated(Evaluator(vlm, split, batches, ESTIMATOR).evaluate(variant, plan))
    shares = [
        Evaluator(vlm, split, batches[share::2], ESTIMATOR).evaluate(variant, plan) for share in range(2)
    ]
    assert concatenated(workers._in_order(shares)) == whole
    assert len(set(whole.purity)) == 4


def test_a_worker_that_dies_is_noticed() -> None:
    receiver, sender = workers.multiprocessing.Pipe(duplex=False)
    sender.send([1])
    sender.close()
    assert workers._receive(receiver) == [1]
    with pytest.raises(ComparisonError, match="ended in the middle"):
        workers._receive(receiver)


def test_what_is_kept_is_found_again_but_never_mixed(tmp_path: Path) -> None:
    path, about = tmp_path / "results.jsonl", {"model": "a", "split": [1]}
    ResultStore(path, about).append("tome", {"answers": [["yes"]]})
    with path.open("a") as file:
        file.write('{"tosa": {"answ')  # killed in the middle of a line
    again = ResultStore(path, about)
    assert again["tome"] == {"answers": [["yes"]]} and "tosa" not in again
    again.append("tosa", 1)
    assert ResultStore(path, about)["tosa"] == 1
    with pytest.raises(ComparisonError, match=r"model is b, not a.*--fresh"):
        ResultStore(path, about | {"model": "b"})
    path.write_text(path.read_text().replace('{"tome"', "{tome"))
    with pytest.raises(ComparisonError, match="line 2 cannot be read"):
        ResultStore(path, about)


@given(st.lists(st.lists(st.booleans(), min_size=1), min_size=1))
def test_bits_come_back(right: list[list[bool]]) -> None:
    marks = [mark for frame in right for mark in frame]
    assert report.from_hex(report.to_hex(right), len(marks)) == marks


def test_bits_by_hand() -> None:
    assert report.to_hex([[True, False, False, True], [True]]) == "98"


def test_paired_tests_by_hand() -> None:
    tome, tosa = (
        Variant(MergeSpec("tome", keep_ratio=0.25)),
        Variant(MergeSpec("tosa", keep_ratio=0.25), "true"),
    )
    right = {tome: [[False]] * 8 + [[True]] * 2, tosa: [[True]] * 9 + [[False]]}
    found = report.paired_tests([tome, tosa], right)
    (against,) = found["against tome"]
    assert (against["only_setting_right"], against["only_other_right"]) == (8, 1)
    assert against["p"] == pytest.approx(2 * (1 + 9) / 2**9, abs=1e-6) == against["p_holm"]
    assert against["difference"][0] == 0.7  # 9 right instead of 2, of 10
    assert found["tosa against"] == [against] and found["decreasing"] == []


def test_pooling_averages_over_the_ratios_both_have() -> None:
    def at(keep: float, schedule: str = "constant") -> Variant:
        return Variant(MergeSpec("tome", keep_ratio=keep, schedule=schedule))

    right = {at(0.5): [[True], [True]], at(0.1): [[True], [False]], at(0.1, "decreasing"): [[True], [True]]}
    constant, decreasing = report.pooled(list(right), right)
    assert constant["accuracy"][0] == 0.75 and constant["minus_constant"] is None
    assert decreasing["minus_constant"][0] == 0.5  # at 0.1 only: 1 against 1/2


def test_ablations_compare_with_the_shipped_setting_and_the_control() -> None:
    shipped = Variant(MergeSpec("tosa", keep_ratio=0.1), "true")
    other = replace(shipped, spec=replace(shipped.spec, alpha=0.2))
    control = replace(other, depth="shuffled")
    refused = replace(shipped, spec=replace(shipped.spec, layers=(7,)))
    right = {shipped: [[True], [True]], other: [[True], [False]], control: [[False], [False]]}
    changes = [Ablation("alpha", "0.2", other, shipped, control), Ablation("layers", "7", refused, shipped)]
    (row,) = report.ablation_rows(changes, right)
    assert (row["difference"][0], row["minus_control"][0]) == (-0.5, 0.5)


def test_the_front_by_hand() -> None:
    points = {"slow": (9, 0.9), "good": (5, 0.9), "poor": (6, 0.5), "fast": (1, 0.4), "deep": (4, 0.95)}
    rows = [
        {"name": n, "vision_ms": ms, "accuracy": {"overall": [a]}, "depth": "true" if n == "deep" else None}
        for n, (ms, a) in points.items()
    ]
    assert report.pareto(rows, {"true": 0.5}) == ["fast", "deep"]
    assert report.pareto(rows, {"true": 3.0}) == ["fast", "good", "deep"]


def test_latency_has_a_control_and_a_time_for_every_plan(vlm: Vlm, split: list[Example]) -> None:
    plans = [make_plan(spec, vlm.shape) for spec in (MergeSpec(), MergeSpec("pool", keep_ratio=0.1))]
    timed = measure(vlm, plans, split[:1], ESTIMATOR, 1)
    plain, pool = timed["plans"]
    assert plain["vision_speed_up"] == 1 and 0 < pool["vision_ms"] < pool["total_ms"]
    assert len(timed["controls"]) == 6 and set(timed["depth_ms"]) == {"true", "estimated"}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, vlm: Vlm) -> list[str]:
    """Evaluate in this process; return the names of the evaluated variants."""
    asked: list[str] = []

    def evaluate(job: workers.Job, variants: list[Variant], processes: int) -> Any:
        split, batches = workers.asked(job)
        evaluator = Evaluator(vlm, split, batches, job.estimator)
        for variant in variants:
            asked.append(variant.name)
            yield concatenated(evaluator.evaluate(variant, make_plan(variant.spec, vlm.shape)))

    monkeypatch.setattr(command, "evaluate_in_processes", evaluate)
    monkeypatch.setattr(command, "load_vlm", lambda name: vlm)
    return asked


def test_the_command_asks_what_is_missing_and_repeats_itself(
    tmp_path: Path, in_this_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kept, out = tmp_path / "results.jsonl", tmp_path / "comparison.json"
    given = ["--split", "validation", "--questions", "8", "--methods", "tome", "pool", "--rounds", "0"]
    given += ["--kept", str(kept), "--out", str(out), "--ablated-ratios"]
    command.main([*given, "--keep-ratios", "0.25"])
    first = json.loads(out.read_text())
    command.main([*given, "--keep-ratios", "0.25", "0.1"])
    assert len(in_this_process) == len(set(in_this_process))
    again = json.loads(out.read_text())
    assert again["settings"][:2] == first["settings"][:2]
    assert len(again["settings"]) == 1 + 2 * 2 * 2  # no merging; ratios, methods, schedules
    command.main([*given, "--keep-ratios", "0.25", "0.1", "--fresh"])
    assert json.loads(out.read_text())["settings"] == again["settings"]
    assert again["machine"]["commit"] and again["split"]["questions_of_frame"] == [4, 4]
    with pytest.raises(SystemExit, match=r"split is .*, not "):
        command.main([*given, "--keep-ratios", "0.25", "--questions", "4"])
    assert np.isclose(again["settings"][0]["accuracy"]["overall"][0], _share(again["settings"][0], 8))


def test_conditions_are_asked_alike_and_pooled_by_frame(
    tmp_path: Path, in_this_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kept, out = tmp_path / "results.jsonl", tmp_path / "conditions.json"
    given = [
        "--split",
        "validation",
        "--questions",
        "8",
        "--methods",
        "tome",
        "tosa",
        "--keep-ratios",
        "0.25",
    ]
    given += [
        "--schedules",
        "constant",
        "--alphas",
        "increase",
        "0.5",
        "--kept",
        str(kept),
        "--out",
        str(out),
    ]
    command.main([*given, "--conditions", "clean", "noise:3"])
    result = json.loads(out.read_text())
    names = [row["name"] for row in result["conditions"]["clean"]]
    true, other = ", true depth", ", shuffled depth"
    settings = [f"{depth}{alpha}" for depth in (true, other) for alpha in ("", ", alpha 0.5")]
    assert sorted(names) == sorted(
        ["none", "tome 0.25 constant", *(f"tosa 0.25 constant{setting}" for setting in settings)]
    )
    assert list(result["conditions"]) == ["clean", "noise:3"]
    for row in result["together"]:
        both = [
            _share(each, 8)
            for rows in result["conditions"].values()
            for each in rows
            if each["name"] == row["name"]
        ]
        assert row["accuracy"][0] == pytest.approx(sum(both) / 2, abs=1e-4)
        tosa = row["name"].startswith("tosa")
        assert (row["minus_tome"] is not None) == tosa
        assert (row["minus_control"] is not None) == (tosa and "true" in row["name"])
        assert (row["minus_none"] is None) == (row["name"] == "none")
    command.main([*given, "--conditions", "noise:3", "dark"])
    assert len(in_this_process) == 3 * len(names)  # clean and noise:3 were stored
    command.main([*given, "--conditions", "clean", "--alphas", "0.5", "--controlled"])
    only = json.loads(out.read_text())["conditions"]["clean"]
    assert [row["name"] for row in only] == ["none", "tome 0.25 constant", f"tosa 0.25 constant{settings[1]}"]
    with pytest.raises(SystemExit):
        command.main([*given, "--conditions", "rain"])
    assert "unknown condition 'rain'" in capsys.readouterr().err


@pytest.mark.long
def test_frames_are_asked_about_under_all_conditions_before_the_next_ones(
    tmp_path: Path, in_this_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped leaves a fair result, which says how far it came, and goes on from there."""
    monkeypatch.setattr(evaluator_module, "TOGETHER", 1)
    kept, out = tmp_path / "results.jsonl", tmp_path / "conditions.json"
    given = ["--split", "validation", "--questions", "8", "--methods", "tome", "--keep-ratios", "0.1"]
    given += ["--schedules", "constant", "--kept", str(kept), "--conditions", "noise:3", "clean"]
    command.main([*given, "--out", str(out), "--frames-at-once", "8"])
    whole = json.loads(out.read_text())
    assert whole["worst_third"]["conditions"] == ["noise:3"] and whole["split"]["questions"] == 8

    asked, real = list[workers.Job](), command.evaluate_in_processes

    def interrupted(job: workers.Job, *others: Any) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(job)
        return real(job, *others)

    monkeypatch.setattr(command, "evaluate_in_processes", interrupted)
    given += ["--out", str(out), "--frames-at-once", "1"]
    with pytest.raises(KeyboardInterrupt):
        command.main([*given, "--fresh"])
    assert [(job.frames, job.condition) for job in asked] == [((0, 1), Condition("noise", 3)), ((0, 1), None)]
    partial = json.loads(out.read_text())
    assert partial["split"]["questions_of_frame"] == [4] and len(partial["conditions"]) == 2
    monkeypatch.setattr(command, "evaluate_in_processes", real)
    command.main(given)
    again = json.loads(out.read_text())
    assert {name: again[name] for name in ("split", "conditions", "together", "worst_third")} == {
        name: whole[name] for name in ("split", "conditions", "together", "worst_third")
    }


def _share(row: dict[str, Any], questions: int) -> float:
    return sum(report.from_hex(row["right"], questions)) / questions
