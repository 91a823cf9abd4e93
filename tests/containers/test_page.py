"""Every command of docs/containers.md that an engine can run, as it stands there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from bench.containers.asking import wait_until_answered
from bench.containers.engine import ROOT, Engine
from bench.containers.stack import PROJECT, URL
from bench.load.report import findings
from tests.containers.page import Shell, run_here, shell, shown
from tests.loopback import listens
from tests.needs import skip_without

pytestmark = pytest.mark.containers
UP, LOAD, SEVERAL, ALONE = (
    "up --build --wait",
    "run --rm --build load",
    "--scale service=3",
    "docker run --rm",
)
ELSEWHERE = ("COMPOSE_PROFILES=ray", "COMPOSE_PROFILES=vllm")
"""Run by test_profile_ray and test_profile_vllm."""


@pytest.fixture(scope="module")
def page(found: Engine, cpu: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with shell(found, tmp_path_factory.mktemp("bin")) as page:
        yield page


def test_every_command_of_the_page_is_run_by_a_test() -> None:
    assert run_here() == {shown(part) for part in (UP, LOAD, SEVERAL, ALONE, *ELSEWHERE)}


def test_the_stack_starts_and_answers(page: Shell) -> None:
    page(shown(UP))
    wait_until_answered(URL)
    skip_without("curl")
    assert json.loads(page(shown("curl -s http://127.0.0.1:8080")).splitlines()[-1])["answer"]


def test_the_load_test_leaves_its_report(page: Shell, found: Engine) -> None:
    """With LOAD_SECONDS=2; all else is as users run it."""
    page(shown(LOAD))
    read = ("run", "--rm", "--volume", f"{PROJECT}_results:/results:ro", "tosa-vqa:load")
    report = json.loads(found(*read, "cat", "/results/report.json"))
    assert any("requests lost: 0." in line for line in findings(report))
    assert report["url"] == "http://proxy:8080" and report["scenarios"]["overload"]["factor"] == 24


def test_three_replicas_start_and_are_restarted_in_turn(page: Shell) -> None:
    printed = page(shown(SEVERAL))
    assert printed.count("restarted ") == 3, printed
    assert wait_until_answered(URL).status_code == 200


def test_one_container_is_built_runs_and_answers(page: Shell, found: Engine) -> None:
    if listens(8000):
        pytest.fail("somebody listens on port 8000, which the page's command publishes")
    with subprocess.Popen(["sh", "-eu", "-c", shown(ALONE)], env=page.environment, cwd=ROOT) as command:
        try:
            assert wait_until_answered("http://127.0.0.1:8000").status_code == 200
        finally:
            for line in found("ps", "--format", "{{.Names}} {{.Image}}").splitlines():
                name, _, image = line.partition(" ")
                if image.removesuffix(":latest").endswith("tosa-vqa"):
                    found("stop", "--time", "45", name)
        assert command.wait(60) == 0
