"""Every image: who runs it, what it may do, what is in it, and what a change of our code renews."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from bench.containers.build import arguments, build, size_mb
from bench.containers.engine import ROOT, Engine

pytestmark = pytest.mark.containers
CELL = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none", "--tmpfs=/tmp")
INSIDE = """
import os, pathlib
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
assert os.getuid() == 10001 and int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1", status
for folder in ("/", "/opt/tosa-vqa", "/results", "/home"):
    try:
        pathlib.Path(folder, "x").write_text("x")
    except OSError:
        continue
    raise SystemExit(f"wrote to {folder}")
"""
TORCH_IN = "import importlib.util; print(importlib.util.find_spec('torch') is not None)"


def test_nothing_more_than_needed_is_allowed_inside(image: str, found: Engine) -> None:
    found("run", "--rm", *CELL, image, "python", "-c", INSIDE)


def test_the_command_is_there_and_says_what_it_takes(image: str, found: Engine) -> None:
    command = json.loads(found("image", "inspect", "--format", "{{json .Config.Cmd}}", image))
    head = command[: next(place for place, word in enumerate(command) if word.startswith("--"))]
    assert "usage" in found("run", "--rm", *CELL, image, *head, "--help").lower()


def test_only_the_load_generator_has_no_torch(image: str, found: Engine) -> None:
    printed = found("run", "--rm", *CELL, image, "python", "-c", TORCH_IN)
    assert printed == str(not image.endswith(":load"))


def test_the_image_for_cpus_is_small(cpu: str, found: Engine) -> None:
    assert size_mb(found, cpu) < 2000


COPIED = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.M)


def test_a_change_of_our_code_renews_the_last_layer_only(cpu: str, found: Engine, tmp_path: Path) -> None:
    copied = {name.partition("/")[0] for line in COPIED for name in line.split()[:-1]}
    for name in ("Dockerfile", ".dockerignore", *copied):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, tmp_path)
            continue
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    changed = tmp_path / "service" / "timing.py"
    changed.write_text(changed.read_text() + "\nCHANGED = True\n")
    try:
        built = build(found, "cpu", arguments(found), tmp_path, "tosa-vqa:changed")
        print(f"a change of our code: {built.seconds} s")
        before, after = (layers(found, image) for image in (cpu, "tosa-vqa:changed"))
        assert before[:-1] == after[:-1] and before[-1] != after[-1]
        code = "import service.timing; print(service.timing.CHANGED)"
        assert found("run", "--rm", "tosa-vqa:changed", "python", "-c", code) == "True"
    finally:
        found("rmi", "--force", "tosa-vqa:changed")


def layers(engine: Engine, image: str) -> list[str]:
    return json.loads(engine("image", "inspect", "--format", "{{json .RootFS.Layers}}", image))
