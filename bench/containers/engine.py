"""A container engine: the docker or podman that is there, else podman from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "containers"
"""What is made once and kept: settings of podman, the base image's files, wheels, compose's environment."""
PACKAGES = ("podman", "runc", "netavark", "aardvark-dns", "iptables", "catatonit", "debootstrap")
LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
"""Where limits may not be raised, podman's own defaults are refused."""
UV = Path(sys.executable).with_name("uv")


def program(name: str) -> str | None:
    """Return where a program is; those for administrators too."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


class EngineFailed(Exception):
    """A command of the engine ended with another code than 0; the text holds what it printed."""


@dataclass(frozen=True)
class Engine:
    """The program, docker or podman, and the environment that it runs in."""

    program: str
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_podman(self) -> bool:
        return Path(self.program).name == "podman"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    def __call__(self, *words: str, timeout_s: float = 120, input: str | None = None) -> str:
        """Run a command and return what it printed. Raises EngineFailed."""
        done = self.tried(*words, timeout_s=timeout_s, input=input)
        if done.returncode:
            raise EngineFailed(f"{' '.join(words)}: {done.returncode}\n{(done.stdout + done.stderr)[-6000:]}")
        return done.stdout.strip()

    def tried(
        self, *words: str, timeout_s: float = 120, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever comes of it."""
        return subprocess.run(
            [self.program, *words],
            env=self.environment,
            cwd=WORK,  # podman's monitor leaves a file "oom" where memory ran out
            input="" if input is None else input,  # podman stops where it may not read from the terminal
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    @property
    def build_options(self) -> list[str]:
        """Return what `build` needs here: podman keeps HEALTHCHECK in this format only."""
        return ["--network", "host", *(["--format", "docker", "--layers", *LIMITS] if self.is_podman else [])]

    def has(self, image: str) -> bool:
        return self.tried("image", "inspect", image).returncode == 0

    def version(self) -> str:
        return self("--version")


@cache
def engine() -> Engine | None:
    """Return docker if its server answers, else podman, else None."""
    WORK.mkdir(parents=True, exist_ok=True)
    if (docker := program("docker")) and Engine(docker).tried("info").returncode == 0:
        return Engine(docker)
    if (podman := program("podman")) and os.geteuid() == 0:
        return Engine(podman, {"CONTAINERS_CONF": str(_podman_settings(WORK / "containers.conf"))})
    return None


def install() -> None:
    """Install podman where there is no engine and apt-get can. Raises CalledProcessError."""
    there = engine()
    is_whole = there is not None and (not there.is_podman or all(map(program, ("debootstrap", "catatonit"))))
    if not is_whole and os.geteuid() == 0 and shutil.which("apt-get"):
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
            subprocess.run(["apt-get", *words], check=True, stdout=subprocess.DEVNULL)
        engine.cache_clear()


def kill(engine: Engine, container: str) -> None:
    """Send SIGKILL to the first process of a container behind the back of the engine."""
    pid = engine("inspect", "--format", "{{.State.Pid}}", container)
    code = f"import os; os.kill({pid}, 9)"
    outside = ("--rm", "--privileged", "--pid=host", "--user=0:0", "--entrypoint", "python")
    engine("run", *outside, "tosa-vqa:cpu", "-c", code)


def _podman_settings(path: Path) -> Path:
    """Write podman's settings for machines without systemd, cgroups 2 or the right to raise limits."""
    lines = ["[containers]", 'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]']
    lines += ["[engine]", 'cgroup_manager = "cgroupfs"']
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists() and program("runc"):
        lines.append('runtime = "runc"')  # crun fails where both kinds of cgroups are mounted
    path.write_text("\n".join(lines) + "\n")
    return path
