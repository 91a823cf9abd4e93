"""Every result names the environment it was measured in."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from evals.environment import PACKAGES, describe_environment, environment_line, environment_of
from evals.machine import write_result

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
WRITERS = {
    "bench/containers/__main__.py",
    "bench/containers/build.py",
    "bench/decode.py",
    "bench/episodes/__main__.py",
    "bench/first_paint.py",
    "bench/full_size/__main__.py",
    "bench/language/__main__.py",
    "bench/language/equality.py",
    "bench/load/__main__.py",
    "bench/merge_cost.py",
    "bench/overhead/__main__.py",
    "bench/peers/__main__.py",
    "bench/prop_attn.py",
    "bench/room_frames.py",
    "bench/vision_latency.py",
    "evals/dense/__main__.py",
    "evals/depth_estimation.py",
    "evals/rooms/compare/__main__.py",
    "evals/rooms/walks/compare.py",
    "evals/runners/__main__.py",
    "examples/lmms_eval/same_answers.py",
}
MEASURED_BEFORE = {
    "comparison.json",
    "comparison_4000.json",
    "depth_estimation.json",
    "lmms_eval.json",
    "merge_cost.json",
    "prop_attn.json",
    "room_frames.json",
    "vision_latency.json",
}
"""Results of before 2026-11-29, when the environment was not recorded. uvloop was installed in it."""
NAMES = {path.relative_to(RESULTS).as_posix(): path for path in RESULTS.rglob("*.json")}


def writes_json(path: Path) -> tuple[bool, bool]:
    """Say whether a module calls write_result, and whether it writes JSON to a file without it."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [ast.unparse(call.func) for call in calls]
    dumped = [
        call
        for call in calls
        if ast.unparse(call.func).endswith("write_text") and "json.dumps" in ast.unparse(call)
    ]
    return "write_result" in named, bool(dumped) or "json.dump" in named


def test_an_environment_names_the_versions_that_matter() -> None:
    environment = describe_environment()
    assert {"python", "platform", "cpu", "cores", "torch_threads", *PACKAGES} == environment.keys()
    for name in ("uvicorn", "torch", "transformers", "h11", "fastapi", "numpy"):
        assert environment[name] == version(name)
    assert environment["litserve"] is None or environment["litserve"] == version("litserve")


def test_a_result_carries_its_environment(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", {"value": 1})
    assert json.loads((tmp_path / "a.json").read_text())["environment"] == describe_environment()
    served = {**describe_environment(), "event_loop": "uvloop"}
    write_result(tmp_path / "b.json", {"environment": served})
    assert json.loads((tmp_path / "b.json").read_text())["environment"] == served


def test_the_environment_of_another_interpreter_is_read_there(tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    environment = environment_of(other / "bin" / "python")
    assert environment["python"] == describe_environment()["python"]
    assert environment["uvicorn"] is environment["torch"] is environment["torch_threads"] is None
    assert environment_of(sys.executable, {"OMP_NUM_THREADS": "1"})["torch_threads"] == 1


def test_the_line_of_a_table_says_what_was_absent() -> None:
    environment = {**describe_environment(), "uvloop": None, "event_loop": "asyncio"}
    line = environment_line({"environment": environment})
    assert "uvloop absent" in line and line.endswith("event loop asyncio")
    assert f"torch {version('torch')}" in line and f"uvicorn {version('uvicorn')}" in line
    assert "before results named their environment" in environment_line({})


def test_every_writer_of_results_is_known() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("bench", "evals", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if writes_json(path)[0]
    }
    assert found == WRITERS


def test_no_benchmark_writes_json_without_its_environment() -> None:
    assert [path for path in (ROOT / "bench").rglob("*.py") if writes_json(path)[1]] == []


@pytest.mark.parametrize(
    "text", ["path.write_text(json.dumps(a))", "json.dump(a, file)", "out.write_text(json.dumps(a) + end)"]
)
def test_json_without_its_environment_is_noticed(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text(text)
    assert writes_json(tmp_path / "a.py") == (False, True)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_committed_result_names_its_environment(name: str) -> None:
    environment = json.loads(NAMES[name].read_text()).get("environment")
    if name in MEASURED_BEFORE:
        assert environment is None, "measured again: take it off MEASURED_BEFORE"
    else:
        assert environment is not None and environment.keys() >= {"python", "uvicorn", "uvloop", "httptools"}
        assert environment["torch"] and environment["transformers"] and environment["uvicorn"]


def test_only_results_that_are_there_are_excused() -> None:
    assert NAMES.keys() >= MEASURED_BEFORE
