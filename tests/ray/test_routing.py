"""Where a frame is at home, when home is passed over, and what a cluster inherits."""
# pyright: reportMissingImports=false, reportMissingModuleSource=false

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from service.ray_serve.cluster import MARK, environment
from service.settings import Settings
from tests.needs import needs
from tests.ray.cluster import ROOT

FRAMES = [f"frame-{n}" for n in range(600)]


@dataclass(frozen=True)
class Replica:
    name: str
    replica_id: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "replica_id", SimpleNamespace(unique_id=self.name))


REPLICAS = [Replica(name) for name in "abc"]


def chosen(frame: str, in_flight: dict[str, int], replicas: list[Replica] = REPLICAS) -> list[list[str]]:
    from service.ray_serve.routing import FrameRouter

    router: Any = FrameRouter.__new__(FrameRouter)
    router.initialize_state(crowded=4)
    router._replica_queue_len_cache = SimpleNamespace(get=lambda key: in_flight.get(key.unique_id))
    request: Any = SimpleNamespace(
        metadata=SimpleNamespace(session_id=frame), routing_context=SimpleNamespace(should_backoff=False)
    )
    ranks = asyncio.run(router.choose_replicas(replicas, request))
    assert not replicas or request.routing_context.should_backoff
    return [[replica.name for replica in rank] for rank in ranks]


@needs("ray")
@pytest.mark.filterwarnings("ignore")  # of Ray's own, when it is imported
def test_frames_spread_evenly_and_only_those_of_a_dead_replica_move() -> None:
    from service.ray_serve.routing import home_of

    homes = {frame: home_of(frame, "abc") for frame in FRAMES}
    assert all(count > 150 for count in Counter(homes.values()).values())
    assert {frame for frame in FRAMES if home_of(frame, "ab") != homes[frame]} == {
        frame for frame, home in homes.items() if home == "c"
    }


@needs("ray")
@pytest.mark.filterwarnings("ignore")  # of Ray's own, when it is imported
def test_home_is_tried_first_and_any_two_after_it() -> None:
    from service.ray_serve.routing import home_of

    first, then = chosen("frame-1", {})
    assert first == [home_of("frame-1", "abc")]
    assert len(set(then)) == 2


@needs("ray")
@pytest.mark.filterwarnings("ignore")  # of Ray's own, when it is imported
def test_a_crowded_home_is_passed_over() -> None:
    home = chosen("frame-1", {})[0][0]
    assert len(chosen("frame-1", {home: 3})) == 2
    ((one, two),) = chosen("frame-1", {home: 4})
    assert one != two
    assert len(chosen("frame-1", {"a": 9, "b": 9, "c": 9})) == 2


@needs("ray")
@pytest.mark.filterwarnings("ignore")  # of Ray's own, when it is imported
def test_what_has_no_name_goes_to_the_less_busy_of_two() -> None:
    assert {tuple(map(len, chosen("", {}))) for _ in range(20)} == {(2,)}
    assert chosen("frame-1", {}, []) == []
    assert chosen("", {}, REPLICAS[:1]) == [["a"]]


def test_a_cluster_inherits_settings_a_token_and_its_share_of_the_cores() -> None:
    given = environment(Settings(api_keys=SecretStr("robot=secret"), num_threads=3), {})
    assert given["TOSA_VQA_API_KEYS"] == "robot=secret"
    assert given["TOSA_VQA_ALLOW_NON_COMMERCIAL"] == "False"
    assert "TOSA_VQA_TRACE_ENDPOINT" not in given
    assert (given["OMP_NUM_THREADS"], given["TOSA_VQA_NUM_THREADS"]) == ("3", "3")
    assert (given["RAY_AUTH_MODE"], given["RAY_USAGE_STATS_ENABLED"]) == ("token", "0")
    assert len(given["RAY_AUTH_TOKEN"]) == 64
    other = environment(Settings(), {})
    assert other["RAY_AUTH_TOKEN"] != given["RAY_AUTH_TOKEN"]
    assert other[MARK] != given[MARK]


def test_what_the_operator_set_for_ray_stays() -> None:
    given = environment(Settings(), {"RAY_AUTH_TOKEN_PATH": "/run/token", "RAY_AUTH_MODE": "token"})
    assert "RAY_AUTH_TOKEN" not in given
    assert "RAY_AUTH_MODE" not in given


def test_settings_survive_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(api_keys=SecretStr("robot=secret"), max_queue=3, depth_model="none", num_threads=1)
    for name, value in environment(settings, {}).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@needs("ray")
@pytest.mark.filterwarnings("ignore")
def test_the_shipped_configuration_builds_the_application() -> None:
    import yaml
    from ray.serve.schema import ServeDeploySchema

    from service.ray_serve.app import Scale, build_app, deployment_options

    written = yaml.safe_load((ROOT / "docker/ray/serve.yaml").read_text())
    (application,) = ServeDeploySchema.model_validate(written).applications
    assert application.import_path == f"{build_app.__module__}:{build_app.__name__}"
    scale, settings = Scale.model_validate(application.args), Settings()
    options = deployment_options(scale, settings)
    assert options["max_ongoing_requests"] > settings.max_queue + settings.max_batch
    assert options["max_queued_requests"] > 0
    autoscaling = options["autoscaling_config"]
    assert (autoscaling.min_replicas, autoscaling.max_replicas) == (2, 8)
    assert written["http_options"]["request_timeout_s"] == settings.request_timeout_s + 5
    with pytest.raises(ValueError, match="replicas"):
        Scale.model_validate({"replicas": 3})
