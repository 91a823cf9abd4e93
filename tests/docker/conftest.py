"""Replicas, names and the proxy in front of them; everything listens on loopback only."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.docker.door import Door, Names, opened
from tests.docker.replica import Stub, serving
from tests.loopback import free_port, wait_for
from tests.needs import skip_without

FAST = {"PROXY_BODY_TIMEOUT": "2s"}


@pytest.fixture(scope="package")
def stub() -> Stub:
    return Stub()


@pytest.fixture(scope="package")
def door(stub: Stub) -> Iterator[Door]:
    """One stub behind the shipped proxy; only the time limit of bodies is shorter."""
    skip_without("haproxy")
    names, port = Names(["127.0.0.2"]), free_port()
    with ExitStack() as stack:
        stack.callback(names.close)
        stack.enter_context(serving(stub, "127.0.0.2", port))
        door = stack.enter_context(opened(names, port, **FAST))
        wait_for(door.is_up)
        yield door
