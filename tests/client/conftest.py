"""A running service for the client, on the tiny random checkpoint of the tests of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import checkpoint as checkpoint
from tests.service.live import Live, live
from tosa_vqa_client import Client


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint) as served:
        yield served


@pytest.fixture
def client(served: Live) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{served.port}") as client:
        yield client
