"""Run the commands of docs/containers.md as they stand there, whatever the engine."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.containers.build import arguments
from bench.containers.engine import ROOT, Engine
from bench.containers.stack import PODMAN_COMPOSE, PROJECT, health_checks
from tests.docs.pages import commands

PAGE = "docs/containers.md"
REASON = "needs Docker"
"""What the page says about the commands that are run here."""
EVERY = "COMPOSE_PROFILES=cpu,ray,vllm,load"
DOCKER = """#!/bin/sh
# docker, played by podman
case "$1" in
compose) shift; exec {compose} --podman-build-args={build} --podman-run-args={run} "$@" ;;
build) shift; exec {podman} build {options} "$@" ;;
*) exec {podman} "$@" ;;
esac
"""


def shown(part: str) -> str:
    """Return the one block of the page with these words."""
    (block,) = [each for each in commands(PAGE) if part in each.text]
    return block.text


def run_here() -> set[str]:
    """Return the blocks of the page that a test has to run."""
    return {block.text for block in commands(PAGE) if block.reason_not_to_run == REASON}


@dataclass(frozen=True)
class Shell:
    """A shell in the repository, in which `docker` is the engine that was found."""

    environment: dict[str, str]

    def __call__(self, script: str, timeout_s: float = 1800) -> str:
        done = subprocess.run(
            ["sh", "-eu", "-c", script],
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}"
        return done.stdout


@contextmanager
def shell(engine: Engine, folder: Path, *volumes: str) -> Iterator[Shell]:
    """Give a shell, and remove what the page's project of compose has left at the end.

    folder: for the program `docker`. volumes: mounted into every container of compose, podman's only.
    """
    if engine.is_podman:
        options = shlex.join([*engine.build_options, *arguments(engine)])
        mounts = shlex.join([f"--volume={volume}" for volume in volumes])
        names = {"compose": PODMAN_COMPOSE, "podman": engine.program, "options": options}
        quoted = {"build": shlex.quote(options), "run": shlex.quote(mounts)}
        (folder / "docker").write_text(DOCKER.format(**names, **quoted))
        (folder / "docker").chmod(0o755)
    ours = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        **{"COMPOSE_PROJECT_NAME": PROJECT, "ENGINE": engine.program, "LOAD_SECONDS": "2"},
    }
    found = Shell({**engine.environment, **ours})
    down = f"{EVERY} docker compose -f docker/compose.yaml down --volumes --timeout 0 --remove-orphans"
    with health_checks(engine):
        try:
            found(down)
            yield found
        finally:
            found(down)
