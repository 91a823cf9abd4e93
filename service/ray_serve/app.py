"""The service as a Ray Serve application: the one app factory, in as many replicas as configured.

Each replica has its own model, admission and batch queue; Ray only starts them, chooses one for a request
and replaces what is broken. Settings come from the environment (TOSA_VQA_*): the cluster keeps no secret.
"""
# pyright: reportMissingImports=false

import asyncio
import os
from typing import Any

from pydantic import BaseModel, Field
from ray import serve
from ray.serve._private import replica
from ray.serve.config import AutoscalingConfig, BackpressureConfig, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from service.settings import Settings

NAME = "tosa-vqa"
ONE_NODE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0 also means loopback addresses
LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)  # the service has its own log
ROUTER: Any = "service.ray_serve.routing.FrameRouter"
ADD_PORT = "add_port_to_grpc_server"


class Scale(BaseModel, extra="forbid"):
    """Hold the number of replicas and the resources of each: the `args` in docker/ray/serve.yaml."""

    min_replicas: int = Field(default=1, ge=1, description="Replicas that are always there.")
    max_replicas: int = Field(default=1, ge=1, description="Replicas under load.")
    num_cpus: float = Field(default=1, gt=0, description="Cores that Ray counts for one replica.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs that Ray counts for one replica.")
    target_ongoing_requests: float | None = Field(
        default=None, gt=0, description="Requests per replica to scale for; one full batch if not set."
    )


@serve.ingress()
class Replica:
    """Run one instance of the service behind Ray's HTTP proxy."""

    def __init__(self) -> None:
        if is_one_node():
            _listen_on_loopback_alone()

    def __serve_build_asgi_app__(self) -> Any:
        """Build the app in the replica, so that nothing of it has to be sent there."""
        from service.app import create_app
        from service.telemetry.logs import configure_logging

        settings = Settings()
        configure_logging(settings)
        self._service = create_app(settings)
        return self._service

    async def check_health(self) -> None:
        """Wait until the model is warm; raise if it did not load or its thread is lost: Ray replaces us."""
        state = self._service.state.service
        while state.status == "loading":
            await asyncio.sleep(0.05)
        if state.is_lost:
            raise RuntimeError("the models could not be loaded, or their thread is lost")


def is_one_node() -> bool:
    """Return whether this is a cluster of one machine, as service/ray_serve/cluster.py starts it."""
    return os.environ.get(ONE_NODE) == "0"


def _listen_on_loopback_alone() -> None:
    """Narrow the port that Ray 2.60 opens in every replica on all addresses; by default nothing uses it."""
    add_port = getattr(replica, ADD_PORT, None)
    if add_port is not None:
        setattr(replica, ADD_PORT, lambda server, _: add_port(server, "127.0.0.1:0"))


def build_app(args: Scale) -> serve.Application:
    """Return the application for `serve run` and `serve deploy`, as service.ray_serve.app:build_app."""
    deployment: Any = serve.deployment(Replica, **deployment_options(args, Settings()))
    return deployment.bind()


def deployment_options(scale: Scale, settings: Settings) -> dict[str, Any]:
    """Return every limit by name; Ray's defaults are an endless queue, no deadline, 5 requests a replica."""
    slots = settings.max_queue + settings.max_batch
    return {
        "name": NAME,
        "max_ongoing_requests": 2 * slots + 8,  # above our own slots, so that our admission refuses first
        "max_queued_requests": slots * scale.max_replicas,
        "backpressure_config": BackpressureConfig(status_code=503, retry_after_s=1),
        "request_router_config": RequestRouterConfig(
            request_router_class=ROUTER, request_router_kwargs={"crowded": settings.max_batch + 1}
        ),
        "ray_actor_options": {"num_cpus": scale.num_cpus, "num_gpus": scale.num_gpus},
        "health_check_period_s": 2,
        "health_check_timeout_s": max(5.0, settings.stall_timeout_s),
        "graceful_shutdown_wait_loop_s": 0.2,
        "graceful_shutdown_timeout_s": settings.drain_timeout_s + 5,
        "logging_config": LOGGING,
        "max_constructor_retry_count": 2,
        **_replicas(scale, settings),
    }


def _replicas(scale: Scale, settings: Settings) -> dict[str, Any]:
    if scale.min_replicas >= scale.max_replicas:
        return {"num_replicas": scale.min_replicas}
    wanted = scale.target_ongoing_requests or float(settings.max_batch)
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=scale.min_replicas,
            max_replicas=scale.max_replicas,
            target_ongoing_requests=wanted,
            upscale_delay_s=10,
            downscale_delay_s=300,
        )
    }
