"""What some tests need beyond the lock, and how to get it: every skip comes from here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.containers.engine import program


@dataclass(frozen=True)
class Need:
    """One thing that a machine may lack."""

    what: str
    how: str
    is_met: Callable[[], bool]

    @property
    def reason(self) -> str:
        return f"needs {self.what}: {self.how}"


def _debian(name: str, package: str | None = None) -> Need:
    return Need(name, f"apt-get install {package or name}", lambda: program(name) is not None)


def _has_cuda() -> bool:
    import torch  # takes seconds, and most tests that need something do not need this

    return torch.cuda.is_available()


def _has_two() -> bool:
    import torch

    return torch.cuda.device_count() > 1


NEEDS = {
    "haproxy": _debian("haproxy"),
    "promtool": _debian("promtool", "prometheus"),
    "curl": _debian("curl"),
    "wget": _debian("wget"),
    "sha256sum": _debian("sha256sum", "coreutils"),
    "chromium": _debian("chromium"),
    "page tests": Need(
        "a browser for minutes", "make test-page", lambda: os.environ.get("PAGE_TESTS") == "1"
    ),
    "playwright": Need("Playwright", "make install", lambda: find_spec("playwright") is not None),
    "c++": Need("a C++ compiler", "apt-get install g++", lambda: bool(program("g++") or program("clang++"))),
    "onnx": Need("ONNX", "make install", lambda: all(map(find_spec, ("onnx", "onnxruntime", "onnxscript")))),
    "long": Need("more time", "make test-long", lambda: os.environ.get("LONG_TESTS") == "1"),
    "ray": Need("Ray", "make test-ray", lambda: find_spec("ray") is not None),
    "vllm": Need("a vLLM server", "make test-vllm", lambda: bool(os.environ.get("VLLM_PYTHON"))),
    "notebooks": Need(
        "Jupyter", "make test-notebooks", lambda: all(map(find_spec, ("nbclient", "ipykernel")))
    ),
    "packages of vllm": Need("packages of vLLM", "make .venv-vllm/.installed", lambda: False),
    "locust": Need("Locust", "make test-load", lambda: find_spec("locust") is not None),
    "kubeconform": Need("kubeconform", "install it", lambda: program("kubeconform") is not None),
    "containers": Need(
        "a container engine", "make test-containers", lambda: os.environ.get("CONTAINER_TESTS") == "1"
    ),
    "an engine": Need("docker or podman", "make test-containers as root on Debian", lambda: False),
    "podman": Need("podman", "make test-containers as root on Debian", lambda: False),
    "an image": Need("an image that was not built", "make test-containers with more disk", lambda: False),
    "gpu": Need("a CUDA device", "run on a machine with one", _has_cuda),
    "two gpus": Need("two CUDA devices", "run on a machine with them", _has_two),
    "no gpu": Need("no CUDA device", "CUDA_VISIBLE_DEVICES= make test", lambda: not _has_cuda()),
    "memory of a process": Need("/proc", "run on Linux", lambda: Path("/proc/self/statm").exists()),
}


def needs(*names: str) -> pytest.MarkDecorator:
    """Mark a test that is skipped where the first thing missing of these is missing."""
    missing = [NEEDS[name].reason for name in names if not NEEDS[name].is_met()]
    return pytest.mark.skipif(bool(missing), reason=missing[0] if missing else "")


def skip_without(name: str, is_met: bool | None = None) -> None:
    """Skip the test that runs where a thing is missing; `is_met` is for what only a fixture can find out."""
    if not (NEEDS[name].is_met() if is_met is None else is_met):
        pytest.skip(NEEDS[name].reason)


def told(reasons: Iterable[str]) -> list[str]:
    """Return one line for each reason to skip, the commonest first, with the number of tests."""
    return [f"{number:5}  {reason}" for reason, number in Counter(reasons).most_common()]
