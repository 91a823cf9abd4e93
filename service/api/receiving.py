"""How a request with a body begins: it is checked, read, and given a slot until its response is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from service.api.body import content_type, refuse_query
from service.api.lifecycle import in_thread, read_body, request_scope, service_state
from service.api.request_context import RequestContext
from service.api.state import ServiceState

T = TypeVar("T")


@dataclass(frozen=True)
class Received:
    """Hold a request whose body has been read.

    kind: media type and multipart boundary. held: what lasts until the response is sent, its slot among it.
    """

    context: RequestContext
    state: ServiceState
    kind: tuple[bytes, bytes]
    body: bytes
    held: AsyncExitStack

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run CPU work in a decoding thread."""
        return await in_thread(self.context, self.state, work)

    def more_slots(self, wanted: int) -> int:
        """Take up to `wanted` slots in all, as server and key allow; return how many those are."""
        slots = min(wanted, self.state.engine.admission.slots)
        width = self.state.budgets.most_slots(self.context.key, slots)
        self.held.enter_context(self.state.budgets.acquire(self.context.key, width - 1))
        self.held.enter_context(self.state.engine.admission.acquire(width - 1))
        return width


@asynccontextmanager
async def receive(
    request: Request,
    route: str,
    fields: type[BaseModel] | None,
    *,
    json_only: bool = False,
    needs_models: bool = True,
) -> AsyncIterator[Received]:
    """Read a request and take a slot; refuse what no body can mend before it is read. Raises ServiceError.

    fields: names those of the body, where queries are refused. needs_models: refuse until they are loaded.
    """
    state = service_state(request)
    async with AsyncExitStack() as held:
        context = await held.enter_async_context(request_scope(request, route))
        if fields is not None:
            refuse_query(request, fields)
        kind = content_type(request, json_only=json_only)
        if needs_models:
            state.models()
        body = await read_body(context, request, held)
        yield Received(context, state, kind, body, held)
