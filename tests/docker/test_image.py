"""The images themselves, where there is an engine: built, locked in, and asked."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.docker.recipes import ROOT
from tests.docker.test_containers import SERVICES
from tests.loopback import wait_for
from tests.needs import skip_without

pytestmark = pytest.mark.docker
IMAGE = "tosa-vqa:test"
CELL = [
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges:true",
    "--network=none",
    "--tmpfs=/tmp",
]
INSIDE = """
import os, stat, pathlib
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
assert os.getuid() == 10001 and int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1", status
for folder in ("/", "/opt/tosa-vqa", "/results", "/home"):
    try:
        pathlib.Path(folder, "x").write_text("x")
        raise SystemExit(f"wrote to {folder}")
    except OSError:
        pass
for folder, _, files in os.walk("/usr"):
    for name in files:
        path = os.path.join(folder, name)
        assert not os.lstat(path).st_mode & (stat.S_ISUID | stat.S_ISGID), path
"""


def docker(*words: str, timeout_s: float = 60) -> str:
    done = subprocess.run(
        ["docker", *words], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> str:
    info = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30)
    skip_without("docker", is_met=info.returncode == 0)
    docker("build", "--target", "cpu", "--tag", IMAGE, ".", timeout_s=3600)
    return IMAGE


@contextmanager
def running(image: str) -> Iterator[str]:
    container = docker("run", "--detach", *CELL, image)
    try:
        yield container
    finally:
        docker("rm", "--force", container)


def test_nothing_more_than_needed_is_allowed_inside(image: str) -> None:
    docker("run", "--rm", *CELL, image, "python", "-c", INSIDE)


def test_the_container_gets_healthy_and_stops_in_time(image: str) -> None:
    with running(image) as container:
        state = "{{.State.Health.Status}}"
        wait_for(lambda: docker("inspect", "--format", state, container) == "healthy", 120)
        docker("stop", "--time", "45", container, timeout_s=60)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"


def test_the_image_of_the_proxy_takes_the_shipped_configuration(image: str) -> None:
    mount = f"{ROOT}/docker/proxy/haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"
    docker(
        "run",
        "--rm",
        "--volume",
        mount,
        SERVICES["proxy"]["image"],
        "haproxy",
        "-c",
        "-f",
        mount.split(":")[1],
    )
