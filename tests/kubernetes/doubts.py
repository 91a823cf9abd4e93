"""Say what a schema cannot see: names that lead nowhere, and pods that may do more than they need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.kubernetes.rendering import Object, containers, of_kind, pod, selected, workloads

POD = {"automountServiceAccountToken": False, "enableServiceLinks": False}
POD_SECURITY = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def doubts(objects: list[Object]) -> Iterator[str]:
    """Yield everything that is wrong with a whole set of objects."""
    for found in objects:
        name = f"{found['kind']} {found['metadata']['name']}"
        yield from (f"{name}: {wrong}" for wrong in _selectors(found, objects))
        if found in workloads(objects):
            yield from (f"{name}: {wrong}" for wrong in _workload(found, objects))


def _selectors(found: Object, objects: list[Object]) -> Iterator[str]:
    """Everything that chooses pods by labels chooses some, and by the ports that they have."""
    for labels in _chosen(found.get("spec", {})):
        if not selected(objects, labels):
            yield f"no pod has the labels {labels}"
    if found["kind"] == "Service":
        for port in found["spec"]["ports"]:
            names = [ports(each) for each in selected(objects, found["spec"]["selector"])]
            if not all(port["targetPort"] in each for each in names):
                yield f"its pods have no port {port['targetPort']}"
    if found["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
        target = found["spec"]["scaleTargetRef"]
        there = [each["metadata"]["name"] for each in of_kind(objects, target["kind"])]
        if target["name"] not in there:
            yield f"there is no {target['name']}"
        if any("replicas" in each["spec"] for each in of_kind(objects, "Deployment") if _is(each, target)):
            yield "its target sets the number of replicas too"


def _is(found: Object, target: Object) -> bool:
    return found["metadata"]["name"] == target["name"]


def _chosen(value: Any) -> Iterator[dict[str, str]]:
    """Yield the labels of every selector in a specification."""
    if isinstance(value, list):
        for each in value:
            yield from _chosen(each)
    elif isinstance(value, dict):
        if "matchLabels" in value:
            yield value["matchLabels"]
        elif isinstance(value.get("selector"), dict) and "matchLabels" not in value["selector"]:
            yield value["selector"]
        for each in value.values():
            yield from _chosen(each)


def _workload(found: Object, objects: list[Object]) -> Iterator[str]:
    spec, labels = pod(found), found["spec"]["template"]["metadata"]["labels"]
    if not found["spec"]["selector"]["matchLabels"].items() <= labels.items():
        yield "its selector is not that of its own pods"
    yield from (name for name, value in POD.items() if spec.get(name) != value)
    yield from (name for name, value in POD_SECURITY.items() if spec["securityContext"].get(name) != value)
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if key in spec)
    volumes = {each["name"]: each for each in spec["volumes"]}
    yield from (f"volume {name} has no limit" for name, each in volumes.items() if _is_endless(each))
    for each in containers(found):
        if wrong := set(_container(each, volumes, objects)):
            yield f"{each['name']}: {', '.join(sorted(wrong))}"


def _is_endless(volume: Object) -> bool:
    return "hostPath" in volume or ("emptyDir" in volume and "sizeLimit" not in volume["emptyDir"])


def _container(found: Object, volumes: dict[str, Object], objects: list[Object]) -> Iterator[str]:
    yield from (name for name, value in SECURITY.items() if found["securityContext"].get(name) != value)
    yield from (key for key in ("privileged", "add") if key in str(found["securityContext"]))
    if not {"cpu", "memory"} <= found["resources"]["requests"].keys():
        yield "requests"
    if "memory" not in found["resources"]["limits"]:
        yield "limits"
    yield from (f"no volume {each['name']}" for each in found["volumeMounts"] if each["name"] not in volumes)
    there = [each["metadata"]["name"] for each in of_kind(objects, "ConfigMap")]
    for each in found.get("envFrom", []):
        if each["configMapRef"]["name"] not in there:
            yield f"no map {each['configMapRef']['name']}"
    for probe in (value["httpGet"] for key, value in found.items() if key.endswith("Probe")):
        if probe["port"] not in {port["name"] for port in found["ports"]}:
            yield f"no port {probe['port']}"


def ports(workload: Object) -> dict[str, int]:
    """Return the ports of a workload's pods by name."""
    return {
        port["name"]: port["containerPort"] for each in containers(workload) for port in each.get("ports", [])
    }
