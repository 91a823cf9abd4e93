"""Where work runs: one model thread, a few threads for decoding, and a bound on how many requests are inside.

The event loop only waits. It does not know what the work is.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import ParamSpec, TypeVar

from service.errors import ApiError

P = ParamSpec("P")
T = TypeVar("T")


class Engine:
    """Run decoding and the model off the event loop: one request runs, at most `max_queue` wait."""

    def __init__(self, max_queue: int, decode_threads: int) -> None:
        self._limit = max_queue + 1
        self._inside = 0
        self._service_s = 1.0
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one place for a whole request, from before its body is read. Raises ApiError if full."""
        if self._inside >= self._limit:
            raise ApiError("overloaded", retry_after_s=math.ceil(self._inside * self._service_s))
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def decode(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run decoding or other preparation in a pool thread."""
        return await asyncio.wrap_future(self._decoders.submit(work, *args, **kwargs))

    async def infer(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work in the one thread that uses the model."""
        return await asyncio.wrap_future(self._model_thread.submit(self._timed, work, *args, **kwargs))

    async def load(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work in the model thread that is no request, so that it does not count for Retry-After."""
        return await asyncio.wrap_future(self._model_thread.submit(work, *args, **kwargs))

    def close(self) -> None:
        """Finish what runs, drop what waits, end the threads."""
        self._decoders.shutdown(cancel_futures=True)
        self._model_thread.shutdown(cancel_futures=True)

    def _timed(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        start = perf_counter()
        try:
            return work(*args, **kwargs)
        finally:  # a running mean of the last few, for Retry-After
            self._service_s += 0.3 * (perf_counter() - start - self._service_s)
