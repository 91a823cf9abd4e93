"""The compose file as data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bench.containers.engine import ROOT

COMPOSE = ROOT / "docker" / "compose.yaml"


def compose(path: Path = COMPOSE) -> dict[str, Any]:
    """Read a compose file: anchors and merges resolved, and variables as they are where nobody sets them."""
    return read(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", path.read_text(encoding="utf-8")))


class _Loader(yaml.SafeLoader):
    """Knows the tag with which a second file takes something back."""


_Loader.add_constructor("!reset", lambda *_: None)


def read(text: str) -> dict[str, Any]:
    """Read the text of a compose file."""
    return yaml.load(text, _Loader)


def services() -> dict[str, dict[str, Any]]:
    """Return the services of the shipped file by their names."""
    return compose()["services"]
