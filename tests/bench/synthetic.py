"""A server with a known delay, which misbehaves on request; it measures its own delay."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from tests.loopback import PATIENCE_S

HEAD_END = b"\r\n\r\n"
SCHEMA = {"properties": {"cache": {}, "stream": {}}}


class Synthetic:
    """Answer POST /vqa after `delay_s`; `outcomes` is what each request meets, the last one for all others.

    Outcomes: answer, refuse (before the body is read), drop (no response), truncate (half a response), hang,
    stream.
    """

    def __init__(
        self, delay_s: float = 0.0, outcomes: tuple[str, ...] = ("answer",), one_by_one: bool = False
    ):
        self.delay_s = delay_s
        self.outcomes = outcomes
        self.seen = 0
        self.disconnected = 0
        self.connections = 0
        self.delays_ms: list[float] = []
        self.writers = set[asyncio.StreamWriter]()
        self.lock = asyncio.Lock() if one_by_one else None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        self.connections += 1
        try:
            while await self.one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.disconnected += 1
        finally:
            self.writers.discard(writer)
            writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(HEAD_END)).decode()
        began = perf_counter()
        if head.startswith("GET"):
            text = SCHEMA if "openapi" in head else {"status": "alive"}
            self.respond(writer, 404 if "metrics" in head else 200, text)
            return True
        outcome = self.outcomes[min(self.seen, len(self.outcomes) - 1)]
        self.seen += 1
        if outcome == "refuse":
            self.respond(
                writer, 503, {"error": {"code": "overloaded"}}, "Retry-After: 1\r\nConnection: close\r\n"
            )
            writer.write_eof()
            while await reader.read(2**16):  # closed with unread bytes, the client might lose the response
                pass
            return False
        await reader.readexactly(int(head.lower().split("content-length:")[1].split("\r\n")[0]))
        return await self.answer(reader, writer, outcome, began)

    async def answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, outcome: str, began: float
    ) -> bool:
        if outcome == "drop":
            return False
        if outcome == "truncate":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            return False
        if outcome == "hang":
            await reader.readexactly(1)  # until the client leaves
        if outcome == "stream":
            await self.stream(writer)
            return True
        await self.work()
        spent = (perf_counter() - began) * 1000
        self.delays_ms.append(spent)
        self.respond(
            writer, 200, {"answer": "2", "cached": False, "timings_ms": {"vision": spent, "total": spent}}
        )
        return True

    async def work(self) -> None:
        if self.lock is None:
            await asyncio.sleep(self.delay_s)
            return
        async with self.lock:
            await asyncio.sleep(self.delay_s)

    async def stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        events = [b'event: text\ndata: {"text": "a"}\n\n'] * 3 + [
            b'event: answer\ndata: {"answer": "aaa"}\n\n'
        ]
        for event in events:
            await asyncio.sleep(self.delay_s)
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        writer.write(b"0\r\n\r\n")

    @staticmethod
    def respond(writer: asyncio.StreamWriter, status: int, body: object, more: str = "") -> None:
        data = json.dumps(body).encode()
        kind = f"Content-Length: {len(data)}\r\nContent-Type: application/json\r\n"
        writer.write(f"HTTP/1.1 {status} X\r\n{kind}{more}\r\n".encode() + data)


async def _others() -> None:
    while len(asyncio.all_tasks()) > 2:  # this one, and the one that waits for it
        await asyncio.sleep(0.01)


@contextmanager
def running(server: Synthetic) -> Iterator[str]:
    """Run the server in a thread of its own; yield its address."""
    loop, ready, address = asyncio.new_event_loop(), threading.Event(), list[str]()

    async def serve() -> None:
        listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
        address.append(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        stop = asyncio.Event()
        loops.append(stop)
        ready.set()
        await stop.wait()
        listening.close()
        for writer in server.writers:
            writer.close()
        await asyncio.wait_for(_others(), PATIENCE_S)

    loops: list[asyncio.Event] = []
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(loops[0].set)
        thread.join(PATIENCE_S)
        loop.close()
