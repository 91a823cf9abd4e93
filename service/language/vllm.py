"""Servers of vllm read the prompts and write the answers; this process sends them embeddings.

The model thread embeds the prompts and goes on with the next pictures. A thread of its own, with an event
loop, sends them, follows the answers and tells their listeners.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from threading import Thread
from typing import Any

import httpx2

from service.errors import ServiceError
from service.language.client import LanguageClient
from service.language.faults import Fault, Stale, of_transport
from service.language.following import is_stopped, refusal
from service.language.forms import form_of
from service.language.grammars import GrammarCheck
from service.language.probe import WeightsCheck
from service.language.protocol import LanguageObserver, Listener, Reading
from service.language.servers import Server, Servers
from service.language.wire import Received, events, request_fields
from service.settings import Settings
from vlm import GeneratedSequence, Vlm, VlmError

log = logging.getLogger("tosa_vqa")

LAST_EVENTS_S = 1.0
"""Wait for the end of a response whose answer is there: it brings counts and times."""
CHECK_TIMEOUT_S = 300.0
"""For one known prompt: the first probabilities that a new server gives can take half a minute."""


class VllmLanguage:
    """Send prompts to the servers that the settings name, and to no other address.

    Raises VlmError for known answers that cannot be used.
    """

    is_here = False

    def __init__(self, vlm: Vlm, settings: Settings, observer: LanguageObserver) -> None:
        self._vlm, self._observer = vlm, observer
        self._eos, self._size = vlm.eos_token_ids, vlm.text_config.vocab_size
        self._client = LanguageClient(settings)
        self._form = form_of(vlm)
        encode = self._form.encode
        self._verify_weights = WeightsCheck(vlm, settings.language_probe, encode)
        # None where the tokens are whole words: only here can the rest of a text be written between them.
        self._verify_grammars = None if vlm.vocabulary.matching is None else GrammarCheck(vlm, encode)
        urls = settings.language_addresses
        self._servers = Servers(urls, self._client, settings.language_model, self._verify)
        self._tasks: dict[asyncio.Task[None], Listener] = {}
        self._is_closing = False
        self._writers = ThreadPoolExecutor(1, "language-writer")
        self._loop = asyncio.new_event_loop()
        for name, description, read in (
            ("language_running", "Prompts at language servers", lambda: self.running),
            ("language_servers_up", "Language servers that answer", lambda: self._servers.up),
        ):
            observer.watch(name, description, read)
        self._thread = Thread(target=self._run, name="language", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Count the prompts that are at servers, or on their way there."""
        return len(self._tasks)

    def begin(self, readings: Sequence[Reading]) -> Iterator[None]:
        """Embed prompts and hand them over; ends at once."""
        ready: list[tuple[Reading, Any]] = []
        for reading in readings:
            try:
                self.check(reading.prompt.shape[1])
            except (ServiceError, VlmError) as error:
                reading.listener.fail(error)
                continue
            ready.append((reading, self._form.prompt(reading)))
        if self._is_closing:
            for reading, _ in ready:
                reading.listener.fail(_closed())
        else:  # all of them, when nothing can fail any more
            self._loop.call_soon_threadsafe(self._start, ready)
        return iter(())

    def why_no_grammar(self, with_logprobs: bool) -> str | None:
        """Say whether it is the model, the servers, or probabilities, which they count among what fits."""
        if self._verify_grammars is None:
            return "words"
        if not any(server.keeps_grammars for server in self._servers.all if server.fault is None):
            return "servers"
        return "logprobs" if with_logprobs else None

    def check(self, prompt_tokens: int = 0) -> None:
        """Refuse a prompt if no server answers or none has room for it."""
        try:
            self._servers.require_one()
        except Fault as fault:
            raise fault.refusal() from None
        most = self._max_tokens - 1
        if prompt_tokens > most:
            message = (
                f"the prompt has {prompt_tokens} tokens with its images and the language server takes "
                f"{most}: shorten the question or keep fewer visual tokens."
            )
            raise VlmError("prompt_too_long", message, limit=most)

    def close(self, timeout_s: float | None = None) -> bool:
        """Abort every answer and end the thread; return whether it has ended."""
        self._is_closing = True
        with suppress(RuntimeError):  # closed before
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout_s)
        self._writers.shutdown(wait=False, cancel_futures=True)
        return not self._thread.is_alive()

    @property
    def _max_tokens(self) -> int:
        most = self._servers.max_tokens
        return self._vlm.max_tokens if most is None else min(most, self._vlm.max_tokens)

    def _run(self) -> None:
        watching = self._loop.create_task(self._servers.watch())
        try:
            self._loop.run_forever()
        finally:
            open_tasks = [watching, *self._tasks]
            for task in open_tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*open_tasks, return_exceptions=True))
            self._loop.run_until_complete(self._client.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _start(self, ready: Sequence[tuple[Reading, Any]]) -> None:
        for reading, prompt in ready:
            if self._is_closing:
                reading.listener.fail(_closed())
                continue
            task = self._loop.create_task(self._answer(reading, prompt))
            self._tasks[task] = reading.listener
            task.add_done_callback(self._tasks.pop)
            reading.listener.on_close(lambda task=task: self._cancel(task))

    def _cancel(self, task: asyncio.Task[None]) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(task.cancel)

    async def _answer(self, reading: Reading, prompt: Any) -> None:
        """Write all answers to one prompt; whatever fails fails it alone."""
        try:
            part = await self._loop.run_in_executor(self._writers, self._form.part, prompt)
            async with asyncio.TaskGroup() as group:
                for choice in range(len(reading.params)):
                    group.create_task(self._write(reading, choice, part))
        except asyncio.CancelledError:
            reading.listener.fail(_closed())  # unless it has ended already
            raise
        except Exception as error:
            reading.listener.fail(refusal(error))

    async def _write(self, reading: Reading, choice: int, prompt: bytes) -> None:
        """Write one answer; other servers are asked as long as nothing of it was passed on."""
        tried = set(self._servers.without_grammars) if reading.params[choice].grammar is not None else set()
        fault: Fault | None = None
        while True:
            try:
                server = self._servers.choose(reading.affinity, tried)
            except Fault as none_left:
                raise fault or none_left from None
            try:
                return await self._ask(server, reading, choice, prompt)
            except asyncio.CancelledError:
                self._observer.language_ended("aborted", 0, None)
                raise
            except Fault as caught:
                fault = caught
            log.warning("language server %s did not answer: %s", server.url, fault)
            self._observer.language_ended(fault.code, 0, None)
            server.failed(fault)
            tried.add(server)
            if not fault.kind.elsewhere or not reading.listener.may_repeat(choice):
                raise fault
            reading.listener.repeat(choice)

    async def _ask(self, server: Server, reading: Reading, choice: int, prompt: bytes) -> None:
        """Let a server write one answer. Raises Fault."""
        params, tokens = reading.params[choice], reading.prompt.shape[1]
        most = min(params.max_new_tokens, self._max_tokens - tokens)
        fields = request_fields(server.model, params, most, sorted(self._eos), reading.salt)
        body = self._form.body(prompt, fields)
        received = Received(GeneratedSequence(choice, tokens), params, most, self._size, self._eos)
        server.running += 1
        try:
            try:
                await self._follow(server, body, received, reading.listener)
            except Stale:  # a connection that the server closed at this moment: a new one shows how it is
                await self._follow(server, body, received, reading.listener)
        finally:
            server.running -= 1
        self._observer.language_ended("ok", tokens, received.cached_tokens)

    async def _follow(self, server: Server, body: bytes, received: Received, listener: Listener) -> None:
        try:
            async with (
                self._client.stream(server.url + self._form.path, body) as response,
                aclosing(response.aiter_raw()) as pieces,  # here, and not whenever the collector finds them
                aclosing(events(pieces, self._form.event)) as arriving,
            ):
                listener.accepted()
                if await is_stopped(server, arriving, received, listener):
                    return  # closing the connection ends the answer there
                with suppress(Fault, httpx2.HTTPError, TimeoutError):
                    async with asyncio.timeout(LAST_EVENTS_S):
                        async for event in arriving:
                            received.steps(event)
        except httpx2.HTTPError as error:
            if received.row.finish_reason is None:
                raise of_transport(error, has_begun=True) from None
        listener.read()
        if received.waited_s is not None:
            listener.waited(received.waited_s)
        listener.take(received.row.index, received.row)

    async def _verify(self, server: Server) -> None:
        """Check the weights of a server, and whether it keeps answers inside grammars. Raises Fault."""

        async def post(fields: dict[str, Any]) -> dict[str, Any]:
            asked = self._form.asked({"model": server.model, **fields})
            answer = await self._client.post(server.url + self._form.path, asked, CHECK_TIMEOUT_S)
            try:
                return self._form.event(json.loads(answer))
            except ValueError:
                raise Fault("language_garbled", "an answer that is no JSON") from None

        await self._verify_weights(post)
        if self._verify_grammars is not None:
            reason = await self._verify_grammars(post)
            server.keeps_grammars = reason is None
            if reason is not None:
                log.warning("language server %s keeps no answer inside a schema: %s", server.url, reason)


def _closed() -> ServiceError:
    return ServiceError("not_ready", reason="failed", retry_after_s=5)
