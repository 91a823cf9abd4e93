"""Replicas behind the proxy: what they answer, who gets what, and what is lost when one goes or comes.

Every function loads the stack that it is given, and returns what it saw; tests/containers judge it.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from random import Random
from typing import Any

from bench.containers.asking import Load, load, load_during, load_with
from bench.containers.engine import ROOT, kill
from bench.containers.stack import PROJECT, URL, Stack
from bench.load import summary
from bench.load.corpus import ask, view
from bench.load.requests import Request

REPLICAS = 3
CLIENTS = 12
SHARED = 120
"""Requests whose distribution over the replicas is looked at."""
ROLLING = 2000
"""Requests that a rolling restart must not lose one of."""
FRAMES, QUESTIONS = 16, 8


def throughput(stack: Stack, requests: int = SHARED) -> dict[str, Any]:
    """Let twelve clients ask about frames that nobody has seen; count by replica and by client."""
    before = answered_by(stack)
    done = load_with(URL, CLIENTS, lambda sent: sent < requests, _fresh(requests))
    after = answered_by(stack)
    return seen(done) | {
        "by_replica": sorted(after[name] - before.get(name, 0) for name in after),
        "by_client": sorted(done.by_client),
    }


def _fresh(number: int) -> list[Request]:
    return [ask(index % 48, "tosa 0.25", {"cache": "false"}) for index in range(number)]


def seen(done: Load) -> dict[str, Any]:
    """Return what a load came to, ready for JSON."""
    found = summary.summarise(done.samples)
    kept = ("sent", "answered", "refused", "failed", "latency_ms", "codes", "lost_how")
    return {name: found[name] for name in kept} | {
        **{"lost": len(done.lost), "unsent": done.unsent},
        **{"seconds": round(done.seconds, 1), "answers_per_s": round(done.rate, 2)},
    }


def answered_by(stack: Stack) -> dict[str, int]:
    """Return how many answers with 200 the proxy has from each replica, to requests that name no frame."""
    (proxy,) = stack.containers("proxy")
    metrics = stack.get(proxy, "http://127.0.0.1:8404/metrics")
    pattern = r'haproxy_server_http_responses_total\{proxy="answers",server="(\w+)",code="2xx"\} (\d+)'
    return {name: int(number) for name, number in re.findall(pattern, metrics) if int(number)}


def killed(stack: Stack, clients: int = 9, seconds: float = 15) -> dict[str, Any]:
    """Kill one replica under load, and wait until it is back."""
    victim = stack.containers("service")[0]
    killer = threading.Timer(2, kill, (stack.engine, victim))
    killer.start()
    end = time.monotonic() + seconds
    done = load(URL, clients, lambda _: time.monotonic() < end, frames=clients)
    killer.join()
    stack.wait_for_replicas(REPLICAS)
    return seen(done) | {"clients": clients}


def drained(stack: Stack, clients: int = 9) -> dict[str, Any]:
    """Stop one replica under load, and start it again."""
    leaving = stack.containers("service")[1]
    stop = ("stop", "--time", "45", leaving)
    done = load_during(lambda: stack.engine(*stop), URL, clients, frames=clients, after_s=1)
    stack.engine("start", leaving)
    stack.wait_for_replicas(REPLICAS)
    return seen(done)


def rolled(stack: Stack, requests: int = ROLLING, clients: int = 6) -> dict[str, Any]:
    """Restart all replicas in turn with the shipped script, under at least so many requests."""
    first = _starts(stack)
    restart = subprocess.Popen(
        [ROOT / "docker" / "rolling_restart.sh", "service"],
        env={**stack.engine.environment, "ENGINE": stack.engine.program, "COMPOSE_PROJECT_NAME": PROJECT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def goes_on(sent: int) -> bool:
        return sent < requests or restart.poll() is None

    try:
        done = load(URL, clients, goes_on, frames=clients)
    finally:
        printed, _ = restart.communicate(timeout=600)
    restarted = len(set(_starts(stack)) - set(first))
    return seen(done) | {"restarted": restarted, "code": restart.returncode, "printed": printed}


def _starts(stack: Stack) -> list[str]:
    return [stack.inspect(one, "{{.State.StartedAt}}") for one in stack.containers("service")]


def remembered(stack: Stack, start: int, has_names: bool, clients: int = 6) -> dict[str, Any]:
    """Ask several questions about each frame, mixed; count the answers from frames that were remembered.

    start: the first frame, which nobody may have asked about before. has_names: whether requests name frames.
    """
    requests = _about(range(start, start + FRAMES), has_names)
    done = load_with(URL, clients, lambda sent: sent < len(requests), requests)
    share = round(done.remembered / len(requests), 3)
    return seen(done) | {"frames": FRAMES, "questions": QUESTIONS, "remembered": share}


def _about(frames: Sequence[int], has_names: bool) -> list[Request]:
    """Return questions about frames in an order of chance, always the same."""
    requests = [
        Request(one.path, one.body, one.label, frame_id=_name(index) if has_names else "")
        for index in frames
        for one in (ask(index, "tosa 0.25", question=number) for number in range(QUESTIONS))
    ]
    Random(0).shuffle(requests)
    return requests


def _name(index: int) -> str:
    return hashlib.sha256(view(index).image).hexdigest()
