"""Every scenario runs against a server that only pretends, and its report says what it saw."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.load import __main__ as command
from bench.load import clients, report
from bench.load.generator import Target
from bench.load.requests import Request, form
from bench.load.scenarios import SCENARIOS, Scenario
from bench.load.serving import ServerFailed, serving
from bench.load.watch import LINE
from evals.environment import environment_of
from tests.bench.synthetic import Synthetic, running
from tests.needs import needs

ROOT = Path(__file__).parents[2]
FILES = (
    "import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
)
BODY = form({"question": "?"}, {"image": b"x" * 1000})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the command writes after all scenarios of a second's fraction each."""
    folder = tmp_path_factory.mktemp("load")
    out = folder / "report.json"
    with running(Synthetic(delay_s=0.004)) as url:
        scenario = Scenario(Target.of(url), seconds=0.2, frames=2)
        done = asyncio.run(command.run(scenario, list(SCENARIOS)))
    measured = {"url": url, "seconds": 0.2, "frames": 2, "scenarios": done}
    command.publish(measured, out, folder, Console(quiet=True))
    return json.loads(out.read_text()), folder


def test_every_scenario_counts_what_it_sent(result: tuple[dict[str, Any], Path]) -> None:
    scenarios = result[0]["scenarios"]
    assert set(scenarios) == {"capacity", *SCENARIOS}
    rows = {row[0]: row[1:] for row in report.rows(result[0])}
    assert len(rows) >= 15
    for name, (sent, answered, refused, failed, lost, *_) in rows.items():
        if "disconnecting" not in name:
            assert int(sent) == int(answered) + int(refused) + int(failed) and int(lost) == 0, name
    assert scenarios["cache"]["asked"] == 20 and scenarios["cache"]["cached"] == 0
    assert scenarios["overload"]["probe"]["answered"] >= 5
    assert scenarios["capacity"]["stages_ms"].keys() == {"vision", "total"}
    assert all(one["cores"].keys() == {"server", "client", "others"} for one in scenarios.values())


def test_the_report_has_its_table_findings_and_plots(result: tuple[dict[str, Any], Path]) -> None:
    text = (result[1] / "report.md").read_text()
    assert "overload: probe" in text and "requests lost: 0" in text and "24 times the capacity" in text
    for name in ("load-latency.png", "load-overload.png"):
        assert (result[1] / name).read_bytes().startswith(b"\x89PNG") and f"]({name})" in text
    assert result[0]["machine"]["commit"] and result[0]["date"]


def test_real_clients_answer_the_same_question_over_one_connection() -> None:
    server = Synthetic(delay_s=0.01)
    with running(server) as url, closing(Target.of(url)) as target:
        seen = asyncio.run(clients.compare(target, Request("/vqa", form({"question": "?"}, {})), 10))
    assert seen.keys() == {"generator", "httpx", "hey"}
    for name in ("generator", "httpx"):
        arm = seen[name]
        assert (arm["sent"], arm["answered"]) == (10, 10) and arm["latency_ms"]["p50"] >= 10
        assert arm["client_cpu_ms"] > 0 and 0 <= arm["beyond_total_ms"] < arm["latency_ms"]["max"]
    assert seen["generator"]["connections"] == seen["httpx"]["connections"] == 1
    if shutil.which("hey"):
        assert (seen["hey"]["answered"], seen["hey"]["connections"]) == (10, 1)
        assert server.connections == 4  # one to warm up
    else:
        assert "apt-get install hey" in seen["hey"]["skipped"] and server.connections == 3


def test_a_client_that_is_absent_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with running(Synthetic()) as url, closing(Target.of(url)) as target:
        seen = asyncio.run(clients.compare(target, Request("/vqa", BODY), 2))
    assert seen["hey"] == {"skipped": "hey is not on PATH: apt-get install hey"}
    assert list(report.findings(written(seen)))[-3].startswith("hey was skipped: hey is not on PATH")


def test_a_key_is_not_put_on_the_command_line_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/false")
    with running(Synthetic()) as url, closing(Target.of(url, key="secret")) as target:
        seen = asyncio.run(clients.compare(target, Request("/vqa", BODY), 2))
    assert "API key" in seen["hey"]["skipped"] and seen["httpx"]["answered"] == 2


