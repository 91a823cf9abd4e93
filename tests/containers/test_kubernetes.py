"""The pod of docker/kubernetes/base, as podman runs it from the rendered file: hardened, set up and ready."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from bench.containers.engine import Engine, EngineFailed
from tests.kubernetes.rendering import FOLDER, named, of_kind, pod, rendered, settings
from tests.loopback import START_S, wait_for
from tests.needs import skip_without

pytestmark = pytest.mark.containers
INSIDE = """
import json, os, pathlib, urllib.request
def writes(path):
    try:
        pathlib.Path(path, "x").write_text("x")
    except OSError:
        return False
    return True
status = dict(line.split(":\\t") for line in open("/proc/1/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "user": os.getuid(), "capabilities": int(status["CapEff"], 16), "privileges": status["NoNewPrivs"],
    "filters": status["Seccomp"], "writes": [path for path in ("/", "/opt/tosa-vqa", "/tmp") if writes(path)],
    "settings": {name: value for name, value in os.environ.items() if name.startswith("TOSA_VQA_")},
    "ready": urllib.request.urlopen("http://127.0.0.1:8000/readyz", timeout=5).status,
}))
"""


@pytest.fixture
def container(cpu: str, found: Engine, tmp_path: Path) -> Iterator[str]:
    """Play one replica without a network, and so without ports; podman would ask its probes with curl."""
    skip_without("podman", found.is_podman)
    objects = copy.deepcopy(rendered(FOLDER / "base"))
    deployment = named(objects, "Deployment", "tosa-vqa")
    deployment["spec"]["replicas"] = 1
    (service,) = pod(deployment)["containers"]
    for name in [name for name in service if name.endswith("Probe") or name == "ports"]:
        del service[name]
    service["image"] = f"localhost/{cpu}"
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump_all([*of_kind(objects, "ConfigMap"), deployment]))
    try:
        yield found("kube", "play", "--network", "none", str(file)).splitlines()[-1]
    finally:
        found.tried("kube", "play", "--down", str(file))


def test_the_pod_is_ready_and_may_only_what_it_needs(container: str, found: Engine) -> None:
    seen: list[str] = []

    def is_ready() -> bool:
        with suppress(EngineFailed):
            seen.append(found("exec", container, "python", "-c", INSIDE))
        return bool(seen)

    wait_for(is_ready, START_S)
    assert json.loads(seen[0]) == {
        **{"user": 10001, "capabilities": 0, "privileges": "1", "filters": "2", "writes": ["/tmp"]},
        **{"settings": settings(rendered(FOLDER / "base")), "ready": 200},
    }
