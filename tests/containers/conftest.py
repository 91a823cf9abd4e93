"""The engine, and the images that `make test-containers` built."""

from __future__ import annotations

import pytest

from bench.containers.engine import Engine, engine
from tests.needs import skip_without


@pytest.fixture(scope="session")
def found() -> Engine:
    """Return the engine; skip where there is none."""
    there = engine()
    skip_without("an engine", there is not None)
    assert there is not None
    return there


@pytest.fixture(scope="session", params=["cpu", "load", "ray", "cuda"])
def image(request: pytest.FixtureRequest, found: Engine) -> str:
    """Return the name of one image after the other; skip one that was not built."""
    name = f"tosa-vqa:{request.param}"
    skip_without("an image", found.has(name))
    return name


@pytest.fixture(scope="session")
def cpu(found: Engine) -> str:
    skip_without("an image", found.has("tosa-vqa:cpu"))
    return "tosa-vqa:cpu"