def test_requests_that_hey_does_not_list_are_lost() -> None:
    rows = [{"response-time": "0.0129", "DNS+dialup": "0.0003", "status-code": "503", "offset": "0.0132"}]
    first, second = clients.samples_of(rows, 2, "all")
    assert (first.outcome, second.outcome) == ("refused", "lost")
    assert first.latency_ms == pytest.approx(12.9)


def test_what_httpx_cannot_read_is_lost() -> None:
    truncating = running(Synthetic(outcomes=("answer",) * 5 + ("truncate", "answer")))
    with truncating as url, closing(Target.of(url)) as target:
        seen = asyncio.run(clients.compare(target, Request("/vqa", BODY), 2))["httpx"]
    assert (seen["answered"], seen["lost"], seen["lost_how"]) == (1, 1, {"RemoteProtocolError": 1})
    assert seen["connections"] == 2


def written(measured: dict[str, Any]) -> dict[str, Any]:
    """Return a result with these clients alone."""
    cores = {"server": 0.0, "client": 0.0, "others": 0.0}
    return {"scenarios": {"clients": {**measured, "cores": cores}}}


@pytest.mark.long
def test_the_result_names_the_environment_of_the_server() -> None:
    with serving(
        [sys.executable, "-c", FILES], ready="/pyproject.toml", env={"OMP_NUM_THREADS": "1"}
    ) as server:
        named = server.environment()
    assert named == {**environment_of(sys.executable, {"OMP_NUM_THREADS": "1"}), "event_loop": "asyncio"}
    assert named["torch_threads"] == 1


def test_streams_are_timed_event_by_event() -> None:
    with running(Synthetic(delay_s=0.02, outcomes=("stream",))) as url:
        scenario = Scenario(Target.of(url), frames=2, known_fields=frozenset({"stream"}))
        seen = asyncio.run(SCENARIOS["stream"](scenario))
        scenario.target.close()
    assert (
        seen["events"] == 6 and seen["first_event_ms"]["p50"] >= 19 and seen["between_events_ms"]["p50"] >= 15
    )


def test_a_server_that_answers_nothing_is_not_measured() -> None:
    refusing = running(Synthetic(outcomes=("refuse",)))
    with refusing as url, closing(Target.of(url)) as target, pytest.raises(SystemExit, match="overloaded"):
        asyncio.run(command.run(Scenario(target, frames=1), []))


def test_gauges_are_read_whatever_their_prefix_and_labels() -> None:
    text = (
        '# HELP x\nvqa_queue_depth 3\ntosa_vqa_in_flight{a="b"} 4.0\nvqa_running_total 9\nvqa_running 1e1\n'
    )
    assert LINE.findall(text) == [("queue_depth", "3"), ("in_flight", "4.0"), ("running", "1e1")]


def test_a_server_is_started_and_stopped_with_its_children() -> None:
    orphan = "import subprocess,sys; subprocess.Popen([sys.executable,'-c','import time; time.sleep(60)']);"
    with serving([sys.executable, "-c", orphan + FILES], ready="/pyproject.toml") as server:
        tree = server.tree()
        assert len(tree) == 2
    assert not any(process.is_running() for process in tree)


def test_a_server_that_ends_at_once_is_told_with_its_log() -> None:
    failing = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(ServerFailed, match="no such model"), serving(failing):
        pass


@needs("locust")
def test_locust_reports_modes_and_stages() -> None:
    """In a process of its own: Locust patches the standard library."""
    with running(Synthetic(delay_s=0.01)) as url:
        options = [
            "--headless",
            "-u",
            "4",
            "-r",
            "4",
            "-t",
            "6s",
            "--json",
            "--host",
            url,
            "TosaUser",
            "NoneUser",
        ]
        asked = subprocess.run(
            [sys.executable, "-m", "locust", "-f", "bench/load/locustfile.py", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert asked.returncode == 0, asked.stderr
    seen = {row["name"]: row for row in json.loads(asked.stdout)}
    assert {"none", "tosa 0.25", "tosa 0.25: vision", "tosa 0.25: total"} <= seen.keys()
    assert all(row["num_failures"] == 0 for row in seen.values())
