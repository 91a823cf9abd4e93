"""The comparison with other servers is fair, and its bars come from what was measured. Starts no server."""

from __future__ import annotations

import ast
import asyncio
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from bench.load.cpu import CpuShares, quietly
from bench.load.serving import ServerFailed, Serving
from bench.peers import __main__ as command
from bench.peers import arms
from bench.peers.arms import ARMS, DIRECT, Arm, Work
from bench.peers.bars import BARS, judge
from bench.peers.report import COLUMNS, bar_rows, noisy, overload_rows, print_result, rows
from bench.peers.rounds import ArmRound, requests_of
from bench.tables import measured as measured_tables
from evals.environment import describe_environment
from evals.machine import describe_machine
from tests.bench.synthetic import Synthetic, running

PEERS = Path(__file__).parents[2] / "bench" / "peers"
HERE = describe_environment()
ADAPTERS = ("naive", "executor", "lit", "ray_default")


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_short_and_uses_the_model_of_all(name: str) -> None:
    text = (PEERS / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 40
    imported = {
        node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module
    }
    assert "bench.peers.model" in imported
    assert not any(module.split(".")[0] in ("vlm", "tosa", "torch") for module in imported)


def test_all_get_the_same_threads_and_no_frame_is_remembered() -> None:
    work = Work(torch_threads=3, frames=1)
    assert work.env()["OMP_NUM_THREADS"] == work.env()["TOSA_VQA_NUM_THREADS"] == "3"
    (request,) = requests_of(work)
    assert b'name="cache"\r\n\r\nfalse' in request.body
    assert not any({"OMP_NUM_THREADS", "TOSA_VQA_NUM_THREADS"} & arm.env.keys() for arm in ARMS.values())


def part(throughput: float = 10.0, p50: float = 100.0, p99: float = 200.0, **more: Any) -> dict[str, Any]:
    latency = {"p50": p50, "p90": p99, "p99": p99, "max": p99}
    return {
        "throughput": throughput,
        "latency_ms": latency,
        "refused_ms": {**latency, "p99": 20.0},
        "lost": 0,
        "failed": 0,
        "cores": {"server": 1.0, "client": 0.1, "others": 0.0},
        "noisy": False,
        **more,
    }


def served(throughput: float) -> dict[str, Any]:
    return {
        "start_s": 5.0,
        **{f"c{clients}": part(throughput) for clients in (1, 4, 16, 64)},
        "probe": part(p99=10.0),
        "abandoned": {"fresh_ms": 150.0, "answered": 3, "cores": part()["cores"], "noisy": False},
    }


def one_round(number: int = 0) -> list[dict[str, Any]]:
    limited = {"limited c16": part(p99=400.0), "overload": part(p99=800.0, rate=240.0)}
    arms = {
        DIRECT: {"c1": part(p50=97.0), "full": part(10.2)},
        "executor": served(9.0),
        "litserve": served(9.5),
        "ours": {**served(10.0), **limited},
    }
    return [{"round": number, "arm": arm, "parts": parts} for arm, parts in arms.items()]


def verdicts(runs: list[dict[str, Any]]) -> dict[str, bool]:
    return {one["bar"]: one["met"] for one in judge(runs)}


def test_a_server_that_is_good_enough_meets_every_bar() -> None:
    assert verdicts(one_round()) == {bar.name: True for bar in BARS}


WORSE: list[tuple[str, tuple[str, ...], Any]] = [
    ("latency added", ("c1", "latency_ms", "p50"), 103.0),
    ("throughput against the engine with full batches, 16", ("c16", "throughput"), 9.6),
    ("throughput against LitServe, 64", ("c64", "throughput"), 9.4),
    ("throughput against the competent FastAPI, 16", ("c16", "throughput"), 8.9),
    ("/livez", ("probe", "latency_ms", "p99"), 26.0),
    ("fresh request", ("abandoned", "fresh_ms"), 201.0),
    ("24x overload: p99", ("overload", "latency_ms", "p99"), 1001.0),
    ("24x overload: refused", ("overload", "refused_ms", "p99"), 51.0),
    ("requests of ours lost", ("overload", "lost"), 1),
]


@pytest.mark.parametrize(("bar", "path", "value"), WORSE)
def test_every_bar_can_be_missed(bar: str, path: tuple[str, ...], value: Any) -> None:
    runs = copy.deepcopy(one_round())
    place = next(run for run in runs if run["arm"] == "ours")["parts"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    (found,) = (met for name, met in verdicts(runs).items() if name.startswith(bar))
    assert not found


def test_the_median_of_rounds_decides_and_missing_arms_judge_nothing() -> None:
    runs = one_round(0) + one_round(1) + one_round(2)
    runs[3]["parts"]["probe"]["latency_ms"]["p99"] = 900.0
    judged = {one["bar"]: one for one in judge(runs)}["/livez at 16 clients, p99"]
    assert judged["met"] and judged["range"] == [10.0, 900.0] and judged["rounds"] == 3
    assert [one["bar"] for one in judge([run for run in one_round() if run["arm"] != "ours"])] == []


def test_a_disturbed_round_does_not_count_where_there_is_a_quiet_one() -> None:
    runs = one_round(0) + one_round(1)
    probe = runs[3]["parts"]["probe"]
    probe["noisy"], probe["latency_ms"]["p99"] = True, 900.0
    judged = {one["bar"]: one for one in judge(runs)}["/livez at 16 clients, p99"]
    assert (judged["median"], judged["rounds"], judged["noisy"]) == (10.0, 1, False)
    judged = {one["bar"]: one for one in judge(runs[:4])}["/livez at 16 clients, p99"]
    assert (judged["median"], judged["noisy"], judged["met"]) == (900.0, True, False)


def test_noise_excuses_no_lost_request() -> None:
    runs = one_round()
    runs[3]["parts"]["overload"] |= {"noisy": True, "lost": 1}
    assert not verdicts(runs)["requests of ours lost or failed"]


def test_the_caption_names_the_environments() -> None:
    own = {**HERE, "litserve": "0.2.19", "ray": "2.60.0", "uvloop": "9.9", "event_loop": "uvloop"}
    of_arm = {"litserve": own}
    runs = [{**run, "commit": "abc", "environment": of_arm.get(run["arm"], HERE)} for run in one_round()]
    runs.append({"round": 0, "arm": "ray", "commit": "abc", "parts": served(5.0), "environment": own})
    stamp = {"machine": describe_machine(), "date": "2026-11-29", "model": {"id": "room-tiny"}}
    caption = measured_tables.peers_caption(
        {**stamp, "runs": runs, "work": Work().as_json(), "environment": HERE}
    )
    assert "Ray Serve, one replica: ray 2.60.0, Python" in caption
    assert "LitServe, batches of 8: litserve 0.2.19, Python" in caption and "FastAPI" not in caption
    assert caption.count("uvloop 9.9") == 2 and caption.count("Environment: ") == 1


def test_tables_hold_a_row_for_every_server() -> None:
    titles = {name: name for name in (DIRECT, *ARMS)}
    result = {"titles": titles, "runs": one_round(0) + one_round(1), "bars": judge(one_round())}
    table = {row[0]: row[1:] for row in rows(result, COLUMNS)}
    assert table.keys() == {DIRECT, "executor", "litserve", "ours"}
    assert table["ours"][0] == "100 (100 to 100)" and table[DIRECT][2] == ""
    assert [row[0] for row in overload_rows(result)] == ["ours"]
    assert all(row[-1] == "met" for row in bar_rows(result)) and noisy(result) == (0, 44)
    print_result(result, Console(quiet=True))


def test_a_part_is_measured_again_while_others_work() -> None:
    async def idle() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {}

    seen = asyncio.run(quietly(idle, lambda: [], max_others=99, repeats=2))
    assert (seen["tries"], seen["noisy"]) == (1, False)
    seen = asyncio.run(quietly(idle, lambda: [], max_others=-1, repeats=2))
    assert (seen["tries"], seen["noisy"]) == (3, True)


def test_what_this_process_burns_is_the_clients() -> None:
    counting, began, end = CpuShares(lambda: []), time.perf_counter(), time.process_time() + 0.3
    while time.process_time() < end:
        pass
    shares = counting.shares()
    assert shares["client"] * (time.perf_counter() - began) > 0.2 and shares["server"] == 0


def test_a_run_continues_from_what_the_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, asked, parts = tmp_path / "peers.json", list[str](), [run["parts"] for run in one_round()]
    engine, ours = ({"parts": parts[index], "environment": HERE} for index in (0, 3))
    monkeypatch.setattr(command, "measure_engine", lambda work: asked.append(DIRECT) or engine)
    monkeypatch.setattr(command, "measure_arm", lambda arm, work: asked.append(arm.title) or ours)
    monkeypatch.setattr(command, "view", lambda index: None)
    for rounds in ("1", "1", "2"):
        words = ["peers", "--rounds", rounds, "--arms", DIRECT, "ours", "--out", str(out)]
        monkeypatch.setattr("sys.argv", words)
        command.main()
    assert len(asked) == 4  # two arms, none, two arms
    result = json.loads(out.read_text())
    assert [(run["round"], run["arm"]) for run in result["runs"]] == [
        (0, DIRECT),
        (0, "ours"),
        (1, DIRECT),
        (1, "ours"),
    ]
    assert result["bars"] and result["machine"] and all(run["commit"] for run in result["runs"])
    assert result["environment"] == HERE and all(run["environment"] == HERE for run in result["runs"])
    assert command.kept_runs(out, Work()) and not command.kept_runs(out, Work(torch_threads=2))
    out.write_text(json.dumps({**result, "environment": {**HERE, "uvloop": "0.0.1"}}))
    assert not command.kept_runs(out, Work())  # another environment: its rounds are not comparable


def test_peers_run_in_an_environment_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    monkeypatch.setattr(arms, "PEERS_PYTHON", python)
    for name in ("litserve", "ray"):
        with pytest.raises(ServerFailed, match=f"{name} has no environment: make peers"):
            ARMS[name].command()
    python.touch()
    for name in ("litserve", "ray"):
        assert ARMS[name].command()[:2] == [str(python), "-m"]
    for name in ("naive", "executor", "ours"):
        assert ARMS[name].command()[0] == sys.executable


def test_an_arm_without_its_environment_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "PEERS_PYTHON", tmp_path / "python")
    run = command.measured("ray", Work(), Console(quiet=True))
    assert (run["parts"], run["failed"]) == ({}, "did not start")


TINY = Work(
    frames=2,
    requests={"1": 2, "4": 4, "16": 16, "64": 64},
    abandoned=3,
    abandoned_times=1,
    overload_s=0.1,
    max_others=99,
)


def measured(server: Synthetic, limited: bool) -> dict[str, Any]:
    with running(server) as url:
        process = Serving(url, psutil.Process(), 0.0)
        arm = Arm("synthetic", (), "/livez", "/livez", limited={} if limited else None)
        measuring = ArmRound(arm, TINY, process)
        return asyncio.run(measuring.with_limits() if limited else measuring.without_limits())


def test_a_round_measures_every_part() -> None:
    seen = measured(Synthetic(delay_s=0.01), limited=False)
    assert seen.keys() == {"c1", "c4", "c16", "c64", "probe", "abandoned"}
    assert [seen[f"c{clients}"]["answered"] for clients in (1, 4, 16, 64)] == [2, 4, 16, 64]
    assert seen["probe"]["answered"] >= 1 and 9 < seen["abandoned"]["fresh_ms"] < 60_000


def test_a_round_counts_refusals_under_overload() -> None:
    outcomes = ("answer",) * 20 + ("refuse",)
    seen = measured(Synthetic(delay_s=0.01, outcomes=outcomes), limited=True)
    assert seen["limited c16"]["answered"] == 16
    overload = seen["overload"]
    assert overload["refused"] == overload["sent"] - 2 > 10 and overload["lost"] == 0
