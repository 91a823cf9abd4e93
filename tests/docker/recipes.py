"""Read the Dockerfile and the compose file as data, and say what is wrong with them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from bench.containers.compose_file import COMPOSE, compose
from bench.containers.engine import ROOT

__all__ = ["COMPOSE", "ROOT", "compose"]


@dataclass
class Stage:
    """One FROM of a Dockerfile and the instructions after it."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str | None:
        """Return the arguments of the last such instruction."""
        found = [rest for word, rest in self.steps if word == instruction]
        return found[-1] if found else None


def stages(text: str) -> list[Stage]:
    """Read the stages of a Dockerfile, ARGs of before the first one filled in."""
    values: dict[str, str] = {}
    found: list[Stage] = []
    lines = re.sub(r"(?m)^#.*\n", "", text).replace("\\\n", " ").splitlines()
    for word, _, rest in (line.strip().partition(" ") for line in lines if line.strip()):
        if word == "ARG" and not found:
            name, _, value = rest.partition("=")
            values[name] = value
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], base), name))
        else:
            found[-1].steps.append((word, rest.strip()))
    return found


def lineage(name: str, found: list[Stage]) -> list[Stage]:
    """Return a stage and those it is made from, nearest first."""
    by_name = {stage.name: stage for stage in found}
    line = []
    while stage := by_name.get(name):
        line.append(stage)
        name = stage.base
    return line


def instruction(target: str, word: str, found: list[Stage]) -> str:
    """Return the arguments of the instruction that holds for a target."""
    return next(rest for stage in lineage(target, found) if (rest := stage.last(word)) is not None)


def words(argument: str) -> list[str]:
    """Read the exec form of CMD, or of HEALTHCHECK after its options."""
    return json.loads(argument[argument.index("[") :])


def copied(found: list[Stage]) -> set[str]:
    """Return what the Dockerfile takes from the build context."""
    rests = [rest.split() for stage in found for word, rest in stage.steps if word == "COPY"]
    return {source for rest in rests if not rest[0].startswith("--from") for source in rest[:-1]}


def lets_through(ignore: str, path: str) -> bool:
    """Say whether a .dockerignore leaves a path in the build context; the last line that fits decides."""
    is_in = True
    for line in filter(None, (line.partition("#")[0].strip() for line in ignore.splitlines())):
        pattern = line.removeprefix("!")
        if fnmatch(path, pattern) or path.startswith(pattern + "/"):
            is_in = line.startswith("!")
    return is_in


def unpinned(image: str) -> bool:
    """Say whether an image is named by less than a patch version."""
    return re.search(r":v?\d+\.\d+\.\d+", image) is None


def seconds(duration: str) -> float:
    """Read 45s or 2m."""
    number, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def soft_spots(service: dict[str, Any]) -> Iterator[str]:
    """Yield what a container could do that it need not."""
    wanted = {"read_only": True, "init": True, "cap_drop": ["ALL"], "privileged": None, "cap_add": None}
    yield from (name for name, value in wanted.items() if service.get(name) != value)
    yield from (
        name for name in ("pids_limit", "mem_limit", "cpus", "stop_grace_period") if name not in service
    )
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "security_opt"
    if not re.match(r"[1-9]\d*:\d+$", str(service.get("user", "0:0"))):
        yield "user"
    for mount in service.get("tmpfs", []):
        if not {"nosuid", "nodev"} <= set(re.split("[:,]", mount)) or "size=" not in mount:
            yield "tmpfs"
    if any(each.startswith((".", "/")) and not each.endswith(":ro") for each in service.get("volumes", [])):
        yield "volumes"


def without_cuda(lock: str, found: list[Stage]) -> str:
    """Return what the images for CPUs keep of a lock's text: run the Dockerfile's own sed on it."""
    run = str(next(stage for stage in found if stage.name == "locks").last("RUN"))
    (edit,) = re.findall(r"cuda='(.+?)'", run)
    assert 'sed -E -i "${cuda}d" /locks/runtime.txt /locks/ray.txt /locks/load.txt' in run
    return subprocess.run(
        ["sed", "-E", f"{edit}d"], input=lock, capture_output=True, text=True, check=True
    ).stdout
