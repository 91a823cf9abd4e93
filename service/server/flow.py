"""Flow control of connections: turns for parsing, and when reading pauses."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl

TURN_S = 0.005
HIGH_WATER_BYTES = 512 * 1024
"""Reading pauses while more than this waits to be parsed or to be read by the application.

Twice what asyncio reads at once, so that a body whose application reads along never pauses its connection.
"""
log = logging.getLogger("tosa_vqa")


class Parsing(Protocol):
    """A connection with more data than it may parse in one turn."""

    transport: asyncio.Transport

    def parse(self) -> bool:
        """Parse the next piece; return whether no further turn is needed."""
        ...


class Turns:
    """Let connections parse what has arrived one after the other, for a few milliseconds at a time."""

    def __init__(self) -> None:
        self._waiting: deque[Parsing] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, connection: Parsing, loop: asyncio.AbstractEventLoop) -> None:
        """Let a connection parse in one of the next turns."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            loop.call_soon(self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        end = perf_counter() + TURN_S
        while self._waiting:
            connection = self._waiting[0]
            try:
                is_done = connection.parse()
            except Exception:  # the others must have their turns all the same
                log.exception("a connection could not be read")
                connection.transport.abort()
                is_done = True
            self._waiting.rotate(-1)
            if is_done:
                self._waiting.pop()
            if perf_counter() > end:
                break
        if self._waiting:
            loop.call_soon(self._run, loop)


class Flow(FlowControl):
    """Pause reading only while more than HIGH_WATER_BYTES wait, whatever uvicorn asks for."""

    def __init__(self, transport: asyncio.Transport, waiting_bytes: Callable[[], int]) -> None:
        super().__init__(transport)
        self._waiting_bytes = waiting_bytes

    def adjust(self) -> None:
        """Pause or resume; uvicorn resumes the transport by itself between two requests."""
        if self._transport.is_closing():
            return
        if self._waiting_bytes() > HIGH_WATER_BYTES:
            self.read_paused = True
            self._transport.pause_reading()
        elif self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_reading(self) -> None:
        self.adjust()

    def resume_reading(self) -> None:
        self.adjust()
