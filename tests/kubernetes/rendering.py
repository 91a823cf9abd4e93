"""Render kustomize folders with the kustomize in kubectl, and find things in what comes out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
PARTS = sorted(path.name for path in (FOLDER / "parts").iterdir())
KUBECTL = shutil.which("kubectl", path=Path(sys.executable).parent) or "kubectl"
Object = dict[str, Any]


@cache
def rendered(folder: Path) -> list[Object]:
    """Return the objects of a kustomize folder, for all to share. Raises CalledProcessError with a stderr."""
    told = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=True)
    return list(yaml.load_all(told.stdout, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


@cache
def with_parts(*parts: str) -> list[Object]:
    """Return the objects of the base with these parts, for all to share."""
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        there = Path(os.path.relpath(FOLDER, folder))
        ours = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [str(there / "base")],
            "components": [str(there / "parts" / part) for part in parts],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(ours))
        return rendered(folder)


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def workloads(objects: list[Object]) -> list[Object]:
    return of_kind(objects, "Deployment", "StatefulSet")


def pod(workload: Object) -> Object:
    """Return the specification of a workload's pods."""
    return workload["spec"]["template"]["spec"]


def containers(workload: Object) -> Iterator[Object]:
    """Yield the containers of a workload, those that run first among them."""
    yield from pod(workload).get("initContainers", [])
    yield from pod(workload)["containers"]


def selected(objects: list[Object], labels: dict[str, str]) -> list[Object]:
    """Return the workloads whose pods have all of these labels."""
    return [
        each
        for each in workloads(objects)
        if labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    ]


def settings(objects: list[Object]) -> dict[str, str]:
    """Return the settings that the service gets from its environment."""
    (service,) = pod(named(objects, "Deployment", "tosa-vqa"))["containers"]
    maps = [named(objects, "ConfigMap", each["configMapRef"]["name"]) for each in service["envFrom"]]
    return {name: value for each in maps for name, value in each["data"].items()}
