"""Follow one answer as its events arrive; what arrives together is passed on together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

from service.errors import ServiceError
from service.language.faults import Fault
from service.language.protocol import Listener
from service.language.servers import Server
from service.language.wire import Received
from vlm import GeneratedSequence, VlmError

log = logging.getLogger("tosa_vqa")

TURN_S = 0.001
"""What one answer may take of the event loop at a time: one read may bring hundreds of events."""


async def is_stopped(
    server: Server, arriving: AsyncIterator[dict[str, Any]], received: Received, listener: Listener
) -> bool:
    """Follow an answer until its row has ended; return True if a stop sequence ended it before.

    Raises Fault.
    """
    row, turn_s = received.row, perf_counter()
    passing = Passing(row, listener)
    try:
        async for event in arriving:
            server.hear()
            for step in received.steps(event):
                listener.read()
                received.append(step)
                if row.finish_reason is not None:
                    return False
                if passing.pass_on():
                    return True
            if received.end():
                return False
            if perf_counter() - turn_s > TURN_S:
                await asyncio.sleep(0)
                turn_s = perf_counter()
    finally:
        passing.drop()
    raise Fault("language_incomplete", "the response ended before the answer")


class Passing:
    """Pass a row on: its first token at once, later ones once the loop gets to it.

    Tokens of one read are then one piece of text. With a piece for each, every one woke another thread, and
    with 200 streams the loop did little else. A listener that needs every token hears of each.
    """

    def __init__(self, row: GeneratedSequence, listener: Listener) -> None:
        self._row, self._listener = row, listener
        self._needs_tokens, self._is_first = listener.needs_tokens, True
        self._soon: asyncio.Handle | None = None

    def pass_on(self) -> bool:
        """Pass the row on, now or soon; return True if a stop sequence ends it."""
        if self._is_first or self._needs_tokens:
            self._is_first = False
            return self._listener.take(self._row.index, self._row)
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._take)
        return False

    def drop(self) -> None:
        """Pass nothing on any more."""
        if self._soon is not None:
            self._soon.cancel()

    def _take(self) -> None:
        self._soon = None
        try:
            self._listener.take(self._row.index, self._row)
        except Exception as error:
            self._listener.fail(refusal(error))


def refusal(error: Exception) -> Exception:
    """Return what to tell the client; of several errors that of the first."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Fault):
        return error.refusal()
    if not isinstance(error, ServiceError | VlmError):
        log.error("an answer of a language server could not be followed", exc_info=error)
        return ServiceError("internal")
    return error
