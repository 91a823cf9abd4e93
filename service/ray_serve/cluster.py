"""A Ray cluster on this machine for `serve --engine ray`: started, watched and ended by one process.

It must be imported before Ray, which reads its environment when it is imported.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr

from service.settings import Settings

log = logging.getLogger("tosa_vqa")
OBJECT_STORE_BYTES = 80 * 2**20
FRONT = "service.ray_serve.front:middlewares"
RAY_ENVIRONMENT: Mapping[str, str] = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": FRONT,
    "RAY_SERVE_SESSION_ID_HEADER_KEY": "x-frame-id",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a cluster of one node, on loopback addresses only
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",  # their requests are retried elsewhere
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
}
MARK = "TOSA_VQA_RAY_SESSION"
"""Set to a random word in every process of our cluster, by which we find what is left of it."""


class RayMissing(Exception):
    """Ray is not installed; the message names the extra that installs it."""


def serve_on_ray(settings: Settings, host: str, port: int, replicas: int) -> int:
    """Serve on a cluster of our own until SIGTERM or Ctrl-C; a second signal does not wait for what runs.

    Returns the exit code. Raises RayMissing.
    """
    if find_spec("ray") is None:
        raise RayMissing("Ray is not installed: pip install 'tosa-vqa[ray]'")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    threads = settings.num_threads or max(1, cores() // replicas)
    settings = settings.model_copy(update={"num_threads": threads})
    os.environ.update(environment(settings, os.environ))
    with _cluster(replicas * threads), _stop_signals() as stop:
        if not _start(settings, host, port or free_port(host), replicas, threads):
            return 1
        stop.wait()
        log.info("draining: open requests finish, new requests are refused")
        _end()
    return 0


def environment(settings: Settings, given: Mapping[str, str]) -> dict[str, str]:
    """Return what every process of the cluster inherits; Ray's own that are `given` already stay."""
    ours = {f"TOSA_VQA_{name.upper()}": text for name, text in _texts(settings)}
    rays = {name: value for name, value in RAY_ENVIRONMENT.items() if name not in given}
    if "RAY_AUTH_TOKEN" not in given and "RAY_AUTH_TOKEN_PATH" not in given:
        rays["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return {**ours, **rays, MARK: secrets.token_hex(8), "OMP_NUM_THREADS": str(settings.num_threads)}


@contextmanager
def _cluster(num_cpus: int) -> Iterator[None]:
    import ray

    ray.init(
        address="local",  # never a cluster that RAY_ADDRESS names: we end what we start
        num_cpus=num_cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.WARNING,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield
    finally:
        ray.shutdown()
        kill_marked(os.environ[MARK])


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Give the event that the first SIGTERM or Ctrl-C sets; the second one ends the block."""
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():
            raise SystemExit(0)
        stop.set()

    before = {name: signal.signal(name, on_signal) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _start(settings: Settings, host: str, port: int, replicas: int, threads: int) -> bool:
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    from service.ray_serve.app import LOGGING, NAME, Scale, build_app

    scale = Scale(min_replicas=replicas, max_replicas=replicas, num_cpus=threads)
    http = HTTPOptions(host=host, port=port, request_timeout_s=settings.request_timeout_s + 5)
    try:
        serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=http, logging_config=LOGGING)
        serve.run(build_app(scale), name=NAME, route_prefix="/")
    except RuntimeError as error:
        log.error("the replicas did not start: %s", error)
        return False
    log.info("%d replicas with %d torch threads each on http://%s:%d", replicas, threads, host, port)
    return True


def _end() -> None:
    from ray import serve

    from service.ray_serve.app import NAME

    serve.delete(NAME)  # first: replicas finish what runs; shutdown alone ends the proxy under open requests
    serve.shutdown()


def _texts(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, value in settings:
        if isinstance(value, SecretStr):
            yield name, value.get_secret_value()
        elif value is not None:
            yield name, str(value)


def kill_marked(mark: str) -> list[int]:
    """Kill what is left of our cluster, where there is /proc: a killed raylet leaves workers behind."""
    wanted = f"{MARK}={mark}".encode()
    killed = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(entry.name) != os.getpid() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(int(entry.name))
    return killed


def cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_port(host: str) -> int:
    """Return a free port; Ray's proxy cannot choose one itself."""
    with socket.create_server((host, 0)) as server:
        return server.getsockname()[1]
