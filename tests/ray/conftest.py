"""Two real replicas for the tests marked `ray`, which `make test` leaves out: half a minute to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.needs import NEEDS
from tests.ray.cluster import Cluster, running_cluster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked `ray`, with the reason, unless it was asked for and Ray is there."""
    if NEEDS["ray"].is_met() and "ray" in str(config.getoption("markexpr")):
        return
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.skip(reason=NEEDS["ray"].reason))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two replicas of the embedded model, each with three places."""
    with running_cluster(replicas=2, TOSA_VQA_MAX_QUEUE="2", TOSA_VQA_MAX_BATCH="1") as cluster:
        yield cluster
