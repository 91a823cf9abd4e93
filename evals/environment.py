"""The Python environment of a measurement: interpreter, processor, threads, and the versions of packages.

`python -m evals.environment` prints that of the interpreter, so that a benchmark can name the environment
of a server it started. This module needs only the standard library.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "uvicorn",
    "uvloop",
    "httptools",
    "h11",
    "fastapi",
    "starlette",
    "pydantic",
    "torch",
    "transformers",
    "timm",
    "tokenizers",
    "numpy",
    "pillow",
    "httpx",
    "litserve",
    "ray",
)
"""Packages whose version can change a measured number."""

NAMED = ("uvicorn", "uvloop", "httptools", "torch", "transformers")
UNRECORDED = "Measured before results named their environment, in one with uvloop"

Environment = dict[str, str | int | None]
ROOT = Path(__file__).parents[1]
TIMEOUT_S = 120


def describe_environment() -> Environment:
    """Return the environment of this process; the version of a package that is absent is None."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": processor(),
        "cores": os.cpu_count(),
        "torch_threads": _torch_threads(),
        **{name: package_version(name) for name in PACKAGES},
    }


def environment_of(interpreter: str | Path, env: Mapping[str, str] | None = None) -> Environment:
    """Return the environment of another interpreter, which also gets the variables `env`.

    Raises subprocess.CalledProcessError if it does not run.
    """
    printed = subprocess.run(
        [interpreter, "-m", "evals.environment"],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    return json.loads(printed.stdout.splitlines()[-1])


def environment_line(result: Mapping[str, Any]) -> str:
    """Name the environment of a result in one line."""
    environment = result.get("environment")
    return UNRECORDED if environment is None else f"Environment: {versions_of(environment)}"


def versions_of(environment: Environment) -> str:
    """List the versions that matter most, and the event loop if it is known."""
    versions = ", ".join(f"{name} {environment.get(name) or 'absent'}" for name in NAMED)
    loop = environment.get("event_loop")
    return f"Python {environment['python']}, {versions}{f', event loop {loop}' if loop else ''}"


def processor() -> str:
    """Return the model name of the CPU."""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def package_version(package: str) -> str | None:
    """Return the installed version of a package, None if it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch_threads() -> int | None:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch  # slow to import, and absent from some environments

    return torch.get_num_threads()


if __name__ == "__main__":
    print(json.dumps(describe_environment()))
