"""The Kubernetes files fit this service: its settings, addresses, metrics, times and images."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.keys import KeyRing
from service.settings import Settings
from tests.docker import recipes
from tests.docker.door import CONFIGURATION
from tests.docker.test_containers import SERVICES, STAGES
from tests.docker.test_proxy_service import addresses
from tests.docs.commands import parsed, service_app
from tests.kubernetes.doubts import doubts, ports
from tests.kubernetes.rendering import (
    FOLDER,
    PARTS,
    Object,
    containers,
    named,
    of_kind,
    pod,
    rendered,
    settings,
    with_parts,
    workloads,
)

PAGE = (recipes.ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
PROXY = CONFIGURATION.read_text(encoding="utf-8")
# Of vLLM, what tests/vllm asks for too.
PATHS = {"vllm": {"/health", "/metrics"}, "haproxy": set(re.findall(r"\{ path (\S+) \}", PROXY))}
ALL = ("api-keys", "gpu", "keda", "proxy", "vllm")


@pytest.fixture
def objects() -> list[Object]:
    return with_parts(*ALL)


def test_names_lead_somewhere_and_pods_may_only_what_they_need(objects: list[Object]) -> None:
    assert list(doubts(objects)) == []
    assert list(doubts(rendered(FOLDER / "example"))) == list(doubts(rendered(FOLDER / "base"))) == []


def _container(change: Callable[[Object], Any]) -> Callable[[Object], Any]:
    return lambda found: change(pod(found)["containers"][0])


def _pod(change: Callable[[Object], Any]) -> Callable[[Object], Any]:
    return lambda found: change(pod(found))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Deployment", lambda one: one["spec"]["selector"]["matchLabels"].update(a="b")),
        ("Deployment", _pod(lambda one: one["securityContext"].update(runAsUser=0))),
        ("Deployment", _pod(lambda one: one["securityContext"].pop("seccompProfile"))),
        ("Deployment", _pod(lambda one: one.update(enableServiceLinks=True))),
        ("Deployment", _pod(lambda one: one.update(hostNetwork=True))),
        ("Deployment", _pod(lambda one: one["volumes"][0].update(emptyDir={}))),
        ("Deployment", _pod(lambda one: one["volumes"][0].update(name="other"))),
        ("Deployment", _container(lambda one: one["securityContext"].update(readOnlyRootFilesystem=False))),
        ("Deployment", _container(lambda one: one["securityContext"]["capabilities"].update(add=["ALL"]))),
        ("Deployment", _container(lambda one: one["resources"]["limits"].pop("memory"))),
        ("Deployment", _container(lambda one: one["readinessProbe"]["httpGet"].update(port="https"))),
        ("Deployment", _container(lambda one: one["envFrom"][0]["configMapRef"].update(name="other"))),
        ("Service", lambda one: one["spec"]["selector"].update(a="b")),
        ("Service", lambda one: one["spec"]["ports"][0].update(targetPort="https")),
        ("PodDisruptionBudget", lambda one: one["spec"]["selector"]["matchLabels"].update(a="b")),
        ("NetworkPolicy", lambda one: one["spec"]["podSelector"]["matchLabels"].update(a="b")),
    ],
)
def test_a_doubt_is_told(kind: str, change: Callable[[Object], Any]) -> None:
    broken = copy.deepcopy(rendered(FOLDER / "base"))
    change(named(broken, kind, "tosa-vqa"))
    assert len(list(doubts(broken))) >= 1


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["spec"]["scaleTargetRef"].update(name="other"),
        lambda one: one["spec"]["scaleTargetRef"].update(name="tosa-vqa-proxy"),
    ],
)
def test_an_autoscaler_of_nothing_is_told(change: Callable[[Object], Any], objects: list[Object]) -> None:
    broken = copy.deepcopy(objects)
    change(named(broken, "ScaledObject", "tosa-vqa"))
    assert len(list(doubts(broken))) == 1


@pytest.mark.parametrize("parts", [(), *((part,) for part in ALL), ALL], ids="+".join)
def test_every_variable_is_a_setting(parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(with_parts(*parts))
    assert set(given) <= {f"TOSA_VQA_{name.upper()}" for name in Settings.model_fields}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings().num_threads == 2 and Settings().log_format == "json"


def test_a_replica_has_the_processors_of_its_threads(objects: list[Object]) -> None:
    (service,) = pod(named(objects, "Deployment", "tosa-vqa"))["containers"]
    assert service["resources"]["requests"]["cpu"] == settings(objects)["TOSA_VQA_NUM_THREADS"]


def asked(objects: list[Object]) -> set[tuple[str, int, str]]:
    """Return image, port and path of everything that Kubernetes and Prometheus ask of pods."""
    found = set()
    for workload in workloads(objects):
        notes = workload["spec"]["template"]["metadata"]["annotations"]
        image = re.split(r"[:/]", pod(workload)["containers"][0]["image"])[0]
        assert notes["prometheus.io/scrape"] == "true"
        found.add((image, int(notes["prometheus.io/port"]), notes["prometheus.io/path"]))
        probes = [
            value["httpGet"] for each in containers(workload) for key, value in each.items() if "Probe" in key
        ]
        assert len(probes) >= 2
        found |= {(image, ports(workload)[probe["port"]], probe["path"]) for probe in probes}
    return found


def test_every_port_and_path_is_there(objects: list[Object]) -> None:
    own = set(addresses(create_app(Settings(depth_model="none")).routes))
    serving = recipes.instruction("cpu", "CMD", STAGES)
    ports = {
        "tosa-vqa": {int(recipes.words(serving)[-1])},
        "vllm": {8000},
        "haproxy": {int(port) for port in re.findall(r'presetenv PROXY_OWN_BIND ":(\d+)"', PROXY)},
    }
    found = asked(objects)
    assert {image for image, _, _ in found} == set(ports)
    for image, port, path in found:
        assert port in ports[image] and path in (own if image == "tosa-vqa" else PATHS[image]), image


def test_readiness_waits_for_models_and_life_does_not(objects: list[Object]) -> None:
    (service,) = pod(named(objects, "Deployment", "tosa-vqa"))["containers"]
    paths = {key: value["httpGet"]["path"] for key, value in service.items() if key.endswith("Probe")}
    assert paths == {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def test_there_is_time_to_drain(objects: list[Object]) -> None:
    drain_s = Settings().drain_pause_s + Settings().drain_timeout_s
    assert pod(named(objects, "Deployment", "tosa-vqa"))["terminationGracePeriodSeconds"] >= drain_s + 5
    proxy = pod(named(objects, "Deployment", "tosa-vqa-proxy"))
    hard_stop_s = recipes.seconds(re.findall(r"hard-stop-after (\S+)", PROXY)[0])
    pause_s = proxy["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert proxy["terminationGracePeriodSeconds"] >= pause_s + hard_stop_s + 5
    language = pod(named(objects, "StatefulSet", "tosa-vqa-language"))
    assert language["terminationGracePeriodSeconds"] >= Settings().request_timeout_s + 5


def test_replicas_follow_a_metric_that_is_there() -> None:
    keda = named(with_parts("keda"), "ScaledObject", "tosa-vqa")["spec"]
    hpa = named(with_parts("hpa"), "HorizontalPodAutoscaler", "tosa-vqa")["spec"]
    trigger, metric = keda["triggers"][0]["metadata"], hpa["metrics"][0]["pods"]
    shown = TestClient(create_app(Settings(depth_model="none"))).get("/metrics").text
    gauges = set(re.findall(r"^# TYPE (\S+) gauge$", shown, re.M))
    followed = set(re.findall(r"\btosa_vqa_\w+", f"{trigger['query']} {metric['metric']['name']}"))
    assert followed == {"tosa_vqa_queue_depth"} <= gauges
    assert trigger["threshold"] == metric["target"]["averageValue"]
    assert 0 < int(trigger["threshold"]) < Settings().max_queue, "replicas come before requests are refused"
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"])
    assert hpa["behavior"] == keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    slots = {int(number) for number in re.findall(r"server-template replica (\d+)", PROXY)}
    assert 1 < hpa["minReplicas"] < hpa["maxReplicas"] <= min(slots)


def test_a_drain_or_an_update_leaves_a_replica(objects: list[Object]) -> None:
    budgets = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "PodDisruptionBudget")}
    assert set(budgets) == {"tosa-vqa", "tosa-vqa-proxy"}
    assert {each["maxUnavailable"] for each in budgets.values()} == {1}
    for name in budgets:
        spec = named(objects, "Deployment", name)["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert spec.get("replicas", 2) >= 2


def test_images_are_those_of_compose_and_of_the_pages(objects: list[Object]) -> None:
    images = {each["image"] for workload in workloads(objects) for each in containers(workload)}
    theirs = {re.sub(r"\$\{\w+:-(.+)\}", r"\1", each["image"]) for each in SERVICES.values()}
    assert images <= theirs and {"tosa-vqa:cpu", "tosa-vqa:cuda"} <= images
    (service,) = pod(_service(rendered(FOLDER / "example")))["containers"]
    assert f"docker push {service['image']}\n" in PAGE


def _service(objects: list[Object]) -> Object:
    return named(objects, "Deployment", "tosa-vqa")


def test_the_page_shows_the_example() -> None:
    assert f"```yaml\n{(FOLDER / 'example' / 'kustomization.yaml').read_text(encoding='utf-8')}```" in PAGE
    assert [part for part in PARTS if f"`parts/{part}`" not in PAGE] == []


def test_keys_are_read_from_the_secret(objects: list[Object], tmp_path: Path) -> None:
    spec = pod(_service(objects))
    (volume,) = [each for each in spec["volumes"] if each["name"] == "api-keys"]
    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "api-keys"]
    secret = {"secretName": "tosa-vqa-api-keys", "defaultMode": 0o440, "optional": False}
    assert volume["secret"] == secret and mount["readOnly"]
    assert settings(objects)["TOSA_VQA_API_KEYS_FILE"] == f"{mount['mountPath']}/keys"
    assert spec["securityContext"]["fsGroup"] == 10001, "only the group may read it"
    assert re.search(r"create secret generic tosa-vqa-api-keys --from-file=keys=\S+", PAGE)
    (tmp_path / "keys").write_text("alice=sha256:" + "0" * 64)
    assert KeyRing.of(Settings(api_keys_file=tmp_path / "keys")).names == ("alice",)


def test_the_proxy_finds_the_replicas(objects: list[Object]) -> None:
    (proxy,) = pod(named(objects, "Deployment", "tosa-vqa-proxy"))["containers"]
    given = {each["name"]: each.get("value") for each in proxy["env"]}
    assert {name for name in given if name != "NAMESPACE"} <= set(re.findall(r"presetenv (\w+)", PROXY))
    name, _, port = str(given["PROXY_UPSTREAM"]).partition(".$(NAMESPACE).svc.cluster.local:")
    replicas = named(objects, "Service", name)["spec"]
    assert replicas["clusterIP"] == "None" and replicas["ports"][0]["port"] == int(port)
    (volume,) = pod(named(objects, "Deployment", "tosa-vqa-proxy"))["volumes"]
    assert named(objects, "ConfigMap", volume["configMap"]["name"])["data"]["haproxy.cfg"] == PROXY
    assert proxy["args"] == SERVICES["proxy"]["command"]


def test_replicas_and_the_language_server_have_the_same_weights(objects: list[Object]) -> None:
    language = named(objects, "StatefulSet", "tosa-vqa-language")
    (ours,), (theirs,) = (pod(each)["initContainers"] for each in (_service(objects), language))
    assert ours == theirs and ours["command"][:2] == ["sh", "-c"]
    assert language["spec"]["serviceName"] == language["metadata"]["name"]
    command = re.findall(r"tosa-vqa (language-model .+)", ours["command"][-1])[0].split()
    folder = parsed(service_app, command)["out"]
    given = settings(objects)
    assert str(folder) == given["TOSA_VQA_LANGUAGE_PROBE"] and f"--model={folder}" in str(language)
    assert pod(language)["containers"][0]["args"] == SERVICES["language"]["command"]
    urls = [
        f"http://{language['metadata']['name']}-{number}.{language['spec']['serviceName']}:8000"
        for number in range(language["spec"]["replicas"])
    ]
    assert given["TOSA_VQA_LANGUAGE_URLS"].split(",") == urls


def test_replicas_reach_the_language_server_and_nothing_else(objects: list[Object]) -> None:
    assert named(rendered(FOLDER / "base"), "NetworkPolicy", "tosa-vqa")["spec"]["egress"] == []
    to_language, names = named(objects, "NetworkPolicy", "tosa-vqa")["spec"]["egress"]
    (peer,) = to_language["to"]
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "tosa-vqa-language"}
    assert {each["port"] for each in names["ports"]} == {53} and "to" not in names
    assert ports(named(objects, "StatefulSet", "tosa-vqa-language")) == {"http": 8000}
