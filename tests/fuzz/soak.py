"""Keep a service busy for minutes: right answers, no growth of memory, file handles or threads.

`python -m tests.fuzz.soak --minutes 5`; mixed methods and ways of asking, a fifth of them damaged bodies, a
fifth clients that leave. Every answer is compared with what the same question hears alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np

from tests.depth.files import png8, png16
from tests.fuzz.campaign import resident_mib
from tests.fuzz.http import attack, judge
from tests.loopback import PATIENCE_S, wait_for
from tests.service.conftest import Question
from tests.service.live import Live, live, raw_question
from tests.service.test_streams import events_of

METHODS = ("none", "tome", "tosa", "tofu", "pitome", "cubist", "random", "pool")
WAYS = ("mutant", "leave", "plain", "form", "stream", "uncached", "late", "plain", "mutant", "leave")
CLIENTS = 6
EXPECTED = ("overloaded", "deadline_exceeded")
SETTINGS: dict[str, Any] = {"max_queue": 16, "max_batch": 8, "max_answer_tokens": 16, "frame_cache_mib": 1}


@dataclass(frozen=True)
class Known:
    """A question, and the answer it gets alone."""

    asked: Question
    answer: str


@dataclass(frozen=True)
class Held:
    """What the process holds on to while nothing goes on."""

    memory_mib: float
    files: int
    threads: int


@dataclass
class Report:
    """What was seen; `memory_mib` over time, in seconds."""

    seen: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    memory_mib: list[tuple[float, float]] = field(default_factory=list)
    before: Held | None = None
    after: Held | None = None

    @property
    def slope_mib_per_minute(self) -> float:
        """Fit a line to the second half."""
        later = np.array(self.memory_mib[len(self.memory_mib) // 2 :])
        return float(np.polyfit(later[:, 0] / 60, later[:, 1], 1)[0]) if len(later) > 2 else 0.0

    def faults(self, growth_mib: float, slope_mib_per_minute: float) -> list[str]:
        """Return what is wrong, with bounds for memory."""
        assert self.before is not None and self.after is not None, "the soak has ended"
        grown = self.after.memory_mib - self.before.memory_mib
        found = self.failures[:10]
        if grown > growth_mib:
            found.append(f"memory grew by {grown:.1f} MiB")
        if self.slope_mib_per_minute > slope_mib_per_minute:
            found.append(f"memory grows by {self.slope_mib_per_minute:.1f} MiB a minute")
        if abs(self.after.files - self.before.files) > 2:
            found.append(f"{self.before.files} files open before, {self.after.files} after")
        if self.after.threads != self.before.threads:
            found.append(f"{self.before.threads} threads before, {self.after.threads} after")
        return found

    def lines(self) -> Iterator[str]:
        """Describe the run for people."""
        yield f"{sum(self.seen.values())} requests: " + ", ".join(
            f"{a} {b}" for a, b in self.seen.most_common()
        )
        yield f"before {self.before}"
        yield f"after  {self.after}, {self.slope_mib_per_minute:+.2f} MiB a minute in the second half"


def soak(
    served: Live, known: list[Known], warm_s: float, seconds: float, seed: int, requests: int = 0
) -> Report:
    """Ask until the time is over and that many requests have ended.

    What is held is measured after `warm_s` and at the end, both times idle.
    """
    report = Report()
    _fill_pool(served)
    _busy(served, known, warm_s, 0, seed, Report())
    report.before = _held(served)
    _busy(served, known, seconds, requests, seed + 1000, report)
    report.after = _held(served)
    return report


def learn(served: Live, number: int = 24) -> list[Known]:
    """Make questions about pictures of their own, and ask each alone."""
    return [_known(served, seed) for seed in range(number)]


def _known(served: Live, seed: int) -> Known:
    rng = np.random.default_rng(seed)
    frames = 1 + seed % 2
    asked = Question(
        tuple(png8(rng.integers(0, 256, (48, 64, 3))) for _ in range(frames)),
        (png16(rng.integers(300, 9000, (48, 64)).astype(np.uint16)),) * frames,
    ).but(question="how many " * (1 + seed % 3), method=METHODS[seed % len(METHODS)], max_new_tokens=12)
    return Known(asked, asked.but(cache=False).post(served.client, "json").json()["answer"])


def _busy(served: Live, known: list[Known], seconds: float, requests: int, seed: int, report: Report) -> None:
    end, lock = time.monotonic() + seconds, threading.Lock()

    def work(client: int) -> None:
        rng = Random(seed + client)
        with httpx.Client(base_url=served.client.base_url, timeout=PATIENCE_S) as asking:
            while time.monotonic() < end or report.seen.total() < requests:
                how = rng.choice(WAYS)
                outcome = _one(served, asking, how, known, rng)
                with lock:
                    report.seen[f"{how}: {outcome}"] += 1
                    if outcome not in ("ok", *EXPECTED):
                        report.failures.append(f"{how}: {outcome}")

    clients = [threading.Thread(target=work, args=(client,)) for client in range(CLIENTS)]
    for client in clients:
        client.start()
    start = time.monotonic()
    while any(client.is_alive() for client in clients):
        report.memory_mib.append((time.monotonic() - start, resident_mib()))
        time.sleep(0.5)


def _one(served: Live, client: httpx.Client, how: str, known: list[Known], rng: Random) -> str:
    """Ask in one of several ways; return ok, what is wrong, or the code of a refusal."""
    one = rng.choice(known)
    match how:
        case "mutant":
            bad = attack(rng)
            headers = [(b"Content-Type", bad.kind.encode("latin-1"))] if bad.kind else []
            response = client.post(bad.path, content=bad.body, headers=headers)
            return (
                judge(bad.path, response.status_code, response.headers["x-request-id"], response.content)
                or "ok"
            )
        case "leave":
            data = raw_question(one.request.but(stream=rng.random() < 0.5))
            with served.connect() as connection:
                connection.sendall(data[: rng.choice((len(data), rng.randrange(len(data))))])
                time.sleep(rng.uniform(0, 0.1))
            return "ok"
        case "stream":
            response = one.request.but(stream=True).post(client, "multipart")
            said = events_of(response.text)[-1][1] if response.status_code == 200 else response.json()
        case _:
            changes = {"uncached": {"cache": False}, "late": {"timeout_s": 0.02}}.get(how, {})
            said = one.request.but(**changes).post(client, "multipart" if how == "form" else "json").json()
    if "error" in said:
        return said["error"]["code"]
    return "ok" if said["answer"] == one.answer else "wrong answer"


def _fill_pool(served: Live) -> None:
    """Start every thread of the decoders' pool: it starts one whenever none is free, however late that is."""
    number = served.state.settings.decode_threads
    all_there = threading.Barrier(number)
    for running in [
        asyncio.run_coroutine_threadsafe(served.state.engine.decode(all_there.wait, PATIENCE_S), served.loop)
        for _ in range(number)
    ]:
        running.result(PATIENCE_S)


def _held(served: Live) -> Held:
    model = served.state.engine.model_thread
    wait_for(lambda: served.in_flight == model.waiting == model.running == 0)
    served.client.get("/livez")
    time.sleep(0.3)
    gc.collect()
    return Held(resident_mib(), len(os.listdir("/proc/self/fd")), threading.active_count())


def main() -> int:
    """Soak a service with a tiny random model; fail if anything went wrong or grew."""
    from tests.vlm.conftest import write_checkpoint

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_checkpoint(Path(folder) / "tiny")
        with live(model, **SETTINGS) as served:
            report = soak(served, learn(served), 6 * asked.minutes, 54 * asked.minutes, asked.seed)
    print("\n".join(report.lines()))
    faults = report.faults(growth_mib=64, slope_mib_per_minute=4)
    print("\n".join(faults) or "nothing wrong")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
