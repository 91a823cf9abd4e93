"""The context of one request: its progress, its deadline, its costs, and whether it is still active.

Used by the event loop; `is_active` may be read from any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Literal, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.budgets import Costs
from service.engine.jobs import RequestCancelled
from service.errors import ServiceError
from service.pipeline.response_models import VqaResponse
from service.timing import StageTimer

Where = Literal["admission", "body", "decode", "queue", "model", "stream", "done"]
CancelReason = Literal["disconnect", "deadline", "shutdown", "crowd"]

T = TypeVar("T")


class RequestContext:
    """One request, from its first byte to the end of its response. Times are seconds of `perf_counter`.

    `request_id` may be the client's own and is only ever echoed. `first_byte_s` is when the first byte of the
    request's head arrived; None, under a server that does not say: now.
    """

    def __init__(
        self, route: str, request_id: str, timeout_s: float, first_byte_s: float | None = None
    ) -> None:
        self.route, self.request_id = route, request_id
        self.arrived = perf_counter() if first_byte_s is None else first_byte_s
        self.deadline = self.arrived + timeout_s
        self.key: str | None = None
        self.where: Where = "admission"
        self.timer = StageTimer(began_s=self.arrived)
        self.question: str | None = None
        self.method: str | None = None
        self.costs: list[Costs] = []
        self.answers: list[VqaResponse] = []
        self._cancel_reason: CancelReason | None = None
        self._cancelled = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        left_s = self.deadline - perf_counter()
        self._alarm = self._loop.call_later(max(0.0, left_s), self.cancel, "deadline")

    @property
    def is_active(self) -> bool:
        """Return whether the client waits and the deadline has not passed."""
        return self._cancel_reason is None and perf_counter() < self.deadline

    @property
    def units(self) -> float:
        """Return the budget units used so far: one per megapixel decoded and one per 100 tokens."""
        return sum(cost.units for cost in self.costs)

    def tighten_deadline(self, timeout_s: float | None) -> None:
        """Answer within `timeout_s` of the arrival, if that is sooner than the server's limit; any thread."""
        if timeout_s is not None:
            self.deadline = min(self.deadline, self.arrived + timeout_s)
            self._loop.call_soon_threadsafe(self._set_alarm)

    def cancel(self, why: CancelReason) -> None:
        """Cancel the request; its work stops at its next check of `is_active`."""
        self._alarm.cancel()
        self._cancel_reason = self._cancel_reason or why
        self._cancelled.set()

    def check(self) -> None:
        """Raise RequestCancelled unless the request is active; any thread."""
        if not self.is_active:
            raise RequestCancelled

    @asynccontextmanager
    async def watching(self, receive: Receive) -> AsyncIterator[None]:
        """Cancel the request when the client disconnects; enter once the body has been read."""
        watcher = asyncio.create_task(self._watch(receive))
        try:
            yield
        finally:
            watcher.cancel()

    async def wait(self, work: Awaitable[T]) -> T:
        """Wait for work until the request is cancelled or its deadline passes.

        Raises ClientDisconnect, and ServiceError deadline_exceeded, draining or overloaded; the work is then
        cancelled.
        """
        task = asyncio.ensure_future(work)
        cancelled = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait((task, cancelled), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return await task
        except RequestCancelled:  # the work found the deadline before the timer fired
            self.cancel("deadline")
        finally:
            cancelled.cancel()
            task.cancel()
        raise self._why()

    def _why(self) -> Exception:
        match self._cancel_reason:
            case "disconnect":
                return ClientDisconnect()
            case "shutdown":
                return ServiceError("draining", retry_after_s=1)
            case "crowd":
                return ServiceError("overloaded", retry_after_s=1)
            case _:
                return ServiceError("deadline_exceeded")

    def _set_alarm(self) -> None:
        if self._cancel_reason is None:
            self._alarm.cancel()
            left_s = self.deadline - perf_counter()
            self._alarm = self._loop.call_later(max(0.0, left_s), self.cancel, "deadline")

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancel("disconnect")
