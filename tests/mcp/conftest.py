"""A running service for the tools, on the tiny random checkpoint of the tests of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import checkpoint as checkpoint
from tests.service.files import DEPTH, IMAGE
from tests.service.live import Live, live


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint) as served:
        yield served


@pytest.fixture(scope="module")
def url(served: Live) -> str:
    return f"http://127.0.0.1:{served.port}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a frame, beside a file that no agent may read."""
    frame = tmp_path / "frame"
    frame.mkdir()
    (frame / "rgb.png").write_bytes(IMAGE)
    (frame / "depth.png").write_bytes(DEPTH)
    (tmp_path / "private.png").write_bytes(IMAGE)
    (frame / "link.png").symlink_to(tmp_path / "private.png")
    return frame
