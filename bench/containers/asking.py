"""Questions over kept-alive connections, and what became of each."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from bench.load.corpus import body_of
from bench.load.generator import Target, send
from bench.load.requests import Request, Sample
from bench.waiting import PATIENCE_S, START_S, wait_for


@dataclass(frozen=True)
class Load:
    """What was sent. `lost`: accepted and never answered in whole; `unsent`: nobody took the connection.

    seconds: from the first request to the last answer. by_client: answers with 200, by client.
    """

    samples: Sequence[Sample]
    seconds: float
    by_client: Sequence[int]

    @property
    def statuses(self) -> Counter[int]:
        return Counter(one.status for one in self.samples if one.status is not None)

    @property
    def lost(self) -> list[str]:
        return [one.lost for one in self.samples if one.lost and not one.lost.startswith("connect")]

    @property
    def unsent(self) -> int:
        return sum(1 for one in self.samples if one.lost and one.lost.startswith("connect"))

    @property
    def rate(self) -> float:
        """Return answers with 200 a second."""
        return self.statuses[200] / self.seconds

    @property
    def remembered(self) -> int:
        """Return how many answers came from a frame that the replica had encoded before."""
        return sum(one.answer().get("cached") is True for one in self.samples)


def question(index: int = 0, mode: str = "none") -> Request:
    """Return a question about frame `index` of the test rooms."""
    return Request("/vqa", body_of(index, mode), mode)


async def loaded(url: str, clients: int, goes_on: Callable[[int], bool], requests: Sequence[Request]) -> Load:
    """Let clients ask, each the next question when it has an answer, while `goes_on(number sent)`.

    A client stops when nobody takes its connection.
    """
    target, samples, sent, began = Target.of(url), list[Sample](), 0, time.perf_counter()

    async def client() -> int:
        nonlocal sent
        answered = 0
        while goes_on(sent):
            request, sent = requests[sent % len(requests)], sent + 1
            one = await send(target, request, time.perf_counter())
            samples.append(one)
            answered += one.is_answer
            if one.lost and one.lost.startswith("connect"):
                break
        return answered

    by_client = await asyncio.gather(*(client() for _ in range(clients)))
    target.close()
    return Load(samples, time.perf_counter() - began, by_client)


def load(url: str, clients: int, goes_on: Callable[[int], bool], frames: int = 1, mode: str = "none") -> Load:
    """Let clients ask one question about each of these frames, again and again."""
    return load_with(url, clients, goes_on, [question(index, mode) for index in range(frames)])


def load_with(url: str, clients: int, goes_on: Callable[[int], bool], requests: Sequence[Request]) -> Load:
    return asyncio.run(loaded(url, clients, goes_on, requests))


def load_during(action: Callable[[], object], url: str, clients: int, frames: int, after_s: float) -> Load:
    """Load a service until an action has ended, which begins after some seconds of load."""
    acting = threading.Timer(after_s, action)
    acting.start()
    done = load(url, clients, lambda _: acting.is_alive(), frames)
    acting.join()
    return done


def ask(url: str) -> httpx.Response:
    """Ask one question about the first frame."""
    request = question()
    headers = {"Content-Type": request.content_type}
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
        return client.post(f"{url}/vqa", content=request.body, headers=headers)


def wait_until_answered(url: str, timeout_s: float = START_S) -> httpx.Response:
    """Ask until there is an answer, as soon as somebody listens."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        try:
            reply = ask(url)
        except httpx.TransportError:
            return False
        answers.append(reply)
        return reply.status_code == 200

    wait_for(answered, timeout_s)
    return answers[-1]
