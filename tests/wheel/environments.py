"""The wheel, and fresh environments that hold it and nothing but the packages that it asks for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement

from tests.locks import LOCKS, ROOT
from tests.loopback import START_S

NAME = "tosa-vqa"
UV = Path(sys.executable).parent / "uv"


@dataclass(frozen=True)
class Environment:
    """A virtual environment in a folder of its own, where programs see no setting of ours."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def run(self, program: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment from a folder."""
        mine = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "HF_HUB_OFFLINE": "1"}
        return subprocess.run(
            [self.folder / "bin" / program, *words],
            cwd=cwd,
            env={**mine, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )


def normal(name: str) -> str:
    """Return the name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def build_wheel(folder: Path) -> Path:
    """Build the wheel as pip does, without the network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=START_S)
    (wheel,) = folder.glob("*.whl")
    return wheel


def told(wheel: Path, file: str = "METADATA") -> str:
    """Return the text of a file of the wheel's dist-info."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(f".dist-info/{file}"))
        return archive.read(name).decode()


def header(wheel: Path) -> Message:
    """Return the metadata of a wheel."""
    return Parser().parsestr(told(wheel), headersonly=True)


def asked(wheel: Path) -> list[Requirement]:
    """Return what a wheel asks for, extras included."""
    return [Requirement(each) for each in header(wheel).get_all("Requires-Dist", [])]


def chosen(requirements: Iterable[Requirement], extra: str = "") -> Iterator[Requirement]:
    """Keep what holds on this machine: for an extra, or without one."""
    for each in requirements:
        if each.marker is None or each.marker.evaluate({"extra": extra}):
            yield each


def closure(wheel: Path, extras: Sequence[str]) -> set[str]:
    """Name the installed packages that a wheel with these extras needs, and those that they need."""
    ours, found = asked(wheel), set[tuple[str, str]]()
    todo = [(NAME, extra) for extra in ("", *extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in found:
            continue
        try:
            needs = ours if name == NAME else list(map(Requirement, metadata.requires(name) or ()))
        except metadata.PackageNotFoundError:  # one that no test can import anyway
            continue
        found.add((name, extra))
        for need in chosen(needs, extra):
            todo += [(normal(need.name), each) for each in ("", *need.extras)]
    return {name for name, _ in found} - {NAME}


def linked(wheel: Path, extras: Sequence[str], folder: Path) -> Environment:
    """Unpack the wheel beside links to what is installed here: no network, and nothing else is importable."""
    venv.create(folder, symlinks=True)
    environment = Environment(folder)
    with ZipFile(wheel) as archive:
        archive.extractall(environment.site)
    for name in closure(wheel, extras):
        for entry in _entries(metadata.distribution(name)):
            if not (environment.site / entry.name).exists():
                (environment.site / entry.name).symlink_to(entry)
    script = environment.folder / "bin" / NAME
    module, _, function = _command(wheel).partition(":")
    script.write_text(f"#!{environment.python}\nfrom {module} import {function}\n{function}()\n")
    script.chmod(0o755)
    return environment


def installed(wheel: Path, extras: Sequence[str], folder: Path) -> Environment:
    """Install the wheel from a package index, in the versions of the lock."""
    venv.create(folder, symlinks=True)
    environment = Environment(folder)
    wanted = f"{NAME}[{','.join(extras)}] @ {wheel.as_uri()}"
    subprocess.run(
        [
            UV,
            "pip",
            "install",
            "--python",
            environment.python,
            "--constraints",
            LOCKS / "runtime.txt",
            wanted,
        ],
        check=True,
        timeout=10 * START_S,
    )
    return environment


def _command(wheel: Path) -> str:
    """Return the entry point of the command, as module:function."""
    (line,) = [line for line in told(wheel, "entry_points.txt").splitlines() if line.startswith(NAME)]
    return line.partition("=")[2].strip()


def _entries(distribution: metadata.Distribution) -> Iterator[Path]:
    """Yield the top-level files and folders that a package installed into site-packages."""
    tops = {file.parts[0] for file in distribution.files or () if not file.name.endswith(".pth")}
    for top in sorted(tops - {"..", "__pycache__"}):
        yield Path(str(distribution.locate_file(top))).resolve()
