"""The exact commands of the containers, run outside of one: only addresses and paths are put in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docker import recipes
from tests.docker.door import CONFIGURATION, HAPROXY
from tests.docker.recipes import ROOT
from tests.docker.test_containers import SERVICES, STAGES
from tests.loopback import PATIENCE_S, START_S, free_port, listens, wait_for
from tests.needs import needs
from tests.vlm.conftest import write_checkpoint


def here(command: list[str], **changes: str) -> list[str]:
    """Put the programs of this machine and other arguments into a command."""
    programs = {
        "tosa-vqa": [sys.executable, "-m", "service"],
        "python": [sys.executable],
        "haproxy": [HAPROXY or "haproxy"],
    }
    words = [changes.get(word, word) for word in command]
    return [*programs.get(words[0], words[:1]), *words[1:]]


def cmd(target: str) -> list[str]:
    return recipes.words(recipes.instruction(target, "CMD", STAGES))


def healthcheck(port: int) -> list[str]:
    check = recipes.words(recipes.instruction("cpu", "HEALTHCHECK", STAGES))
    return here([word.replace("8000", str(port)) for word in check])


def code(command: list[str]) -> int:
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        command, env=environment, capture_output=True, timeout=PATIENCE_S, check=False
    ).returncode


@contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_service_starts_is_healthy_and_stops(tmp_path: Path) -> None:
    port, model = free_port(), write_checkpoint(tmp_path / "tiny")
    command = here(cmd("cpu"), **{"0.0.0.0": "127.0.0.1", "8000": str(port)})
    settings = {
        **SERVICES["service"]["environment"],
        **{"TOSA_VQA_MODEL": str(model), "TOSA_VQA_DEPTH_MODEL": "none", "TOSA_VQA_DRAIN_PAUSE_S": "0"},
    }
    assert code(healthcheck(port)) != 0
    with started(command, {**os.environ, **settings}) as process:
        wait_for(lambda: listens(port) or process.poll() is not None, START_S)
        wait_for(lambda: code(healthcheck(port)) == 0 or process.poll() is not None, START_S)
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and "Traceback" not in output, output
    assert code(healthcheck(port)) != 0


@needs("haproxy", "wget")
def test_the_proxy_starts_is_healthy_and_stops() -> None:
    port, own = free_port(), free_port()
    mounts = {"/usr/local/etc/haproxy/haproxy.cfg": str(CONFIGURATION)}
    command = here(SERVICES["proxy"]["command"], **mounts)
    check = [word.replace("8404", str(own)) for word in SERVICES["proxy"]["healthcheck"]["test"][1:]]
    places = {"PROXY_BIND": f"127.0.0.1:{port}", "PROXY_OWN_BIND": f"127.0.0.1:{own}"}
    assert code(check) != 0
    with started([*command, "-db"], {**os.environ, **places}) as process:
        wait_for(lambda: code(check) == 0 or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(getattr(signal, SERVICES["proxy"]["stop_signal"]))
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert code(check) != 0


@needs("haproxy")
def test_the_configuration_of_the_proxy_is_valid_and_the_check_can_fail(tmp_path: Path) -> None:
    assert HAPROXY
    assert code([HAPROXY, "-c", "-f", str(CONFIGURATION)]) == 0
    broken = tmp_path / "haproxy.cfg"
    broken.write_text(
        CONFIGURATION.read_text(encoding="utf-8").replace("balance leastconn", "balance fairly")
    )
    assert code([HAPROXY, "-c", "-f", str(broken)]) != 0


@pytest.mark.parametrize("target", ["ray", "load"])
def test_the_other_commands_have_only_options_that_exist(target: str) -> None:
    words = cmd(target)
    head = words[: next(place for place, word in enumerate(words) if word.startswith("--"))]
    plain = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    shown = subprocess.run(
        [*here(head), "--help"],
        cwd=ROOT,
        env=plain,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=True,
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.stdout)
    assert [word for word in words if word.startswith("--") and word not in text] == []
