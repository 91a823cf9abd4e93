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

import torch

from service.errors import ApiError

TORCH_THREADS = torch.get_num_threads()
"""What torch chose for this machine, read before a pool thread changes what later threads start with."""

P = ParamSpec("P")
T = TypeVar("T")


class Engine:
    """Run decoding and the model off the event loop: one request runs, at most `max_queue` wait."""

    def __init__(self, max_queue: int, decode_threads: int, torch_threads: int | None = None) -> None:
        self._limit = max_queue + 1
        self._inside = 0
        self._service_s = 1.0
        # Every thread that uses torch gets an OpenMP team. With more teams than cores, OpenMP threads sleep
        # between operations instead of spinning, and the model's many small ones take half as long again.
        self._decoders = ThreadPoolExecutor(decode_threads, "decode", _use_torch_threads, (1,))
        wanted = torch_threads or TORCH_THREADS
        self._model_thread = ThreadPoolExecutor(1, "model", _use_torch_threads, (wanted,))

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


def _use_torch_threads(number: int) -> None:
    """Set the torch threads of the calling thread; asking for them makes torch settle on it now."""
    torch.set_num_threads(number)
    torch.get_num_threads()
