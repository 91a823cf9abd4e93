"""Start a vLLM server of the environment `.venv-vllm` as a process of its own, and stop it."""

from __future__ import annotations

import os
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.load.serving import ROOT, Serving, serving

PYTHON = "VLLM_PYTHON"
"""The variable that names the interpreter with vLLM; `make test-vllm` sets it."""
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
ONE_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""Lets the engine run the model itself. On CPUs the model otherwise runs in a worker process, and for a
second after each message both wait for the next one in a loop that keeps a core busy."""
ALL_CORES = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "PASSIVE"}
"""By itself it binds its threads to all cores but one: on two cores, one works. Waiting threads sleep."""
START_TIMEOUT_S = 600
SWITCHES = ("--enforce-eager", "--enable-prompt-tokens-details", "--enable-per-request-metrics")


def interpreter() -> str:
    """Return the interpreter that has vLLM."""
    return str(ROOT / os.environ.get(PYTHON, ".venv-vllm/bin/python"))


@contextmanager
def vllm_serving(
    model: str | Path,
    *options: str,
    name: str = "model",
    env: Mapping[str, str] | None = None,
    port: int | None = None,
    worker: bool = False,
) -> Iterator[Serving]:
    """Serve a model in float32 on a loopback port, a free one if not given, under this name.

    worker: run the model in a process of its own, as vLLM does by itself.

    The command is the module and not the script `vllm`, which fails for the build for CPUs.
    """
    command = [interpreter(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", name, "--dtype", "float32", "--generation-config", "vllm"]
    command += ["--host", "127.0.0.1", "--port", "{port}", *SWITCHES, *options]
    given = {**ENVIRONMENT, **({} if worker else ONE_PROCESS), **(env or {})}
    with serving(command, "/health", given, START_TIMEOUT_S, port) as server:
        yield server


def metrics(url: str) -> defaultdict[str, float]:
    """Return the samples of a server's metrics by name, those of all its labels added up; 0 for others."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    found: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] += sample.value
    return found
