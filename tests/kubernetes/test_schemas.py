"""Every combination of the Kubernetes files renders, and what comes out fits the schemas."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.rendering import FOLDER, PARTS, Object, named, rendered, with_parts
from tests.kubernetes.schemas import OLDEST, newest, problem, schemas
from tests.needs import needs, program

TOGETHER = [(), *((part,) for part in PARTS), ("api-keys", "gpu", "hpa", "proxy", "vllm")]


@pytest.mark.parametrize("parts", TOGETHER, ids=lambda parts: "+".join(("base", *parts)))
def test_every_combination_fits_the_schemas(parts: tuple[str, ...]) -> None:
    found = {
        f"{each['kind']} {each['metadata']['name']}": problem(each, version)
        for version in (OLDEST, newest())
        for each in with_parts(*parts)
    }
    assert found and {name: wrong for name, wrong in found.items() if wrong} == {}


def test_the_example_has_everything_that_it_names() -> None:
    kinds = {(each["kind"], each["metadata"]["namespace"]) for each in rendered(FOLDER / "example")}
    assert {kind for kind, _ in kinds} >= {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    assert {namespace for _, namespace in kinds} == {"tosa-vqa"}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "replicas"), "two"),
        (("spec", "replica"), 2),
        (("spec", "template", "spec", "securityContext", "seccomp"), {}),
        (("spec", "template", "spec", "containers", 0, "readinessProbe", "httpGet", "url"), "/readyz"),
    ],
)
def test_a_wrong_field_is_noticed(place: tuple[Any, ...], value: Any) -> None:
    broken = copy.deepcopy(named(rendered(FOLDER / "base"), "Deployment", "tosa-vqa"))
    _put(broken, place, value)
    assert problem(broken, newest())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "minReplicas"), 2),
        (("spec", "maxReplicaCount"), "eight"),
        (("spec", "triggers", 0, "treshold"), "4"),
    ],
)
def test_a_wrong_field_of_keda_is_noticed(place: tuple[Any, ...], value: Any) -> None:
    broken = copy.deepcopy(named(with_parts("keda"), "ScaledObject", "tosa-vqa"))
    assert problem(broken, newest()) is None
    _put(broken, place, value)
    assert problem(broken, newest())


def test_a_folder_that_does_not_render_is_noticed() -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        with_parts("nothing")
    assert "nothing" in raised.value.stderr


@needs("kubeconform")
def test_kubeconform_accepts_the_example(tmp_path: Path) -> None:
    """With the schemas of kubernetes-validate, since its own would be downloaded."""
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(rendered(FOLDER / "example")))
    place = f"{schemas()}-strict/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [str(program("kubeconform")), "-strict", "-schema-location", place, str(tmp_path / "all.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _put(found: Object, place: tuple[Any, ...], value: Any) -> None:
    for step in place[:-1]:
        found = found[step]
    found[place[-1]] = value
