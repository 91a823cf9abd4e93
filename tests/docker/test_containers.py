"""The Dockerfile, compose file and locks: what they name exists, and every container is locked in."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests import locks
from tests.docker import recipes
from tests.docker.door import CONFIGURATION
from tests.docker.recipes import ROOT, Stage, stages
from vlm.probe import PROBE

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8")
STAGES = stages(DOCKERFILE)
TARGETS = ("cpu", "cuda", "ray", "load")
SERVICES: dict[str, dict[str, Any]] = recipes.compose()["services"]
SERVICES_OF_OURS = [name for name in SERVICES if name.split("-")[0] == "service"]
CUDA_ONLY = re.compile(r"torch|torchvision|triton|cuda-.+|nvidia-.+")


def test_everything_copied_exists_and_is_in_the_build_context() -> None:
    sources = recipes.copied(STAGES)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not recipes.lets_through(IGNORE, source)] == []


def test_every_package_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= recipes.copied(STAGES)


@pytest.mark.parametrize(
    "path", [".git", "tests/conftest.py", "runs/x", "service/__pycache__", "bench/results"]
)
def test_the_build_context_holds_nothing_else(path: str) -> None:
    assert not recipes.lets_through(IGNORE, path)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_run_by_nobody_in_particular(target: str) -> None:
    names = [stage.name for stage in recipes.lineage(target, STAGES)]
    assert names in ([target, "runtime"], [target, "torch-cpu", "runtime"])
    last = [word for word, _ in recipes.lineage(target, STAGES)[0].steps]
    assert "RUN" not in last[last.index("USER") :]
    assert recipes.instruction(target, "USER", STAGES) == "10001:10001"
    assert recipes.instruction(target, "STOPSIGNAL", STAGES) == "SIGTERM"
    steps = [step for stage in recipes.lineage(target, STAGES) for step in stage.steps]
    text = " ".join(rest for word, rest in steps if word == "RUN")
    assert not re.search(r"\bapt\b|apt-get|gcc|curl|wget", text) and "chmod a-s" in text
    installs = re.findall(r"\S*pip install", text.replace("/opt/tools/bin/uv pip install", ""))
    assert installs == [], "what installs is mounted, so that no image has it"
    environment = " ".join(rest for word, rest in steps if word == "ENV")
    assert "HF_HUB_OFFLINE=1" in environment and "MALLOC_ARENA_MAX=2" in environment


def test_the_target_without_a_name_is_for_cpus() -> None:
    assert STAGES[-1].name == "cpu"


def test_every_image_is_pinned_to_a_patch_version() -> None:
    names = {stage.name for stage in STAGES}
    bases = {stage.base for stage in STAGES} - names - {"scratch"}
    others = {service["image"] for service in SERVICES.values() if "build" not in service}
    assert [image for image in bases | others if recipes.unpinned(image)] == []


@pytest.mark.parametrize("image", ["python", "python:latest", "python:3.12-slim", "grafana/grafana:12"])
def test_the_pin_check_can_fail(image: str) -> None:
    assert recipes.unpinned(image)


def test_the_reader_of_dockerfiles_sees_what_is_wrong() -> None:
    bad = stages(
        'ARG A=x:1\nFROM ${A} AS one\nUSER root\n# USER no\nCOPY a \\\n b /\nFROM one AS two\nCMD ["c"]\n'
    )
    assert bad[0] == Stage("x:1", "one", [("USER", "root"), ("COPY", "a   b /")])
    assert recipes.instruction("two", "USER", bad) == "root" and recipes.copied(bad) == {"a", "b"}
    assert recipes.words(recipes.instruction("two", "CMD", bad)) == ["c"]


@pytest.mark.parametrize("lock", ["runtime", "ray", "load"])
def test_images_for_cpus_leave_out_only_what_cuda_needs(lock: str) -> None:
    text = locks.text(lock)
    whole, kept = (locks.versions(each) for each in (text, recipes.without_cuda(text, STAGES)))
    assert kept == {name: version for name, version in whole.items() if not CUDA_ONLY.fullmatch(name)}
    assert {"torch", "torchvision", "triton"} < whole.keys() - kept.keys()


def test_torch_for_cpus_has_the_same_version() -> None:
    have = locks.versions(locks.text("runtime"))
    expected = [f"{name}=={have[name]}" for name in ("torch", "torchvision")]
    assert locks.text("torch-cpu").split() == expected


def test_every_image_is_installed_from_a_lock() -> None:
    runs = [rest for stage in STAGES for word, rest in stage.steps if word == "RUN"]
    installs = [rest for rest in runs if re.search(r"pip .*install", rest)]
    allowed = r"--require-hashes .*/locks/|--no-deps \$\{TORCH_CPU\}|--no-index --find-links /wheels tosa-vqa"
    assert [each for each in installs if not re.search(allowed, each)] == [] and len(installs) == 8
    (torch_cpu,) = re.findall(r'(?m)^ARG TORCH_CPU="(.*)"$', DOCKERFILE)
    assert torch_cpu == "--torch-backend cpu --requirement /locks/torch-cpu.txt"


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_locked_in(name: str) -> None:
    assert list(recipes.soft_spots(SERVICES[name])) == []


@pytest.mark.parametrize(
    ("spot", "change"),
    [
        ("read_only", {"read_only": False}), ("init", {"init": None}), ("cap_drop", {"cap_drop": ["MKNOD"]}),
        ("cap_add", {"cap_add": ["SYS_ADMIN"]}), ("privileged", {"privileged": True}),
        ("user", {"user": "0:0"}), ("user", {"user": "root"}),
        ("security_opt", {"security_opt": []}), ("tmpfs", {"tmpfs": ["/tmp"]}),
        ("volumes", {"volumes": ["./a:/a"]}), ("volumes", {"volumes": ["/var/run/docker.sock:/s"]}),
    ],
)  # fmt: skip
def test_the_lock_check_can_fail(spot: str, change: dict[str, Any]) -> None:
    assert list(recipes.soft_spots({**SERVICES["service"], **change})) == [spot]


@pytest.mark.parametrize("limit", ["pids_limit", "mem_limit", "cpus", "stop_grace_period"])
def test_a_missing_limit_is_seen(limit: str) -> None:
    assert list(recipes.soft_spots({k: v for k, v in SERVICES["service"].items() if k != limit})) == [limit]


def test_one_port_is_published_and_on_this_machine_only() -> None:
    assert {name: each["ports"] for name, each in SERVICES.items() if "ports" in each} == {
        "proxy": ["127.0.0.1:8080:8080"]
    }
    assert [name for name, each in SERVICES.items() if "edge" in each["networks"]] == ["proxy"]
    assert recipes.compose()["networks"]["inside"] == {"internal": True}
    assert not any(key in each for each in SERVICES.values() for key in ("network_mode", "pid", "ipc"))


def test_there_is_time_to_drain() -> None:
    settings = Settings()
    drain_s = settings.drain_pause_s + settings.drain_timeout_s
    for name in SERVICES_OF_OURS:
        assert recipes.seconds(SERVICES[name]["stop_grace_period"]) >= drain_s + 5
    proxy = CONFIGURATION.read_text(encoding="utf-8")
    hard_stop_s = recipes.seconds(re.findall(r"hard-stop-after (\S+)", proxy)[0])
    assert drain_s < hard_stop_s < recipes.seconds(SERVICES["proxy"]["stop_grace_period"])
    assert SERVICES["proxy"]["stop_signal"] == "SIGUSR1"


def test_a_replica_that_drains_is_left_out_before_it_refuses() -> None:
    """It says so for drain_pause_s; the proxy asks every `inter` and needs `fall` answers."""
    checks = re.findall(r"check inter (\S+) fall (\d+)", CONFIGURATION.read_text(encoding="utf-8"))
    assert len(checks) == 4
    for every, fall in checks:
        assert recipes.seconds(every) * (int(fall) + 1) < Settings().drain_pause_s


def test_the_proxy_waits_longer_than_the_service_answers() -> None:
    proxy = CONFIGURATION.read_text(encoding="utf-8")
    answer_s = recipes.seconds(re.findall(r'PROXY_ANSWER_TIMEOUT "(\S+)"', proxy)[0])
    assert answer_s > Settings().request_timeout_s
    largest = int(re.findall(r"content-length\) gt (\d+)", proxy)[0])
    assert largest == Settings().max_body_bytes + 2**20


@pytest.mark.parametrize("name", SERVICES_OF_OURS)
def test_the_settings_in_the_compose_file_are_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SERVICES[name]["environment"]
    fields = {f"TOSA_VQA_{field.upper()}" for field in Settings.model_fields}
    assert environment and set(environment) <= fields
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = Settings()
    assert settings.num_threads and settings.num_threads <= SERVICES[name]["cpus"]
    proxy = CONFIGURATION.read_text(encoding="utf-8")
    waiting_s = recipes.seconds(re.findall(r'PROXY_BODY_TIMEOUT "(\S+)"', proxy)[0])
    assert waiting_s + settings.body_timeout_s <= 30, "a slow body is closed within 30 s, wherever it waits"


def test_what_the_compose_file_names_exists() -> None:
    targets = {each["build"]["target"] for each in SERVICES.values() if "build" in each}
    assert targets == set(TARGETS)
    mounts = [mount.split(":")[0] for each in SERVICES.values() for mount in each.get("volumes", [])]
    files = [recipes.COMPOSE.parent / mount for mount in mounts if mount.startswith(".")]
    assert files and [path for path in files if not path.exists()] == []
    assert {mount for mount in mounts if not mount.startswith(".")} == set(recipes.compose()["volumes"])


def test_one_kind_of_service_is_started_by_default_and_all_have_one_name() -> None:
    default = (recipes.COMPOSE.parent / ".env").read_text(encoding="utf-8")
    assert "\nCOMPOSE_PROFILES=cpu\n" in default
    kinds = {name: each for name, each in SERVICES.items() if name.startswith("service")}
    assert [each["profiles"] for each in kinds.values()] == [["cpu"], ["gpu"], ["ray"], ["vllm"]]
    assert all(each["networks"]["inside"]["aliases"] == ["service"] for each in kinds.values())
    assert 'PROXY_UPSTREAM "service:8000"' in CONFIGURATION.read_text(encoding="utf-8")


def test_nothing_that_is_started_again_depends_on_what_ends() -> None:
    """Podman does not start a killed container again while one that it depends on has ended."""
    ends = {name for name, each in SERVICES.items() if each["restart"] == "no"}
    assert ends == {"load"}
    assert not [
        name for name, each in SERVICES.items() if name not in ends and ends & set(each.get("depends_on", ()))
    ]


def test_the_service_in_front_of_vllm_finds_it_and_its_weights() -> None:
    service, language, weights = (SERVICES[name] for name in ("service-vllm", "language", "language-weights"))
    assert service["environment"]["TOSA_VQA_LANGUAGE_URLS"] == "http://language:8000"
    folder = service["environment"]["TOSA_VQA_LANGUAGE_PROBE"]
    assert f"--model={folder}" in language["command"] and f"--out {folder} &&" in weights["command"][-1]
    assert weights["healthcheck"]["test"] == ["CMD", "test", "-e", f"{folder}/{PROBE}"]
    mounts = [each["volumes"][0].split(":") for each in (service, language, weights)]
    assert [mount[1] for mount in mounts] == [str(Path(folder).parent)] * 3
    assert [mount[2:] for mount in mounts] == [["ro"], ["ro"], []], "one container writes the weights"
    assert language["depends_on"] == {"language-weights": {"condition": "service_healthy"}}
    made = next(
        rest for word, rest in recipes.lineage("cpu", STAGES)[-1].steps if "install --directory" in rest
    )
    assert f"--owner 10001 --group 10001 /results {Path(folder).parent}" in made
    needed = {"--enable-prompt-embeds", "--enable-prompt-tokens-details", "--enable-per-request-metrics"}
    needed |= {"--generation-config=vllm", "--structured-outputs-config.backend=guidance"}
    assert needed | {"--dtype=float32"} < set(language["command"])
