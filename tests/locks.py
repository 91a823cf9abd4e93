"""Read the locks and pyproject.toml: what is pinned, what is asked for, and what is installed instead."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "locks"
HASHES = r"((?:    --hash=\S+(?: \\)?\n)+)"
ENTRY = re.compile(r"([a-z0-9._-]+)(?:\[[a-z,]+\])?==([^\s;]+)(?: ; ([^\n]+?))? \\\n" + HASHES)


@dataclass(frozen=True)
class Pin:
    """One line of a lock; it holds where its marker does."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...] = ()

    @property
    def applies(self) -> bool:
        return self.applies_in({})

    def applies_in(self, environment: Mapping[str, str]) -> bool:
        """Say whether the marker holds where its names have these values, and those of this machine."""
        return self.marker is None or Marker(self.marker).evaluate(dict(environment))


def text(lock: str) -> str:
    """Return the text of a lock by its name: runtime, dev, ray, load, peers, tools or torch-cpu."""
    return (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")


def pins(lock: str) -> list[Pin]:
    """Read the text of a lock; anything but versions with hashes raises ValueError."""
    found = list(ENTRY.finditer(lock))
    if "".join(match[0] for match in found) != lock:
        raise ValueError("not only versions with hashes")
    return [
        Pin(match[1], match[2], match[3], tuple(re.findall(r"--hash=(\S+)", match[4]))) for match in found
    ]


def versions(lock: str) -> dict[str, str]:
    """Return the version of each package in the text of a lock."""
    return {pin.name: pin.version for pin in pins(lock)}


def requirements(*extras: str) -> list[Requirement]:
    """Return what this project asks for, with what extras add, and the extras inside those."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(each) for each in table["dependencies"]]
    for extra in extras:
        for each in map(Requirement, table["optional-dependencies"][extra]):
            asked += requirements(*each.extras) if each.name == table["name"] else [each]
    return asked


def mismatches(lock: str) -> list[str]:
    """Say which installed packages have other versions than the text of a lock gives them here."""
    found = []
    for pin in filter(lambda pin: pin.applies, pins(lock)):
        try:
            installed = metadata.version(pin.name)
        except metadata.PackageNotFoundError:
            continue
        if installed.partition("+")[0] != pin.version:
            found.append(f"{pin.name} {installed} (lock: {pin.version})")
    return found
