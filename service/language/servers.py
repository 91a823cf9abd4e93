"""The language servers of the settings: which of them can answer, and which of these gets a prompt.

All of it belongs to the event loop of the language thread, but for what is said to be read by any thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from service.language.client import LanguageClient
from service.language.faults import Fault

log = logging.getLogger("tosa_vqa")

ASK_UP_S = 10.0
ASK_DOWN_S = 1.0
ASK_WRONG_S = 15.0
"""Time between two questions of how a server is: while it answers, while it does not, and while it is not the
server that was meant."""
HEALTH_TIMEOUT_S = 5.0
MAX_AHEAD = 4
"""Prompts that the server of a picture may have more than the least busy one, and still gets the next."""


@dataclass(eq=False)
class Server:
    """Hold what is known of one server.

    fault: why it gets no prompts, None if it does. model: its name there. max_tokens: longest prompt with its
    answer, None where it does not say. keeps_grammars: whether it keeps answers inside a grammar. running:
    answers of ours that it writes.
    """

    url: str
    fault: Fault | None = field(default_factory=lambda: Fault("language_down", "not asked yet"))
    model: str = ""
    max_tokens: int | None = None
    keeps_grammars: bool = False
    running: int = 0
    heard_s: float = 0.0  # perf_counter: when it last sent something
    ask_now: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self) -> None:
        """Record that the server sends something."""
        self.heard_s = perf_counter()

    def failed(self, fault: Fault) -> None:
        """Take the server out if the fault says so, and ask soon how it is."""
        if fault.kind.is_out:
            self.is_now(fault)
        self.ask_now.set()

    def is_now(self, fault: Fault | None) -> None:
        """Record how the server is; the log gets what changes."""
        before = None if self.fault is None else self.fault.code
        if fault is None and before is not None:
            log.info("language server %s answers (model %s)", self.url, self.model)
        elif fault is not None and fault.code != before:
            log.warning("language server %s is out: %s", self.url, fault)
        self.fault = fault


class Servers:
    """Ask the servers how they are, now and then, and choose among those that answer.

    model: the name of the model on them, None for the first that one lists. verify: called with each server
    that answers again, before it gets prompts; raises Fault.
    """

    def __init__(
        self,
        urls: Sequence[str],
        client: LanguageClient,
        model: str | None,
        verify: Callable[[Server], Awaitable[None]],
    ) -> None:
        self.all = tuple(Server(url) for url in urls)
        self._client, self._model, self._verify = client, model, verify

    @property
    def up(self) -> int:
        """Count the servers that answer; any thread."""
        return sum(server.fault is None for server in self.all)

    @property
    def max_tokens(self) -> int | None:
        """Return the longest prompt with its answer that all servers take, None if none says; any thread."""
        known = [server.max_tokens for server in self.all if server.max_tokens is not None]
        return min(known, default=None)

    @property
    def without_grammars(self) -> list[Server]:
        """Return the servers that keep no answer inside a grammar."""
        return [server for server in self.all if not server.keeps_grammars]

    def require_one(self, tried: Collection[Server] = ()) -> list[Server]:
        """Return the servers that answer and were not tried yet; any thread.

        Raises Fault if there is none: why the one that may come back first does not answer.
        """
        free = [server for server in self.all if server.fault is None and server not in tried]
        if not free:
            faults = [server.fault for server in self.all if server.fault is not None]
            soonest = min(
                faults, key=lambda fault: fault.kind.retry_after_s or 60, default=Fault("language_down")
            )
            raise soonest.again()
        return free

    def choose(self, affinity: bytes, tried: Collection[Server] = ()) -> Server:
        """Choose the server that had the same picture before, or the least busy one if that has more to do.

        Raises Fault if none is left.
        """
        free = self.require_one(tried)
        own = max(free, key=lambda server: hashlib.sha256(affinity + server.url.encode()).digest())
        idlest = min(free, key=lambda server: server.running)
        return own if own.running <= idlest.running + MAX_AHEAD else idlest

    async def watch(self) -> None:
        """Ask all servers how they are, for ever."""
        async with asyncio.TaskGroup() as group:
            for server in self.all:
                group.create_task(self._watch(server))

    async def _watch(self, server: Server) -> None:
        while True:
            server.ask_now.clear()
            try:
                server.is_now(await self._ask(server))
            except Exception as error:
                log.error("language server %s cannot be asked how it is", server.url, exc_info=error)
                server.is_now(Fault("language_failed", type(error).__name__))
            await _set_within(server.ask_now, _interval_s(server.fault))

    async def _ask(self, server: Server) -> Fault | None:
        """Ask whether a server is well and, if it was out, what it serves."""
        was_up, asked_s = server.fault is None, perf_counter()
        try:
            await self._client.get(server.url + "/health", HEALTH_TIMEOUT_S)
            if not was_up:
                if server.fault is not None and server.fault.code == "language_down":
                    server.fault = Fault("language_restarting", "it is being checked")
                await self._read_model(server)
                await self._verify(server)
        except Fault as fault:
            is_only_slow = fault.code == "language_slow" and was_up and server.heard_s > asked_s
            return None if is_only_slow else fault
        return None

    async def _read_model(self, server: Server) -> None:
        """Read the name of the model and its limit. Raises Fault."""
        try:
            listed = json.loads(await self._client.get(server.url + "/v1/models", HEALTH_TIMEOUT_S))["data"]
            known: dict[str, Any] = {str(one["id"]): one for one in listed}
        except (ValueError, KeyError, TypeError):
            raise Fault("language_garbled", "/v1/models of another form") from None
        name = self._model or next(iter(known), None)
        if name is None or name not in known:
            raise Fault(
                "language_wrong_model", f"it serves {', '.join(known) or 'nothing'}, not {self._model}"
            )
        most = known[name].get("max_model_len")
        server.model, server.max_tokens = name, most if isinstance(most, int) and most > 1 else None


def _interval_s(fault: Fault | None) -> float:
    if fault is None:
        return ASK_UP_S
    return ASK_DOWN_S if (fault.kind.retry_after_s or ASK_WRONG_S) < ASK_WRONG_S else ASK_WRONG_S


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
