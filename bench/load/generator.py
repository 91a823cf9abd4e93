"""Send requests on a schedule (open loop) or as fast as answers come (closed loop), in one process.

Open loop: the schedule does not wait for answers, so a slow server meets the same load as in production.
Connections are kept open between requests, as browsers and client libraries keep them.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from time import perf_counter
from urllib.parse import urlsplit

import h11

from bench.load.connection import Connection, NoResponse, Response
from bench.load.requests import Request, Sample

MAX_IDLE_S = 2.0
"""Servers close idle connections after some seconds; one that has been idle for this long is not reused."""


@dataclass
class Target:
    """A server, and the idle connections to it. key: an API key to send. opened: connections made so far."""

    name: str
    address: str
    port: int
    timeout_s: float = 60.0
    key: str | None = None
    opened: int = 0
    _idle: list[Connection] = field(default_factory=list)

    @classmethod
    def of(cls, url: str, timeout_s: float = 60.0, key: str | None = None) -> Target:
        """Read http://host:port, the only scheme that is supported; resolve the host once."""
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"the address must be http://host:port, not {url}")
        address = socket.gethostbyname(parts.hostname)
        return cls(parts.netloc, address, parts.port or 80, timeout_s, key)

    def head(self, request: Request) -> h11.Request:
        """Return the head of a request to this server."""
        headers = [("Host", self.name), *request.headers(self.key).items()]
        return h11.Request(method=request.method, target=request.path, headers=headers)

    async def open(self) -> Connection:
        """Open a separate connection, which is never reused. Raises NoResponse."""
        self.opened += 1
        return await Connection.open(self.address, self.port)

    async def exchange(self, request: Request, fresh: bool = False) -> Response:
        """Send one request and keep the connection if the server does. Raises NoResponse, TimeoutError."""
        async with asyncio.timeout(self.timeout_s):
            connection = None if fresh else self._reused()
            connection = connection or await self.open()
            try:
                response = await connection.exchange(self.head(request), request.body)
            except BaseException:
                connection.close()
                raise
        if connection.is_reusable and not fresh:
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _reused(self) -> Connection | None:
        while self._idle:
            kept = self._idle.pop()
            if perf_counter() - kept.idle_since_s < MAX_IDLE_S and kept.is_open:
                return kept
            kept.close()
        return None


async def send(target: Target, request: Request, due_s: float, fresh: bool = False) -> Sample:
    """Send one request now and return its sample."""
    sent = perf_counter()
    try:
        response = await target.exchange(request, fresh)
    except (NoResponse, TimeoutError) as error:
        lost = "timeout" if isinstance(error, TimeoutError) else str(error)
        return Sample(request.label, due_s, sent, perf_counter(), lost=lost)
    return Sample(request.label, due_s, sent, response.ended_s, response.status, response=response)


async def send_and_disconnect(target: Target, request: Request, due_s: float, after_s: float) -> Sample:
    """Send one request on its own connection and close it after `after_s`, unless the answer comes first."""
    sent = perf_counter()
    try:
        connection = await target.open()
    except NoResponse as error:
        return Sample(request.label, due_s, sent, perf_counter(), lost=str(error))
    try:
        async with asyncio.timeout(after_s):
            response = await connection.exchange(target.head(request), request.body)
    except TimeoutError:
        return Sample(request.label, due_s, sent, perf_counter())
    except NoResponse as error:
        return Sample(request.label, due_s, sent, perf_counter(), lost=str(error))
    finally:
        connection.close()
    return Sample(request.label, due_s, sent, response.ended_s, response.status, response=response)


async def open_loop(
    target: Target, requests: Iterable[Request], moments: Iterable[float], fresh: bool = False
) -> list[Sample]:
    """Send each request at its time, in seconds from now, whether or not earlier ones are answered."""
    start, running = perf_counter(), list[asyncio.Task[Sample]]()
    for request, moment in zip(requests, moments, strict=False):
        await _sleep_until(start + moment)
        running.append(asyncio.create_task(send(target, request, start + moment, fresh)))
    return list(await asyncio.gather(*running))


async def closed_loop(
    target: Target, requests: Sequence[Request], clients: int, fresh: bool = False
) -> list[Sample]:
    """Let `clients` share the requests, each sending its next one when its last is answered."""
    waiting, samples = iter(requests), list[Sample]()

    async def client() -> None:
        for request in waiting:
            samples.append(await send(target, request, perf_counter(), fresh))

    await asyncio.gather(*(client() for _ in range(clients)))
    return samples


def steady(rate: float, seconds: float) -> list[float]:
    """Return evenly spaced times: `rate` per second for `seconds`."""
    return [index / rate for index in range(max(1, round(rate * seconds)))]


def poisson(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """Return times of independent arrivals: exponential gaps, `rate` per second on average."""
    chance = Random(seed)
    gaps = (chance.expovariate(rate) for _ in itertools.count())
    return list(itertools.takewhile(lambda moment: moment < seconds, itertools.accumulate(gaps)))


def endless(requests: Sequence[Request]) -> Iterator[Request]:
    """Repeat requests without end; the schedule limits how many are sent."""
    return itertools.cycle(requests)


async def _sleep_until(moment: float) -> None:
    # The selector wakes up to a millisecond late; polling the clock instead would take the server's CPU.
    await asyncio.sleep(max(0.0, moment - perf_counter()))
