"""What one read brings is passed on together, and keeps no other answer waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.errors import ServiceError
from service.language import following
from service.language.faults import Fault
from service.language.following import is_stopped
from service.language.servers import Server
from service.language.wire import Received
from vlm import GeneratedSequence, GenerationParams

MANY = 50


class Hearer:
    """Listen to one answer, and keep how many tokens it had each time."""

    def __init__(self, needs_tokens: bool = False, stops_at: int = 10**6, fails: bool = False) -> None:
        self.needs_tokens, self._stops_at, self._fails = needs_tokens, stops_at, fails
        self.heard: list[int] = []
        self.error: Exception | None = None

    def read(self) -> None:
        pass

    def take(self, choice: int, row: GeneratedSequence) -> bool:
        self.heard.append(len(row.token_ids))
        if self._fails and len(self.heard) > 1:
            raise ValueError
        return len(row.token_ids) >= self._stops_at

    def fail(self, error: Exception) -> None:
        self.error = error


async def arriving(reads: int = 1, of: int = MANY, is_whole: bool = True) -> AsyncIterator[dict[str, Any]]:
    """Give events of one token; those of one read are all there at once."""
    for _ in range(reads):
        for _ in range(of):
            yield {"choices": [{"token_ids": [7], "finish_reason": None}]}
        await asyncio.sleep(0.001)
    if is_whole:
        yield {"choices": [{"token_ids": [5], "finish_reason": "stop"}]}


async def follow(listener: Any, events: AsyncIterator[dict[str, Any]]) -> bool:
    answer = Received(GeneratedSequence(0, 1), GenerationParams(10**6), 10**6, 100, frozenset({5}))
    try:
        return await is_stopped(Server("http://x"), events, answer, listener)
    finally:
        await asyncio.sleep(0.001)  # for what might still be passed on


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a turn last as long as it likes."""
    monkeypatch.setattr(following, "TURN_S", 60)


def test_the_first_token_is_passed_on_at_once_and_the_others_of_a_read_together(patient: None) -> None:
    hearer = Hearer()
    assert not asyncio.run(follow(hearer, arriving(3)))
    assert hearer.heard == [1, MANY, 2 * MANY, 3 * MANY]


def test_who_needs_every_token_hears_of_each(patient: None) -> None:
    hearer = Hearer(needs_tokens=True, stops_at=MANY - 10)
    assert asyncio.run(follow(hearer, arriving()))
    assert hearer.heard == list(range(1, MANY - 9))


def test_an_answer_that_breaks_is_not_passed_on_any_more(patient: None) -> None:
    """It may begin anew elsewhere, so that what was waiting would be heard twice."""

    async def cut() -> AsyncIterator[dict[str, Any]]:
        for _ in range(3):
            yield {"choices": [{"token_ids": [7], "finish_reason": None}]}

    hearer = Hearer()
    with pytest.raises(Fault, match="language_incomplete"):
        asyncio.run(follow(hearer, cut()))
    assert hearer.heard == [1]


def test_an_error_of_the_listener_fails_its_answer_alone(patient: None) -> None:
    hearer = Hearer(fails=True)
    asyncio.run(follow(hearer, arriving()))
    assert isinstance(hearer.error, ServiceError) and hearer.error.code == "internal"


def test_a_read_of_many_events_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 200 streams whose events come faster than they are followed, connecting took longer than 10 s."""
    monkeypatch.setattr(following, "TURN_S", 0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both() -> None:
        waiting = asyncio.create_task(others())
        await follow(Hearer(), arriving())
        waiting.cancel()

    asyncio.run(both())
    assert turns >= MANY
